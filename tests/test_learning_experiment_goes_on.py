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
import soundfile

from benchmarks.learning.controls import with_other
from benchmarks.learning.experiment import SETTINGS, Experiment, claim
from benchmarks.learning.music import training_tracks
from benchmarks.learning.report import JSON, MARKDOWN, PICTURES
from benchmarks.learning.settings import SIZES, Arm, config_of
from benchmarks.learning.training import fit_centroids, make_crops, make_program, on_device, train
from data_pipelines.musicbox import render_track
from musicssl_jax.errors import UserError
from musicssl_jax.parallel import make_mesh

ARMS = "music2vec; musicHuBERT mfcc; musicHuBERT, targets permuted"


def learning(folder, *flags):
    command = [sys.executable, "-m", "benchmarks.learning", "--size=toy", f"--workdir={folder}", f"--arms={ARMS}"]
    root = Path(__file__).resolve().parents[1]
    return subprocess.run([*command, *flags], capture_output=True, text=True, cwd=root, env=dict(os.environ))


class Interrupted(Exception):
    """What a pause raises when time is up."""


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_a_run_that_is_stopped_after_any_row_ends_as_one_that_is_not(rows, tmp_path):
    size = SIZES["toy"]
    tracks = training_tracks(1, 4, 4.0, 16_000)
    mesh = make_mesh(1, 1)
    with jax.set_mesh(mesh):
        program = make_program(Arm("music2vec", "music2vec"), size, {}, mesh)
        music = on_device(tracks, program.margin)

        def points(folder, pause=lambda: None):
            found = []
            try:
                for point in train(program, size, 0, music, music, tmp_path / folder, pause):
                    found.append((point.number, jax.device_get(point.params), point.curve[:]))
            except Interrupted:
                pass
            return found

        whole = points("whole")
        calls = iter(range(100))

        def time_is_up():
            if next(calls) + 1 == rows:
                raise Interrupted

        before, after = points("stopped", time_is_up), points("stopped")
    assert [number for number, _, _ in whole] == [0, 1, 2]
    assert [number for number, _, _ in before + after] in ([0, 1, 2], [0, 1, 1, 2], [0, 0, 1, 2])
    assert after[-1][2] == whole[-1][2]
    jax.tree.map(np.testing.assert_array_equal, after[-1][1], whole[-1][1])


def test_a_point_that_was_saved_but_not_looked_at_comes_again(tmp_path):
    """A command may be killed between the two."""
    size = SIZES["toy"]
    mesh = make_mesh(1, 1)
    with jax.set_mesh(mesh):
        program = make_program(Arm("music2vec", "music2vec"), size, {}, mesh)
        music = on_device(training_tracks(1, 4, 4.0, 16_000), program.margin)
        points = train(program, size, 0, music, music, tmp_path)
        assert [next(points).number for _ in range(2)] == [0, 1]
        points.close()
        assert [point.number for point in train(program, size, 0, music, music, tmp_path)] == [1, 2]
        assert [point.number for point in train(program, size, 0, music, music, tmp_path)] == [2]


