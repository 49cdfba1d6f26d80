"""Several processes train as one would: the same losses, one set of files, and they stop and go on together."""

import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from process_fixtures import finish, run, start
from run_fixtures import flags, hubert_flags

from musicssl_jax.training.metrics import read_metrics

TRAIN = "musicssl_jax.train"
FIELDS = {"mesh__data": -1, "batch__per_device": 2, "steps": 30, "checkpoint__every": 10, "valid__every": 30}


def command(music, workdir, kind=flags, **fields) -> list[str]:
    return [*kind(music, **FIELDS | fields), f"--workdir={workdir}"]


def losses(workdir: Path) -> np.ndarray:
    return read_metrics(workdir / "metrics.jsonl")["train/loss"][1]


def assert_equal(workdir: Path, alone: Path) -> None:
    """The order of additions differs, and what it does grows with the steps."""
    np.testing.assert_allclose(losses(workdir)[:10], losses(alone)[:10], rtol=1e-5)
    np.testing.assert_allclose(losses(workdir), losses(alone), rtol=1e-2)


def until(happened, jobs, seconds=240.0) -> None:
    began = time.monotonic()
    while not happened():
        assert time.monotonic() - began < seconds, "it never happened"
        assert all(job.poll() is None for job in jobs), finish(jobs)
        time.sleep(0.05)


def newest(workdir: Path) -> int:
    """The last step that is saved."""
    return max((int(path.name) for path in workdir.glob("checkpoints/*") if path.name.isdecimal()), default=0)


def has_steps(workdir: Path, steps: int):
    def happened() -> bool:
        rows = (workdir / "metrics.jsonl").read_text().splitlines() if (workdir / "metrics.jsonl").exists() else []
        return any(json.loads(row)["step"] >= steps for row in rows if row.endswith("}"))

    return happened


@pytest.fixture(scope="module")
def alone(music, tmp_path_factory):
    """The run of one process with four devices."""
    workdir = tmp_path_factory.mktemp("alone")
    ((code, _, err),) = run(TRAIN, command(music, workdir), 1, devices=4)
    assert code == 0, err
    return workdir


@pytest.mark.long
def test_four_processes_that_split_the_parameters_are_one(music, alone, tmp_path):
    """The first alone writes and speaks. That four which split the batch are one, the test of a signal holds."""
    ended = run(TRAIN, command(music, tmp_path, mesh__fsdp=4), 4)
    assert [code for code, _, _ in ended] == [0] * 4, [err for _, _, err in ended]
    assert_equal(tmp_path, alone)
    assert (tmp_path / "report.html").is_file() and len(list((tmp_path / "tensorboard").iterdir())) == 1
    assert "done: 30 steps" in ended[0][1]
    assert not any("step" in out for _, out, _ in ended[1:])


@pytest.mark.long
def test_two_processes_train_musichubert(music, tmp_path):
    """They fit its codebooks together."""
    for workdir, processes, devices in ((tmp_path / "two", 2, 1), (tmp_path / "one", 1, 2)):
        fields = {"steps": 6, "checkpoint__every": 6}
        ended = run(TRAIN, command(music, workdir, hubert_flags, **fields), processes, devices=devices)
        assert [code for code, _, _ in ended] == [0] * processes, [err for _, _, err in ended]
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=1e-5)


@pytest.mark.long
def test_a_signal_to_one_stops_all_and_fewer_go_on(music, alone, tmp_path):
    """SIGTERM: saved, exit code 3 everywhere; then 2 processes, then 1."""
    for processes in (4, 2):
        before = newest(tmp_path)
        jobs = start(TRAIN, command(music, tmp_path), processes)
        until(has_steps(tmp_path, before + 1), jobs)
        jobs[-1].send_signal(signal.SIGTERM)
        ended = finish(jobs)
        assert [code for code, _, _ in ended] == [3] * processes, [err for _, _, err in ended]
        assert "SIGTERM" in ended[-1][2] and all("the same command goes on" in err for _, _, err in ended)
        assert before < newest(tmp_path) < 30
    ((code, _, err),) = run(TRAIN, command(music, tmp_path), 1)
    assert code == 0, err
    assert read_metrics(tmp_path / "metrics.jsonl")["train/loss"][0].tolist() == list(range(1, 31))
    assert_equal(tmp_path, alone)


@pytest.mark.long
def test_a_mistake_ends_all_with_one_line(music, tmp_path):
    ended = run(TRAIN, command(music, tmp_path, data__crop_seconds=1000), 2)
    assert 2 in [code for code, _, _ in ended]
    assert all("Traceback" not in err for _, _, err in ended)
