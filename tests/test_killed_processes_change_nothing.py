"""SIGKILL at random moments of a run of four processes, the same command each time: nothing in the end is different."""

import os
import random
import time

import numpy as np
import pytest
from process_fixtures import finish, run, start
from run_fixtures import flags

from musicssl_jax.training.metrics import read_metrics

PROCESSES = 4
KILLS = int(os.environ.get("MUSICSSL_KILLS", "2"))
"""20 take half an hour on two cores."""
TIMES = ("time/", "perf/")  # what the clock decides


def command(music, workdir) -> list[str]:
    fields = {"mesh__data": -1, "batch__per_device": 2, "steps": 100, "checkpoint__every": 5, "valid__every": 50}
    return [*flags(music, **fields), f"--workdir={workdir}"]


@pytest.mark.long
def test_the_metrics_are_those_of_an_uninterrupted_run(music, tmp_path):
    """Bit for bit. Before, between and after checkpoints, in start-up, while a checkpoint is written."""
    began = time.monotonic()
    ended = run("musicssl_jax.train", command(music, tmp_path / "whole"), PROCESSES)
    assert [code for code, _, _ in ended] == [0] * PROCESSES, [err for _, _, err in ended]
    whole_seconds = time.monotonic() - began

    draw = random.Random(0)
    reached = []
    for _ in range(KILLS):
        jobs = start("musicssl_jax.train", command(music, tmp_path / "killed"), PROCESSES, heartbeat=10)
        time.sleep(draw.uniform(0, whole_seconds))
        draw.choice(jobs).kill()
        finish(jobs)
        steps = read_metrics(tmp_path / "killed" / "metrics.jsonl").get("train/loss", ([0], []))[0]
        reached.append(int(steps[-1]))
    ended = run("musicssl_jax.train", command(music, tmp_path / "killed"), PROCESSES)
    assert [code for code, _, _ in ended] == [0] * PROCESSES, [err for _, _, err in ended]
    print("steps reached when killed:", reached)

    ours, theirs = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("killed", "whole"))
    assert ours.keys() == theirs.keys()
    for name in (name for name in theirs if not name.startswith(TIMES)):
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
