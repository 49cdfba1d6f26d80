"""Several `musicssl embed` on one folder share the work; kills leave nothing half done."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from checkpoint_fixtures import same_imports
from encoder_fixtures import tiny_config_file

RATE = 16000
FILES = 24


@pytest.fixture(scope="module")
def music(tmp_path_factory):
    folder = tmp_path_factory.mktemp("music")
    for number in range(FILES):
        audio = np.random.default_rng(number).normal(0, 0.1, RATE * (2 + number % 3))
        soundfile.write(folder / f"{number:02}.wav", audio, RATE, subtype="PCM_16")
    for number in range(2):
        (folder / f"{number}-bad.mp3").write_bytes(b"no music" * 100)
    return folder


@pytest.fixture(scope="module")
def start(music, tmp_path_factory):
    """Starts the command as a process of its own."""
    config = tiny_config_file(tmp_path_factory.mktemp("config"))

    def start(output, *flags):
        command = [sys.executable, "-m", "musicssl_jax.embed", f"--checkpoint=random:{config}", f"--input={music}"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(
            [*command, f"--output={output}", "--window_seconds=2", *flags], env=same_imports(), text=True, **pipes
        )

    return start


def finished(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


def counted(report, word):
    """The number behind `word` in a report, 0 if it has no such line."""
    return next((int(line.split()[1]) for line in report.splitlines() if line.startswith(word)), 0)


@pytest.mark.parametrize("form", ["npz", pytest.param("parquet", marks=pytest.mark.long)])
def test_two_at_once_do_each_file_once(start, tmp_path, form):
    reports = [finished(p) for p in [start(tmp_path, f"--format={form}") for _ in range(2)]]
    assert sum(counted(report, "features") for report in reports) == FILES
    assert len((tmp_path / "rejects.jsonl").read_text().splitlines()) == 2
    if form == "npz":
        found = sorted(tmp_path.rglob("*.npz"))
        assert len(found) == FILES and all(np.load(path)["features"].shape == (3, 1, 32) for path in found)
    else:
        files = pq.read_table(tmp_path / "data")["file"].to_pylist()
        assert len(set(files)) == FILES and len(files) == FILES * 3
    assert not list(tmp_path.rglob(".*partial"))


@pytest.mark.long
def test_after_a_kill_the_same_command_goes_on(start, tmp_path):
    killed = start(tmp_path)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("*.npz"))) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    done = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.npz")}
    assert 3 <= len(done) < FILES
    report = finished(start(tmp_path, "--skip_existing"))
    assert counted(report, "skipped") == len(done) and counted(report, "features") == FILES - len(done)
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert [json.loads(line)["reason"] for line in (tmp_path / "rejects.jsonl").read_text().splitlines()]


@pytest.mark.long
def test_without_skip_existing_features_are_made_anew(start, tmp_path):
    finished(start(tmp_path))
    done = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.npz")}
    assert counted(finished(start(tmp_path)), "features") == FILES
    assert all(path.stat().st_mtime_ns > made for path, made in done.items())
