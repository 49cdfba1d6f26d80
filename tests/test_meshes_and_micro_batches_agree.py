"""However the global batch is divided, an update is the same, and costs one reduction over `data`."""

import re

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from run_fixtures import noise, run_steps, tiny_config

from musicssl_jax.errors import UserError
from musicssl_jax.models.objective import make_objective
from musicssl_jax.parallel import PARTITION_RULES, make_mesh, partition_specs, path_name
from musicssl_jax.training.batches import BatchPlan
from musicssl_jax.training.optimizer import make_optimizer, make_schedule
from musicssl_jax.training.step import abstract_state, batch_sharding, make_train_step

STEPS = 10
COLLECTIVE = re.compile(r"= .*? (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(")


@pytest.fixture(scope="module")
def alone():
    """State and losses of one device that takes the batch at once."""
    return run_steps(tiny_config(batch__per_device=8), make_mesh(1, 1), STEPS)


@pytest.fixture(scope="module")
def alone_for_three():
    return run_steps(tiny_config(batch__per_device=8), make_mesh(1, 1), 3)


LONG = pytest.mark.long


@pytest.mark.parametrize(("data", "fsdp"), [pytest.param(8, 1, marks=LONG), (2, 4), pytest.param(1, 8, marks=LONG)])
def test_meshes_of_eight_devices_give_the_same_curve(alone, data, fsdp):
    state, losses, _ = run_steps(tiny_config(batch__per_device=1), make_mesh(data, fsdp), STEPS)
    np.testing.assert_allclose(losses, alone[1], rtol=1e-5)
    kernel = state.params["encoder"]["transformer"]["blocks"]["feed_in"]["kernel"]
    teacher = state.teacher["transformer"]["blocks"]["feed_in"]["kernel"]
    moment = next(s for s in state.opt_state if hasattr(s, "mean")).mean["head"]["kernel"]
    assert {s.data.shape for s in kernel.addressable_shards} == {(2, 32, 64 // fsdp)}
    assert {s.data.shape for s in teacher.addressable_shards} == {(2, 32, 64 // fsdp)}
    assert {s.data.shape for s in moment.addressable_shards} == {(32, 32 // fsdp)}


@pytest.mark.parametrize("per_device", [pytest.param(1, marks=LONG), pytest.param(2, marks=LONG), 3])
def test_micro_batches_do_not_change_masks_dropout_or_loss(alone, alone_for_three, per_device):
    """Per device 3 fills up 8 clips to 9, whose last row must weigh nothing."""
    _, losses, row = run_steps(tiny_config(batch__per_device=per_device), make_mesh(1, 1), 3)
    np.testing.assert_allclose(losses, alone[1][:3], rtol=2e-6)
    _, _, whole = alone_for_three
    for name in ("mask/share", "target/spread", "prediction/swap_gap", "target/positional_share"):
        np.testing.assert_allclose(row[name], whole[name], rtol=1e-3, atol=1e-5, err_msg=name)


def test_masks_and_dropout_differ_from_step_to_step():
    config = tiny_config(batch__per_device=8)
    objective = make_objective(config)
    mesh = make_mesh(1, 1)
    plan = BatchPlan(8, 8, batch_sharding(mesh))
    batch = {name: values[0] for name, values in plan.arrays(noise(plan.rows, 16000, 0)).items()}
    params = objective.init(jax.random.key(0))
    teacher = objective.init_teacher(params)
    loss = jax.jit(lambda batch, key: objective.loss(params, teacher, (), batch, key)[0])
    keys = [jax.random.fold_in(jax.random.key(0), step) for step in range(4)]
    assert len({float(loss(batch, key)) for key in keys}) == 4
    fixed = batch | {"mask": objective.example((), batch, keys[0])["mask"]}  # dropout alone
    assert len({float(loss(fixed, key)) for key in keys}) == 4
    assert float(loss(batch, keys[0])) == float(loss(batch, keys[0]))


@LONG
def test_a_data_parallel_update_has_one_reduction_and_moves_nothing_else():
    """The all-reduce stands outside of the loop over micro-batches, and no batch or activation is gathered."""
    config = tiny_config(batch__clips=32, batch__per_device=2)
    mesh = make_mesh(8, 1)
    objective = make_objective(config)
    schedule = make_schedule(config.schedule, config.steps)
    optimizer = make_optimizer(config.optimizer, schedule)
    plan = BatchPlan(32, 2, batch_sharding(mesh))
    assert plan.shape == (2, 16)
    with jax.set_mesh(mesh):
        state = abstract_state(objective, optimizer, mesh)
        step = make_train_step(objective, optimizer, schedule, mesh, seed=0)
        program = step.lower(state, (), plan.arrays(noise(plan.rows, 16000, 0))).compile().as_text()
    found = [line for line in program.splitlines() if COLLECTIVE.search(line)]
    assert len(found) == 1 and "all-reduce" in found[0], found
    assert "while/body" not in found[0]


def test_partition_rules_name_what_is_wrong():
    params = {"a": {"kernel": np.zeros((6, 4))}}
    sizes = {"data": 1, "fsdp": 4}
    for rules, complaint in [
        ([(r"b/kernel", P()), (r"a/kernel", P())], "b/kernel"),
        ([], "no partition rule matches parameter a/kernel"),
        ([(r"kernel", P("fsdp", "fsdp"))], "a/kernel.*axis twice"),
        ([(r"kernel", P(None, None, "fsdp"))], "a/kernel.*more dimensions"),
    ]:
        with pytest.raises(ValueError, match=complaint):
            partition_specs(params, rules, sizes)
    with pytest.raises(UserError, match="a/kernel.*6 does not divide.*mesh.fsdp that divides 6"):
        partition_specs(params, [(r"kernel", P("fsdp", None))], sizes)
    assert partition_specs(params, [(r"kernel", P(None, "fsdp"))], sizes)["a"]["kernel"] == P(None, "fsdp")


def test_every_parameter_of_the_base_model_is_split_except_vectors():
    objective = make_objective(tiny_config())
    params = jax.eval_shape(objective.init, jax.random.key(0))
    specs = partition_specs(params, PARTITION_RULES, {"data": 1, "fsdp": 8})
    for path, spec in jax.tree_util.tree_leaves_with_path(specs, is_leaf=lambda x: isinstance(x, P)):
        assert ("fsdp" in spec) == path_name(path).endswith("kernel"), path_name(path)


def test_a_mesh_larger_than_the_devices_is_the_users_error():
    with pytest.raises(UserError, match="4 x 4 = 16 devices, but there are 8"):
        make_mesh(4, 4)
    with pytest.raises(UserError, match=r"mesh\.fsdp"):
        make_mesh(1, 0)


def test_the_rows_of_a_process_are_those_its_devices_need():
    mesh = make_mesh(2, 2)
    plan = BatchPlan(clips=10, per_device=2, sharding=batch_sharding(mesh))
    assert plan.shape == (2, 8) and plan.filled == 6
    assert plan.rows == list(range(10))
    arrays = plan.arrays(noise(plan.rows, 8, 0))
    np.testing.assert_array_equal(np.asarray(arrays["weight"]).ravel(), [1] * 10 + [0] * 6)
    np.testing.assert_array_equal(np.asarray(arrays["row"]).ravel(), np.arange(16))
    np.testing.assert_array_equal(np.asarray(arrays["audio"]).reshape(16, 8)[:10], noise(range(10), 8, 0)["audio"])
