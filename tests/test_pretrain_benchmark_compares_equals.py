"""benchmarks.pretrain: both sides lose the same before anything is timed, and a row says all that a table needs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from benchmarks.pretrain import parse
from benchmarks.pretrain_table import is_of, rows_of, table


@pytest.mark.long
def test_a_row_of_the_demo_model(tmp_path):
    flags = ["--size=demo", "--seconds=1", "--batch=2", "--repeats=2"]
    file = tmp_path / "rows.jsonl"
    command = [sys.executable, "-m", "benchmarks.pretrain", *flags, f"--results={file}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).resolve().parents[1])
    assert done.returncode == 0, done.stderr
    [row] = rows_of(file)
    ours, theirs = row["losses"]["float32"]
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert [len(times) for times in row["seconds"].values()] == [2, 2]
    assert "ratio" in done.stdout and "MFU" in done.stdout
    device = row["machine"]["device"]
    assert is_of(row, parse(flags), device) and not is_of(row, parse([*flags, "--attention_dropout=0"]), device)
    assert not is_of(row, parse(flags), "NVIDIA H200")
    for place, name, other in (("versions", "jax", "0.1"), ("machine", "cores", 96)):
        older = json.loads(json.dumps(row))
        older[place][name] = other
        assert not is_of(older, parse(flags), device)
    assert not is_of(row | {"program": "another"}, parse(flags), device)
    [line] = [line for line in table([row]).splitlines() if "music2vec demo" in line]
    assert "2 of 1 s" in line
