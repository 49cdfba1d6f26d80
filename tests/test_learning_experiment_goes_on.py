"""benchmarks.learning as a command: it stops when its time is up, goes on with the same result, and reports."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks.learning.controls import with_other
from benchmarks.learning.report import JSON, MARKDOWN, PICTURES
from benchmarks.learning.settings import SIZES, Arm
from benchmarks.learning.training import STATE, make_crops, make_program, on_device
from musicssl_jax.parallel import make_mesh

ARMS = "music2vec; musicHuBERT mfcc; musicHuBERT, targets permuted"


def learning(folder, *flags):
    command = [sys.executable, "-m", "benchmarks.learning", "--size=toy", f"--workdir={folder}", f"--arms={ARMS}"]
    root = Path(__file__).resolve().parents[1]
    return subprocess.run([*command, *flags], capture_output=True, text=True, cwd=root, env=dict(os.environ))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that was stopped at once, then after some steps, and went on in two processes."""
    folder = tmp_path_factory.mktemp("learning")
    stopped = [
        learning(folder, "--minutes=0.0001", "--processes=1"),
        learning(folder, "--minutes=0.4", "--processes=1"),
    ]
    return folder, stopped, learning(folder, "--processes=2")


@pytest.mark.long
def test_time_that_is_up_ends_it_by_the_code_of_what_goes_on(finished):
    _, stopped, last = finished
    assert [one.returncode for one in stopped] == [3, 3], stopped[1].stderr
    assert "time is up: the same command goes on" in stopped[0].stderr
    assert last.returncode == 0, last.stderr


@pytest.mark.long
def test_what_was_stopped_ends_as_what_was_not(finished, tmp_path):
    folder, _, _ = finished
    alone = learning(tmp_path, "--processes=2")
    assert alone.returncode == 0, alone.stderr
    for arm in ARMS.split("; "):
        one, other = (np.load(place / "runs" / f"{arm}, seed 0" / STATE) for place in (folder, tmp_path))
        assert str(one["curve"]) == str(other["curve"])
    one, other = (json.loads((place / JSON).read_text()) for place in (folder, tmp_path))
    assert one["learned"] == other["learned"] and one["baselines"] == other["baselines"]


@pytest.mark.long
def test_the_report_says_of_each_arm_and_task_whether_it_was_learned(finished):
    folder, _, last = finished
    found = json.loads((folder / JSON).read_text())
    assert set(found["arms"]) == set(ARMS.split("; "))
    assert set(found["learned"]) == {"music2vec", "musicHuBERT mfcc"}
    for verdicts in found["learned"].values():
        assert {verdict["question"] for verdict in verdicts["linear"]} == set(found["chance"])
        assert all(f"learn {v['question']}" in v["words"] or v["learned"] for v in verdicts["linear"])
    # No baseline is left out: front ends, and the codes of each arm that has any.
    assert set(found["baselines"]) == {"MFCC", "log-mel", "chroma", "CQT", "bag of codes, mfcc"}
    text = (folder / MARKDOWN).read_text()
    assert "did not learn" in text and "| music2vec, step 0 |" in text and "log-mel" in text
    for picture in PICTURES.values():
        assert (folder / picture).stat().st_size > 10_000
    assert "was not shown to learn" in last.stdout
    # What an arm costs stands beside what it learned.
    assert all(arm["audio_hours"] > 0 and arm["flop"] > 0 and arm["seconds"][0] > 0 for arm in found["arms"].values())


def test_an_arm_that_there_is_not_is_refused(tmp_path):
    found = learning(tmp_path, "--arms=music3vec")
    assert found.returncode == 2
    assert "there is no 'music3vec'; there are music2vec; musicHuBERT mfcc" in found.stderr
    assert not list(tmp_path.iterdir())


def test_a_folder_of_another_experiment_is_refused(tmp_path):
    """Else its tracks and answers would be taken for these."""
    assert learning(tmp_path, "--minutes=0.0001", "--probe_on=/nowhere").returncode == 2
    found = learning(tmp_path, "--tracks=tuning")
    assert found.returncode == 2
    assert "holds an experiment of another size, or on other music" in found.stderr


@pytest.mark.parametrize("model", ["music2vec", "musicHuBERT"])
@pytest.mark.parametrize("control", ["permuted", "redrawn"])
def test_controls_are_given_nothing_of_the_clip(model, control):
    """Their targets stay the same whatever the clip is, and change with the other crops."""
    size = SIZES["toy"]
    labelled = (("mfcc39",), (4,)) if model == "musicHuBERT" else ((), ())
    arm = Arm("control", model, *labelled, control)
    tracks = np.random.default_rng(0).integers(-3000, 3000, (6, 32_000)).astype(np.int16)
    mesh = make_mesh(1, 1)
    with jax.set_mesh(mesh):
        codebooks = {("mfcc39", 4): np.random.default_rng(1).normal(size=(4, 39)).astype(np.float32) * 30}
        program = make_program(arm, size, codebooks, mesh)
        music = on_device(tracks, program.margin)
        crops = make_crops(program.config, program.margin)
        clips, same, others = (
            {name: column[0] for name, column in crops(music, 0, step).items()} for step in (1, 2, 3)
        )
        state = program.init(0)

        def targets(batch, other):
            batch = with_other(batch, other) | {"draw": clips["draw"]}
            if model == "musicHuBERT":
                return np.asarray(program.objective.labels(program.frozen, batch))
            return np.asarray(program.objective.targets(state.params, state.teacher, None, None, batch))

        given = targets(clips, others)
        assert (given == targets(same, others)).all()
        assert (given != targets(clips, same)).mean() > 0.1
        # Whole in time, or each frame from anywhere.
        own = make_program(dataclasses.replace(arm, control=None), size, codebooks, mesh).objective
        if model == "musicHuBERT":
            wanted = np.asarray(own.labels(program.frozen, others))
            assert (given == wanted).all() == (control == "permuted")
            assert sorted(given.ravel()) == sorted(wanted.ravel())
