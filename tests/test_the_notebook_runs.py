"""The worked notebook: its cells run in order, and its outputs are there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoint_fixtures import same_imports

NOTEBOOK = Path(__file__).parent.parent / "docs/notebooks/your_own_tracks.ipynb"


def code_cells():
    return [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]


def test_every_cell_that_shows_something_was_executed():
    assert all(cell["execution_count"] for cell in code_cells())
    shown = [kind for cell in code_cells() for output in cell["outputs"] for kind in output.get("data", {})]
    assert "image/png" in shown


@pytest.mark.long
def test_the_cells_run_in_order(tmp_path):
    """On fewer and shorter tracks than the notebook's own."""
    program = "\n".join("".join(cell["source"]) for cell in code_cells())
    assert "tracks=5" in program and "seconds=40.0" in program
    program = program.replace("tracks=5", "tracks=3").replace("seconds=40.0", "seconds=8.0")
    program += f"\nassert len(neighbours) == 6\nfigure.savefig({str(tmp_path / 'similarity.png')!r})\n"
    environment = same_imports() | {"MPLBACKEND": "Agg", "TMPDIR": os.fspath(tmp_path)}
    ended = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert ended.returncode == 0, ended.stderr
    assert len(ended.stdout.splitlines()) == 6
    assert (tmp_path / "similarity.png").stat().st_size > 10_000