@pytest.fixture(scope="module")
def folder_of_music(tmp_path_factory):
    """Fifteen tracks of several lengths, with what is known of them; of some less is known."""
    folder = tmp_path_factory.mktemp("own")
    lines = []
    for number in range(15):
        waveform, truth = render_track([9, number], "plucked", seconds=4.0 + number % 3, sample_rate=16_000)
        soundfile.write(folder / f"{number}.wav", np.stack([waveform] * (1 + number % 2), 1), 16_000)
        line = {"file": f"{number}.wav", "bpm": truth["bpm"], "beats": truth["beats"], "family": "ab"[number % 2]}
        lines.append(line if number % 5 else {"file": line["file"], "bpm": line["bpm"], "key": "C"})
    (folder / "tracks.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


@pytest.mark.long
def test_the_report_says_of_each_arm_and_task_what_was_learned(tmp_path, folder_of_music):
    """Of music of one's own, in two processes, stopped once; then more arms in the same folder."""
    own = f"--probe_on={folder_of_music}", f"--train_on={folder_of_music}"
    stopped = learning(tmp_path, *own, "--minutes=0.0001")
    assert stopped.returncode == 3, stopped.stderr
    assert "time is up: the same command goes on" in stopped.stderr
    first = learning(tmp_path, *own, "--arms=music2vec", "--processes=1")
    assert first.returncode == 0, first.stderr
    last = learning(tmp_path, *own, "--processes=2")
    assert last.returncode == 0, last.stderr
    found = json.loads((tmp_path / JSON).read_text(), parse_constant=pytest.fail)
    assert set(found["arms"]) == set(ARMS.split("; "))
    assert set(found["chance"]) == {"tempo", "beats", "instrument"}
    assert "key is not asked" in last.stdout
    assert set(found["learned"]) == {"music2vec", "musicHuBERT mfcc"}
    for verdicts in found["learned"].values():
        assert [verdict["question"] for verdict in verdicts["linear"]] == list(found["chance"])
        for verdict in verdicts["linear"]:
            assert not verdict["learned"] and "targets redrawn" in verdict["missing"]
            assert "did not learn" in verdict["words"] or "cannot be said" in verdict["words"]
    # No baseline is left out: front ends, and the codes of each arm that has any.
    assert set(found["baselines"]) == {"MFCC", "log-mel", "chroma", "CQT", "bag of codes, mfcc"}
    text = (tmp_path / MARKDOWN).read_text()
    assert "| music2vec, step 0 |" in text and "training heard the tracks that are probed" in text
    for picture in PICTURES.values():
        assert (tmp_path / picture).stat().st_size > 10_000
    assert "was not shown to learn" in last.stdout
    # What an arm costs stands beside what it learned.
    assert all(arm["audio_hours"] > 0 and arm["flop"] > 0 and arm["seconds"][0] > 0 for arm in found["arms"].values())
    assert last.stdout.count("device seconds") == 3


def test_an_arm_that_there_is_not_is_refused(tmp_path):
    found = learning(tmp_path, "--arms=music3vec")
    assert found.returncode == 2
    assert "there is no 'music3vec'; there are music2vec; musicHuBERT mfcc" in found.stderr
    assert not list(tmp_path.iterdir())


def test_a_mistyped_folder_claims_nothing(tmp_path):
    found = learning(tmp_path / "work", "--probe_on=/nowhere")
    assert found.returncode == 2
    assert "/nowhere holds no .jsonl file" in found.stderr
    assert not (tmp_path / "work" / SETTINGS).exists()


def test_a_folder_of_another_experiment_is_refused(tmp_path, folder_of_music):
    """Else its tracks and answers would be taken for these."""
    own = Experiment(tmp_path, SIZES["toy"], (), 1, "reporting", probe_on=folder_of_music)
    claim(own)
    claim(dataclasses.replace(own, seeds=3))
    others = [{"tracks": "tuning"}, {"probe_on": None}, {"train_on": folder_of_music}, {"size": SIZES["small"]}]
    for other in others:
        with pytest.raises(UserError, match="another size, or on other music"):
            claim(dataclasses.replace(own, **other))


@pytest.mark.parametrize("flag", ["--seeds=0", "--processes=-1", "--minutes=0", "--minutes=nan"])
def test_numbers_that_make_no_sense_are_refused(tmp_path, flag):
    found = learning(tmp_path, flag)
    assert found.returncode == 2
    assert flag.split("=")[0] in found.stderr


@pytest.mark.parametrize("model", ["music2vec", "musicHuBERT"])
@pytest.mark.parametrize("control", ["permuted", "redrawn"])
def test_controls_are_given_nothing_of_the_clip(model, control):
    """Their targets stay the same whatever the clip is, and change with the other crops."""
    size = SIZES["toy"]
    labelled = (("mfcc39",), (4,)) if model == "musicHuBERT" else ((), ())
    arm = Arm("control", model, *labelled, control)
    tracks = training_tracks(1, 6, 4.0, 16_000)
    mesh = make_mesh(1, 1)
    with jax.set_mesh(mesh):
        codebooks = {}
        if labelled[0]:
            config = config_of(Arm("music2vec", "music2vec"), size)
            codebooks["mfcc39", 4], _ = fit_centroids("mfcc39", 4, config, tracks, mesh)
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
