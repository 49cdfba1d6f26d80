"""The planned step is the one that is trained, and sends what the parameters' shapes predict: no more, no less."""

import jax
import pytest
from plan_fixtures import WEAK, inputs_on
from run_fixtures import noise

from musicssl_jax.models.objective import make_objective
from musicssl_jax.planning.collectives import find_collectives
from musicssl_jax.planning.compiled import compile_step, lower_step
from musicssl_jax.planning.hlo import parse
from musicssl_jax.planning.prediction import gradient_bytes, reduction
from musicssl_jax.training.batches import BatchPlan
from musicssl_jax.training.optimizer import make_optimizer, make_schedule
from musicssl_jax.training.step import abstract_state, batch_sharding, make_train_step


def found_and_predicted(data: int, fsdp: int, file: str = "music2vec", **overrides):
    """(collectives of the compiled step, what is predicted of it, inputs)."""
    inputs = inputs_on(data, fsdp, file, **overrides)
    sizes = dict(inputs.mesh.shape)
    predicted = reduction(inputs.objective, inputs.state, inputs.frozen, inputs.batch, sizes)
    return find_collectives(parse(compile_step(inputs).text), sizes), predicted, inputs


def parameter_bytes(inputs) -> int:
    return sum(leaf.size * 4 for leaf in jax.tree.leaves(inputs.state.params))


LONG = pytest.mark.long


@pytest.mark.parametrize("devices", [*(pytest.param(n, marks=LONG) for n in (1, 2, 4)), 8])
def test_devices_that_share_a_batch_send_gradients_once_and_nothing_else(devices):
    """Weak scaling, 4 clips a device: bytes do not grow, no batch and no activation is gathered."""
    found, predicted, inputs = found_and_predicted(devices, 1, **WEAK, batch__clips=4 * devices)
    assert inputs.rows == (2, 2 * devices)
    if devices == 1:
        assert (found, predicted) == ([], (0, 0, 0))
        return
    assert predicted.gradients == parameter_bytes(inputs)
    assert {(c.kind, c.axes, c.times, c.loops) for c in found} == {("all-reduce", ("data",), 1, 0)}
    assert sum(c.bytes for c in found) == predicted.gradients + predicted.statistics
    assert sum(c.scalars for c in found) == predicted.scalars
    (large,) = [c for c in found if c.bytes]
    assert large.group == devices


@LONG
def test_parts_of_parameters_are_gathered_over_fsdp_and_reduced_once_over_data():
    found, predicted, inputs = found_and_predicted(2, 4, batch__clips=16, batch__per_device=1)
    assert inputs.rows == (2, 8)
    over_data = [c for c in found if "data" in c.axes and c.bytes]
    assert {(c.kind, c.axes, c.times, c.loops) for c in over_data} == {("all-reduce", ("data",), 1, 0)}
    assert sum(c.bytes for c in over_data) == predicted.bytes
    assert parameter_bytes(inputs) / 4 < predicted.gradients < parameter_bytes(inputs)
    gathered = [c for c in found if c.kind == "all-gather"]
    assert gathered and {c.axes for c in gathered} == {("fsdp",)}
    # Products are not split by width: inside of the blocks kernels alone travel.
    assert {c.kind for c in found} <= {"all-gather", "all-reduce", "reduce-scatter"}
    width, ffn = inputs.config.model.width, inputs.config.model.ffn
    assert {c.bytes for c in gathered if c.loops > 1} == {4 * width * width, 4 * width * ffn}
    # Of one micro-batch no device ever sees another one's clips: a crop has 16,000 samples of 2 bytes.
    assert max(c.bytes for c in gathered) < 4 * 16_000 * 2


@LONG
def test_musichubert_sends_its_gradients_and_statistics_once():
    found, predicted, inputs = found_and_predicted(2, 1, "musichubert", batch__clips=4, batch__per_device=1)
    assert predicted.gradients == parameter_bytes(inputs)
    assert {(c.kind, c.axes, c.times, c.loops) for c in found} == {("all-reduce", ("data",), 1, 0)}
    assert sum(c.bytes for c in found) == predicted.bytes
    assert 0 < sum(c.scalars for c in found) <= predicted.scalars  # two that are the same are sent once


def test_the_planned_step_is_the_one_that_is_trained():
    """To the letter, with the sharding of every argument."""
    inputs = inputs_on(2, 2, prng="rbg", compute__remat="products")
    config, mesh = inputs.config, inputs.mesh
    objective = make_objective(config, "cpu")
    schedule = make_schedule(config.schedule, config.steps)
    optimizer = make_optimizer(config.optimizer, schedule)
    plan = BatchPlan(config.batch.clips, config.batch.per_device, batch_sharding(mesh))
    with jax.set_mesh(mesh):
        state = abstract_state(objective, optimizer, mesh)
        step = make_train_step(objective, optimizer, schedule, mesh, config.seed, prng=config.prng)
        trained = step.lower(state, (), plan.arrays(noise(plan.rows, 16000, 0), stop=False))
    planned = lower_step(inputs)
    assert planned.as_text() == trained.as_text()
    assert planned.in_avals == trained.in_avals


def test_fsdp_leaves_a_device_a_part_of_the_gradients():
    params = inputs_on(1, 1).state.params
    whole, half = (gradient_bytes(params, {"data": 2, "fsdp": n}) for n in (1, 2))
    vectors = sum(leaf.size * 4 for path, leaf in jax.tree.leaves_with_path(params) if "kernel" not in str(path))
    assert whole - half == (whole - vectors) / 2
    assert gradient_bytes(params, {"data": 1, "fsdp": 8}) == 0
