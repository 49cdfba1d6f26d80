"""`musicssl demo`: trains, probes, and says what came out, also when that is nothing."""

import json
import os
import subprocess
import sys

import pytest

from musicssl_jax.demo import copying_lines, swap_gap_lines

TASKS = ["pitch (25)", "instrument (6)", "key (12)", "tempo (R²)"]
MODELS = ["music2vec", "musicHuBERT"]
TRAINED = [name for model in MODELS for name in (model, f"{model}, step 0")]
ROWS = [*TRAINED, "bag of codes", "MFCC", "log-mel", "chroma", "chance"]


@pytest.mark.long
def test_the_demo_trains_both_models_probes_and_reports(tmp_path):
    command = [sys.executable, "-m", "musicssl_jax.demo", f"--workdir={tmp_path / 'run'}"]
    # As a user runs it: not with the cheaply compiled programs of the other tests.
    environment = os.environ | {"MUSICSSL_CACHE": str(tmp_path / "cache"), "XLA_FLAGS": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    screen = done.stdout[done.stdout.index("demo: trained") :].splitlines()
    assert len(screen) <= 40 and all(len(line) <= 120 for line in screen if str(tmp_path) not in line)
    header = next(i for i, line in enumerate(screen) if line.split()[:2] == TASKS[0].split())
    assert [line.split("  ")[0] for line in screen[header + 1 : header + 1 + len(ROWS)]] == ROWS
    for task in TASKS:
        verdicts = [line for line in screen if line.startswith(f"{task}: ")]
        for model, verdict in zip(MODELS, verdicts, strict=True):
            assert f"over {model}, step 0" in verdict or f"worse than {model}, step 0" in verdict
    files = [f"{model}/{file}" for model in MODELS for file in ("report.html", "checkpoints")]
    for file in (*files, "probes.json", "probes.png"):
        assert (tmp_path / "run" / file).exists() and any(file in line for line in screen)
    results = json.loads((tmp_path / "run" / "probes.json").read_text())
    assert list(results["probes"]) == TASKS and list(results["probes"]["pitch (25)"]) == ROWS
    for model in MODELS:
        first, last = results["curves"][model]["loss"]
        assert last < first
    assert not results["collapsed"]
    # The probes can tell: what these features are made for is found in them.
    probes = results["probes"]
    assert probes["instrument (6)"]["MFCC"]["interval"][0] > probes["instrument (6)"]["chance"]["interval"][1]
    assert probes["key (12)"]["chroma"]["interval"][0] > probes["key (12)"]["chance"]["interval"][1]


@pytest.mark.parametrize(("gap", "said"), [(-0.01, True), (0.02, True), (0.04, False)])
def test_predictions_that_do_not_depend_on_the_clip_are_called_that(gap, said):
    assert bool(swap_gap_lines(gap, loss=3.0)) == said


def test_label_sets_that_copying_predicts_as_well_are_named():
    last = {"accuracy, mfcc39": 0.2, "copying, mfcc39": 0.5, "accuracy, cqt84": 0.6, "copying, cqt84": 0.5}
    [line] = copying_lines({"loss": 3.0, **last})
    assert "mfcc39 no better than copying" in line and "cqt84" not in line
    assert not copying_lines(last | {"accuracy, mfcc39": 0.7})
