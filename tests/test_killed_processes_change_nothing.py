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
HEARTBEAT = 10  # seconds
BY_THE_CLOCK = ("time/", "perf/")


def command(music, workdir) -> list[str]:
    fields = {"mesh__data": -1, "batch__per_device": 2, "steps": 40, "checkpoint__every": 5, "valid__every": 20}
    return [*flags(music, **fields), f"--workdir={workdir}"]


def train_to_the_end(music, workdir) -> float:
    """Seconds that it took."""
    began = time.monotonic()
    ended = run("musicssl_jax.train", command(music, workdir), PROCESSES)
    assert [code for code, _, _ in ended] == [0] * PROCESSES, [err for _, _, err in ended]
    return time.monotonic() - began


def kill_one(music, workdir, draw: random.Random, seconds: float | None) -> int:
    """The step that was reached when one was killed, `seconds` after the start; None: amid the steps.

    The others end in time, or were through.
    """
    jobs = start("musicssl_jax.train", command(music, workdir), PROCESSES, heartbeat=HEARTBEAT)
    if seconds is None:
        while saved(workdir) < 10:
            assert all(job.poll() is None for job in jobs), finish(jobs)
            time.sleep(0.05)
    else:
        time.sleep(seconds)
    draw.choice(jobs).kill()
    began = time.monotonic()
    codes = [code for code, _, _ in finish(jobs)]
    assert time.monotonic() - began < HEARTBEAT + 40  # a loaded machine notices late
    assert set(codes) <= {-signal.SIGKILL, -signal.SIGABRT, 0}, codes
    rows = read_metrics(workdir / "metrics.jsonl") if (workdir / "metrics.jsonl").exists() else {}
    return int(rows["train/loss"][0][-1]) if "train/loss" in rows else 0


def saved(workdir) -> int:
    """The newest step that is saved."""
    return max((int(path.name) for path in workdir.glob("checkpoints/*") if path.name.isdecimal()), default=0)


@pytest.mark.long
def test_the_metrics_are_those_of_an_uninterrupted_run(music, tmp_path):
    """Bit for bit. Many kills also come in start-up and while a checkpoint is written."""
    whole_seconds = train_to_the_end(music, tmp_path / "whole")
    draw = random.Random(0)
    moments = [draw.uniform(0, whole_seconds) for _ in range(KILLS)] if KILLS > 1 else [None]
    reached = [kill_one(music, tmp_path / "killed", draw, seconds) for seconds in moments]
    train_to_the_end(music, tmp_path / "killed")
    print("steps reached when killed:", reached)

    ours, theirs = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("killed", "whole"))
    assert ours["time/lost"][1][-1] > 0 == theirs["time/lost"][1][-1]
    assert ours.keys() == theirs.keys()
    for name in (name for name in theirs if not name.startswith(BY_THE_CLOCK)):
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
