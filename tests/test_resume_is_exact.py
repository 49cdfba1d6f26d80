"""The same command again goes on as if nothing had happened: bit for bit on the same devices."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from run_fixtures import flags

from musicssl_jax.config import load
from musicssl_jax.errors import PREEMPTED, UserError
from musicssl_jax.train import train

REPOSITORY = Path(__file__).parent.parent
TIMED = ("perf/", "time/")


def rows_of(run: Path) -> dict[tuple[int, str], float]:
    """(step, name) -> value of all that does not depend on the clock; the last row of a step counts."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {(r["step"], k): v for r in rows for k, v in r.items() if not k.startswith(TIMED)}


def final_leaves(run: Path) -> dict[str, str]:
    """Checksums of every leaf of the newest checkpoint, as its own metadata gives them."""
    steps = sorted(int(path.name) for path in (run / "checkpoints").iterdir() if path.name.isdigit())
    meta = json.loads((run / "checkpoints" / str(steps[-1]) / "meta" / "metadata").read_text())
    return {name: (leaf["checksum"], leaf["shape"]) for name, leaf in meta["leaves"].items()}


def start(music: Path, workdir: Path, *, devices: int, **overrides) -> subprocess.Popen:
    """The command itself, in a process of its own, on simulated devices."""
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(devices), "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "musicssl_jax.train", *flags(music, **overrides), f"--workdir={workdir}"]
    return subprocess.Popen(command, cwd=REPOSITORY, env=environment, stderr=subprocess.PIPE, text=True)


def wait_for_checkpoint(process: subprocess.Popen, workdir: Path, step: int) -> None:
    deadline = time.monotonic() + 240
    while not (workdir / "checkpoints" / str(step)).exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline, "no checkpoint appeared"
        time.sleep(0.05)


@pytest.mark.long
@pytest.mark.parametrize("devices", [1, 8])
def test_a_killed_run_ends_like_an_uninterrupted_one(music, tmp_path, devices):
    overrides = {"steps": 20, "mesh__data": devices, "batch__per_device": 1, "data__crop_seconds": 0.5}
    whole = start(music, tmp_path / "whole", devices=devices, **overrides)
    assert whole.wait() == 0, whole.stderr.read()
    killed = start(music, tmp_path / "killed", devices=devices, **overrides)
    wait_for_checkpoint(killed, tmp_path / "killed", 10)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    again = start(music, tmp_path / "killed", devices=devices, **overrides)
    assert again.wait() == 0, again.stderr.read()
    assert rows_of(tmp_path / "killed") == rows_of(tmp_path / "whole")
    assert final_leaves(tmp_path / "killed") == final_leaves(tmp_path / "whole")


def test_sigterm_saves_and_ends_with_its_own_code(music, tmp_path):
    run = start(music, tmp_path, devices=1, steps=500, data__crop_seconds=0.5)
    wait_for_checkpoint(run, tmp_path, 5)
    run.send_signal(signal.SIGTERM)
    error = run.communicate()[1]
    assert run.returncode == PREEMPTED, error
    assert "SIGTERM: step" in error and "the same command goes on" in error
    saved = max(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert f"step {saved} is saved" in error


@pytest.mark.long
def test_a_run_goes_on_with_other_devices(music, tmp_path):
    """Saved on 8 devices, continued on 4, 2 and 1 and on 8 again: the curve of 8 devices throughout."""
    config = {"checkpoint__every": 3, "batch__per_device": 1, "valid__every": 100, "data__crop_seconds": 0.5}

    def go(workdir, steps, devices, fsdp=1):
        mesh = {"mesh__data": devices // fsdp, "mesh__fsdp": fsdp}
        train(load(flags(music, steps=steps, **config, **mesh, **CONSTANT))[0], workdir)

    go(tmp_path / "eight", 15, 8)
    for steps, devices, fsdp in [(3, 8, 1), (6, 4, 2), (9, 2, 1), (12, 1, 1), (15, 8, 1)]:
        go(tmp_path / "moved", steps, devices, fsdp)
    eight, moved = rows_of(tmp_path / "eight"), rows_of(tmp_path / "moved")
    for step in range(1, 16):
        np.testing.assert_allclose(moved[step, "train/loss"], eight[step, "train/loss"], rtol=1e-5)


# A schedule that does not depend on `steps`, which grows here.
CONSTANT = {"schedule__warmup": 0.0, "schedule__hold": 1.0, "schedule__decay": 0.0}


@pytest.mark.long
def test_another_config_is_refused_unless_allowed(music, tmp_path):
    train(load(flags(music, steps=2, valid__every=100))[0], tmp_path)
    other = load(flags(music, steps=3, valid__every=100, mask__prob=0.5))[0]
    with pytest.raises(UserError, match=r"mask\.prob 0\.65 -> 0\.5.*--allow_change=mask\.prob"):
        train(other, tmp_path)
    train(other, tmp_path, allow_change=("mask.prob",))
    wider = load(flags(music, steps=4, model__width=64))[0]
    with pytest.raises(UserError, match=r"encoder/projection/kernel"):
        train(wider, tmp_path)
