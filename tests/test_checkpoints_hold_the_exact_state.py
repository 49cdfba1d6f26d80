import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkpoint_fixtures import (
    META,
    abstract,
    assert_same,
    policy,
    restore,
    same_imports,
    save_steps,
    tiny_state,
)

from musicssl_jax.training.checkpointing import open_checkpoints
from musicssl_jax.training.checksums import checksum


def test_a_state_comes_back_bit_for_bit(tmp_path):
    save_steps(tmp_path, 7)
    state, meta = restore(tmp_path)
    assert_same(state, tiny_state(7))
    assert meta == META


def test_an_empty_folder_has_nothing_to_restore(tmp_path):
    assert restore(tmp_path / "new") is None


def test_donating_the_state_right_after_saving_does_not_change_what_is_saved(tmp_path):
    @partial(jax.jit, donate_argnums=0)
    def update(state):
        return jax.tree.map(lambda x: x + 1, state)

    state = update({"large": jnp.zeros(5_000_000), "small": jnp.zeros(7)})
    checkpoints = open_checkpoints(tmp_path, policy(keep=9))
    for step in (1, 2, 3):
        value = float(state["small"][0])
        checkpoints.save(step, state, META)
        for _ in range(10):
            state = update(state)
        checkpoints.wait()
        saved, _ = checkpoints.restore(abstract(state))
        np.testing.assert_array_equal(np.unique(np.asarray(saved["large"])), value)
    checkpoints.close()


def test_saving_a_step_twice_keeps_the_first(tmp_path):
    save_steps(tmp_path, 3, 3)
    assert int(restore(tmp_path)[0].step) == 3


def steps_in(folder: Path) -> set[int]:
    return {int(path.name) for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("rule", "kept"),
    [({"keep": 1}, {8}), ({"keep": 3}, {6, 7, 8}), ({"keep": 1, "keep_every": 3}, {3, 6, 8})],
    ids=str,
)
def test_checkpoints_are_kept_by_number_and_by_steps(tmp_path, rule, kept):
    checkpoints = open_checkpoints(tmp_path, policy(**rule))
    for step in range(1, 9):
        checkpoints.save(step, {"x": jnp.int32(step)}, META)
        checkpoints.wait()
    checkpoints.close()
    assert steps_in(tmp_path) == kept


def test_checkpoints_are_kept_by_time(tmp_path):
    """The first, the newest, and one for every second between, however slow the machine is."""
    interval = 1
    checkpoints = open_checkpoints(tmp_path, policy(keep=1, keep_hours=interval / 3600))
    began = time.monotonic()
    for step in range(1, 9):
        checkpoints.save(step, {"x": jnp.int32(step)}, META)
        checkpoints.wait()
        time.sleep(0.34)
    took = time.monotonic() - began
    checkpoints.close()
    kept = steps_in(tmp_path)
    assert {1, 8} < kept
    assert len(kept) - 2 <= took / interval


def test_a_save_is_due_every_n_steps_or_minutes(tmp_path):
    checkpoints = open_checkpoints(tmp_path, policy(every=5))
    assert [step for step in range(1, 12) if checkpoints.due(step)] == [5, 10]
    checkpoints = open_checkpoints(tmp_path, policy(every=0, minutes=0.2 / 60))
    assert not checkpoints.due(1)
    time.sleep(0.25)
    assert checkpoints.due(2)
    checkpoints.save(2, tiny_state(2), META)
    assert not checkpoints.due(3)
    checkpoints.close()


MESH_SCRIPT = """
import sys
import jax
devices, save, folder = int(sys.argv[1]), sys.argv[2] == "save", sys.argv[3]
jax.config.update("jax_num_cpu_devices", devices)
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from checkpoint_fixtures import META, abstract, policy
from musicssl_jax.training.checkpointing import open_checkpoints

data = max(devices // 2, 1)
mesh = jax.make_mesh((data, devices // data), ("data", "fsdp"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
values = {"kernel": np.arange(64.0, dtype=np.float32).reshape(8, 8), "bias": np.arange(8, dtype=np.int32)}
specs = {"kernel": P("fsdp", "data"), "bias": P()}
place = lambda name, value: jax.device_put(value, NamedSharding(mesh, specs[name]))
state = {name: place(name, value) for name, value in values.items()}
checkpoints = open_checkpoints(folder, policy(keep=9))
if save:
    checkpoints.save(devices, state, META)
else:
    restored, _ = checkpoints.restore(abstract(state))
    for name, value in values.items():
        np.testing.assert_array_equal(np.asarray(restored[name]), value)
        assert restored[name].sharding == state[name].sharding
    shards = {shard.data.shape for shard in restored["kernel"].addressable_shards}
    assert shards == {(8 // (devices // data), 8 // data)}, shards
checkpoints.close()
"""


def on_devices(count: int, action: str, folder: Path) -> None:
    command = [sys.executable, "-c", MESH_SCRIPT, str(count), action, str(folder)]
    done = subprocess.run(command, env=same_imports(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_checkpoint_of_eight_devices_restores_on_four_and_on_one(tmp_path):
    on_devices(8, "save", tmp_path)
    on_devices(4, "restore", tmp_path)
    on_devices(1, "restore", tmp_path)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "uint32", "int8", "float8_e4m3fn", "bool"])
def test_every_single_flipped_bit_changes_a_checksum(dtype):
    values = np.random.default_rng(0).integers(0, 2, (2, 3)).astype(jnp.dtype(dtype))
    true = int(checksum(values))
    raw = values.tobytes()
    for bit in range(len(raw) * 8) if dtype != "bool" else range(0, len(raw) * 8, 8):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        assert int(checksum(np.frombuffer(bytes(flipped), values.dtype).reshape(values.shape))) != true


def test_a_checksum_sees_zeroed_pages_swaps_and_shifts():
    ones = np.ones(4096, np.float32)
    true = int(checksum(ones))
    for start in range(0, 4096, 1024):
        page = ones.copy()
        page[start : start + 1024] = 0
        assert int(checksum(page)) != true
    half = np.repeat(np.float32([0, 1]), 2048)
    assert len({int(checksum(np.roll(half, shift))) for shift in (0, 1, 256, 1024, 2048)}) == 5


def test_the_checksum_of_a_key_is_that_of_its_bits():
    assert int(checksum(jax.random.key(1))) != int(checksum(jax.random.key(2)))
    assert int(checksum(jax.random.key(1))) == int(checksum(jax.random.key_data(jax.random.key(1))))
