"""Which parts of an update a TPU's compiler gives cycles to: the names that parts have in the program."""

import re
from collections import Counter

import jax
import pytest
from plan_fixtures import inputs_on

from musicssl_jax.planning.compiled import compile_step
from musicssl_jax.planning.cycles import by_part, costs, part_of
from musicssl_jax.planning.hlo import parse

PROGRAM = """HloModule cycles

%body (carried: (s32[], f32[8])) -> (s32[], f32[8]) {
  %carried = (s32[], f32[8]) parameter(0)
  %i = s32[] get-tuple-element(%carried), index=0
  %x = f32[8]{0} get-tuple-element(%carried), index=1
  %mixed = f32[8]{0} sine(%x), metadata={op_name="jit(step)/transpose(jvp(attention))/sin"}, backend_config={"estimated_cycles":"100"}
  ROOT %tuple = (s32[], f32[8]) tuple(%i, %mixed)
}

%condition (carried: (s32[], f32[8])) -> pred[] {
  %carried.1 = (s32[], f32[8]) parameter(0)
  ROOT %true = pred[] constant(true)
}

ENTRY %main (p: f32[8], q: (s32[], f32[8])) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  %q = (s32[], f32[8]) parameter(1)
  %loop = (s32[], f32[8]) while(%q), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"12"}}
  %adam = f32[8]{0} sine(%p), metadata={op_name="jit(step)/optimizer/sin"}, backend_config={"estimated_cycles":"7"}
  %taught = f32[8]{0} sine(%p), metadata={op_name="jit(step)/jvp(teacher)/while/body/attention/sin"}, backend_config={"estimated_cycles":"30"}
  ROOT %copied = f32[8]{0} copy(%p), backend_config={"estimated_cycles":"5"}
}
"""  # noqa: E501


def test_cycles_of_a_loop_count_with_every_round_and_go_to_their_parts():
    found = costs(parse(PROGRAM))
    assert by_part(found) == {
        ("attention", True): 1200,
        ("teacher", False): 30,
        ("optimizer", False): 7,
        ("other", False): 5,
    }
    assert [cost.cycles for cost in found] == [1200, 30, 7, 5]


@pytest.mark.parametrize(
    ("file", "parts"),
    [
        ("music2vec", {"conv_encoder", "positional", "attention", "feed_forward", "head", "teacher", "optimizer"}),
        ("musichubert", {"conv_encoder", "positional", "attention", "feed_forward", "head", "targets", "optimizer"}),
    ],
)
def test_an_updates_parts_have_their_names_in_the_program(file, parts):
    program = parse(compile_step(inputs_on(1, 1, file)).text)
    named = {
        part_of(instruction)
        for computation in program.computations.values()
        for instruction in computation.instructions.values()
        if re.search(r"op_name=", instruction.attributes)
    }
    assert {part for part, _ in named} >= parts
    assert ("conv_encoder", True) in named and ("attention", True) in named
    assert ("teacher", True) not in named and ("optimizer", True) not in named


def test_the_choice_between_old_and_new_state_is_the_optimizers():
    """Compilers join it with the new state's last operation and give both its name."""
    inputs = inputs_on(1, 1)
    chosen = Counter(
        part_of(instruction)[0]
        for computation in parse(compile_step(inputs).text).computations.values()
        for instruction in computation.instructions.values()
        if "/select_n" in instruction.attributes
    )
    assert chosen["optimizer"] >= len(jax.tree.leaves((inputs.state.params, inputs.state.opt_state)))
    assert chosen["teacher_average"] >= len(jax.tree.leaves(inputs.state.teacher))
