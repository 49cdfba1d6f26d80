"""SIGKILL to one of several processes: the others end by JAX's own abort, the same command goes on, nothing differs.

`MUSICSSL_KILLS=20 MUSICSSL_PROCESSES=4 pytest tests/test_killed_processes_change_nothing.py` is the long form.
"""

import os
import random
import signal
import time

import numpy as np
import pytest
from process_fixtures import finish, run, start
from run_fixtures import flags

from musicssl_jax.training.metrics import read_metrics

KILLS = int(os.environ.get("MUSICSSL_KILLS", "1"))
PROCESSES = int(os.environ.get("MUSICSSL_PROCESSES", "2"))
STEPS = 40 if KILLS == 1 else 8 * KILLS
HEARTBEAT = 10  # seconds
STARTUP = 20  # seconds in which some kills come
BY_THE_CLOCK = ("time/", "perf/")


def command(music, workdir) -> list[str]:
    fields = {"mesh__data": -1, "batch__per_device": 2, "steps": STEPS, "checkpoint__every": 5, "valid__every": 20}
    return [*flags(music, **fields), f"--workdir={workdir}"]


def train_to_the_end(music, workdir) -> None:
    ended = run("musicssl_jax.train", command(music, workdir), PROCESSES)
    assert [code for code, _, _ in ended] == [0] * PROCESSES, [err for _, _, err in ended]


def kill_one(music, workdir, draw: random.Random, more: int | None) -> int:
    """The step that was reached when one was killed, `more` steps on from the last time; None: in start-up.

    The others end in time.
    """
    before = last_step(workdir)
    jobs = start("musicssl_jax.train", command(music, workdir), PROCESSES, heartbeat=HEARTBEAT)
    began = time.monotonic()
    while more and last_step(workdir) < before + more:
        assert all(job.poll() is None for job in jobs), finish(jobs)
        time.sleep(0.05)
    time.sleep(draw.uniform(0, 1 if more else STARTUP))
    reached = last_step(workdir)
    print(f"{'a step' if more else 'start-up'}: killed at step {reached}, {time.monotonic() - began:.0f} s", flush=True)
    draw.choice(jobs).kill()
    began = time.monotonic()
    codes = [code for code, _, _ in finish(jobs)]
    assert -signal.SIGKILL in codes and 0 not in codes, codes
    if more:  # in start-up it may be that not all have joined
        assert set(codes) == {-signal.SIGKILL, -signal.SIGABRT}, codes
        assert time.monotonic() - began < HEARTBEAT + 40  # a loaded machine notices late
    return reached


def last_step(workdir) -> int:
    """The newest step that is logged."""
    path = workdir / "metrics.jsonl"
    rows = read_metrics(path) if path.exists() else {}
    return int(rows["train/loss"][0][-1]) if "train/loss" in rows else 0


@pytest.mark.long
def test_the_metrics_are_those_of_an_uninterrupted_run(music, tmp_path):
    """Bit for bit. Many kills also come in start-up and while a checkpoint is written."""
    train_to_the_end(music, tmp_path / "whole")
    draw = random.Random(0)
    moments = [draw.choice([None, *range(1, 9)]) for _ in range(KILLS)] if KILLS > 1 else [11]
    reached = [kill_one(music, tmp_path / "killed", draw, more) for more in moments]
    assert 0 < reached[-1] < STEPS
    train_to_the_end(music, tmp_path / "killed")

    ours, theirs = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("killed", "whole"))
    assert ours["time/lost"][1][-1] > 0 == theirs["time/lost"][1][-1]
    assert ours.keys() == theirs.keys()
    for name in (name for name in theirs if not name.startswith(BY_THE_CLOCK)):
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
