"""`musicssl demo`: trains, probes, and says what came out, also when that is nothing."""

import json
import os
import subprocess
import sys

import pytest

from musicssl_jax.demo import swap_gap_lines

TASKS = ["pitch (25)", "instrument (6)", "key (12)", "tempo (R²)"]
ROWS = ["trained", "step 0", "MFCC", "log-mel", "chroma", "chance"]


@pytest.mark.long
def test_the_demo_trains_probes_and_reports(tmp_path):
    command = [sys.executable, "-m", "musicssl_jax.demo", f"--workdir={tmp_path / 'run'}"]
    # As a user runs it: not with the cheaply compiled programs of the other tests.
    environment = os.environ | {"MUSICSSL_CACHE": str(tmp_path / "cache"), "XLA_FLAGS": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    screen = done.stdout[done.stdout.index("music2vec demo:") :].splitlines()
    assert len(screen) <= 40 and all(len(line) <= 120 for line in screen if str(tmp_path) not in line)
    assert [line.split("  ")[0] for line in screen if line.split("  ")[0] in ROWS] == ROWS
    for task in TASKS:
        [verdict] = [line for line in screen if line.startswith(f"{task}: ")]
        assert "over step 0" in verdict or "worse than step 0" in verdict
    for file in ("report.html", "checkpoints", "probes.json", "probes.png"):
        assert (tmp_path / "run" / file).exists() and any(file in line for line in screen)
    results = json.loads((tmp_path / "run" / "probes.json").read_text())
    assert list(results["probes"]) == TASKS and list(results["probes"]["pitch (25)"]) == ROWS
    assert results["curves"]["loss"][1] < results["curves"]["loss"][0] and not results["collapsed"]
    # The probes can tell: what these features are made for is found in them.
    probes = results["probes"]
    assert probes["instrument (6)"]["MFCC"]["interval"][0] > probes["instrument (6)"]["chance"]["interval"][1]
    assert probes["key (12)"]["chroma"]["interval"][0] > probes["key (12)"]["chance"]["interval"][1]


@pytest.mark.parametrize(("gap", "said"), [(-0.01, True), (0.02, True), (0.04, False)])
def test_predictions_that_do_not_depend_on_the_clip_are_called_that(gap, said):
    assert bool(swap_gap_lines(gap, loss=3.0)) == said
