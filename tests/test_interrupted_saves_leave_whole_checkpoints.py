"""Killed while saving, out of disk space, unwritable: what was saved before still restores."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from checkpoint_fixtures import META, abstract, policy, same_imports

from musicssl_jax.errors import UserError
from musicssl_jax.training.checkpointing import open_checkpoints
from musicssl_jax.training.file_hashes import SUMS

SAVE_FOREVER = """
import sys
import jax.numpy as jnp
from checkpoint_fixtures import META, policy
from musicssl_jax.training.checkpointing import open_checkpoints

checkpoints = open_checkpoints(sys.argv[1], policy(keep=2))
for step in range(1, 1000):
    state = {f"leaf{i}": jnp.full((100_000 * (i + 1),), step, jnp.float32) for i in range(12)}
    checkpoints.save(step, state, META)
"""
LIKE = {f"leaf{i}": jnp.zeros((100_000 * (i + 1),), jnp.float32) for i in range(12)}


def moment_of_the_third_save(folder: Path, moment: str) -> bool:
    saving = folder / "3.orbax-checkpoint-tmp"
    return {
        "begun": saving.exists(),
        "data written": any(saving.glob("state*/ocdbt*/d/*")),
        "hashed": (saving / SUMS).exists() or (folder / "3").exists(),
    }[moment]


@pytest.mark.parametrize("moment", ["begun", "data written", "hashed"])
def test_a_writer_killed_while_saving_leaves_no_half_checkpoint(tmp_path, moment):
    writer = subprocess.Popen([sys.executable, "-c", SAVE_FOREVER, str(tmp_path)], env=same_imports())
    try:
        deadline = time.monotonic() + 60
        while not moment_of_the_third_save(tmp_path, moment):
            assert writer.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.0005)
    finally:
        writer.kill()
        writer.wait()
    checkpoints = open_checkpoints(tmp_path, policy())
    state, meta = checkpoints.restore(abstract(LIKE))
    step = checkpoints.latest_step
    checkpoints.close()
    assert step >= 2
    assert meta == META
    for leaf in state.values():
        np.testing.assert_array_equal(np.asarray(leaf), step)
    assert all(path.name.isdecimal() for path in tmp_path.iterdir())


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 12 MB; mounting one takes a privilege."""
    command = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(tmp_path)]
    try:
        mounted = subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("mounting a tmpfs is not permitted here")
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def noise(step: int) -> dict:
    """4 MB that do not compress."""
    return {"x": jnp.asarray(np.random.default_rng(step).integers(2**32, size=1_000_000, dtype=np.uint32))}


def save_noise(checkpoints, steps: int) -> None:
    for step in range(1, steps + 1):
        checkpoints.save(step, noise(step), META)


def test_a_full_disk_is_reported_and_the_last_good_checkpoint_restores(small_disk):
    checkpoints = open_checkpoints(small_disk / "run", policy(keep=9))
    with pytest.raises(UserError) as told:
        save_noise(checkpoints, 8)
    checkpoints.close()
    message = str(told.value)
    assert f"{small_disk}/run" in message
    assert "No space left on device" in message
    last = int(message.split("the last good checkpoint is step ")[1].split(":")[0])
    assert 1 <= last < 8
    assert all(path.name.isdecimal() for path in (small_disk / "run").iterdir())

    checkpoints = open_checkpoints(small_disk / "run", policy(keep=9))
    state, _ = checkpoints.restore(abstract(noise(0)))
    checkpoints.close()
    np.testing.assert_array_equal(np.asarray(state["x"]), np.asarray(noise(last)["x"]))


def test_a_disk_that_filled_up_in_the_background_is_reported_by_wait(small_disk):
    checkpoints = open_checkpoints(small_disk / "run", policy())
    checkpoints.save(1, noise(1), META)
    checkpoints.wait()
    # Room for the arrays themselves, and not for what is written beside them.
    taken = shutil.disk_usage(small_disk).free - noise(2)["x"].nbytes - 4096
    (small_disk / "other.bin").write_bytes(os.urandom(taken))
    checkpoints.save(2, noise(2), META)
    with pytest.raises(UserError, match="the last good checkpoint is step 1"):
        checkpoints.wait()
    checkpoints.close()


FILL_UP = """
import sys
from checkpoint_fixtures import policy
from test_interrupted_saves_leave_whole_checkpoints import save_noise
from musicssl_jax.errors import UserError
from musicssl_jax.training.checkpointing import open_checkpoints

checkpoints = open_checkpoints(sys.argv[1], policy(keep=9))
try:
    save_noise(checkpoints, 8)
except UserError as error:
    print(error, file=sys.stderr)
    checkpoints.close()
"""


def test_a_full_disk_is_one_line_on_stderr(small_disk):
    command = [sys.executable, "-c", FILL_UP, str(small_disk / "run")]
    done = subprocess.run(command, env=same_imports(), capture_output=True, text=True, timeout=120)
    assert re.fullmatch("cannot write checkpoints .*\n", done.stderr), done.stderr


def test_a_folder_that_cannot_be_made_is_the_users_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write checkpoints to .*file/checkpoints"):
        open_checkpoints(tmp_path / "file" / "checkpoints", policy())
