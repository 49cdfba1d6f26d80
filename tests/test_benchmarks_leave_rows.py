"""benchmarks.data, .codebook, .embed and .probe: a run leaves a row that says what was measured of both sides, and
where."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.rows import is_from_here, rows_of


def measured(module: str, flags: list[str], file: Path) -> tuple[dict, str]:
    """The row that the command leaves, and what it prints."""
    command = [sys.executable, "-m", f"benchmarks.{module}", *flags, "--repeats=2", f"--results={file}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).resolve().parents[1])
    assert done.returncode == 0, done.stderr
    [row] = rows_of(file)
    return row, done.stdout


def test_data(tmp_path):
    from benchmarks.data import PACKAGES

    flags = ["--record_seconds=2", "--crop_seconds=5", "--tracks=2", "--audio_seconds=50"]
    row, printed = measured("data", flags, tmp_path / "rows.jsonl")
    assert is_from_here(row, PACKAGES, "cpu")
    assert {name: len(rates) for name, rates in row["rate"].items()} == {"memmap": 2, "reader": 2, "pipeline": 2}
    assert all(bytes > 2**20 for bytes in row["memory"].values()) and len(row["memory"]) == 3
    assert all(share >= 0 for share in row["waits"].values())
    assert "| 2 s | 5 s | 7.0 s |" in printed and "ratio " in printed and "quartiles" in printed


@pytest.mark.long
def test_codebook(tmp_path):
    from benchmarks.codebook import PACKAGES

    row, printed = measured("codebook", ["--clusters=4", "--tracks=5", "--peer_threads=1"], tmp_path / "rows.jsonl")
    check_sides(row, printed, PACKAGES, "scikit-learn")
    ours, theirs = row["inertia"].values()
    assert min(ours) == pytest.approx(min(theirs), rel=0.1)
    assert min(min(batches) for batches in row["batches"].values()) > 100  # of patience


@pytest.mark.long
def test_embed(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from benchmarks.embed import PACKAGES

    flags = ["--size=demo", "--files=1", "--seconds=35", "--peer_threads=1", "--peer_batch=1,2"]
    row, printed = measured("embed", flags, tmp_path / "rows.jsonl")
    check_sides(row, printed, PACKAGES, "PyTorch")
    assert row["difference"] < 1e-4
    assert [setting["batch"] for setting in row["tried"]] == [1, 2]
    assert "MFU" in printed


@pytest.mark.long
def test_probe(tmp_path):
    pytest.importorskip("torch")
    from benchmarks.probe import PACKAGES

    sizes = ["--train=70", "--valid=30", "--test=10", "--layers=3", "--width=16", "--epochs=2"]
    row, printed = measured("probe", [*sizes, "--peer_threads=1"], tmp_path / "rows.jsonl")
    check_sides(row, printed, PACKAGES, "PyTorch")
    assert row["difference"] < 1e-4
    assert [setting["how"] for setting in row["tried"]] == ["one by one", "batched"]
    assert "MFU" in printed


def check_sides(row: dict, printed: str, packages: tuple[str, ...], peer: str) -> None:
    assert is_from_here(row, packages, "cpu")
    assert {name: len(times) for name, times in row["seconds"].items()} == {"ours": 2, peer: 2}
    assert set(row["memory"]) == {"ours", peer}
    assert min(row["memory"].values()) > 2**20
    assert row["best"].items() <= min(row["tried"], key=lambda setting: setting["seconds"]).items()
    assert f"| {peer} |" in printed and "GiB" in printed
    assert "ratio " in printed and "quartiles" in printed and "peer, threads 1" in printed
