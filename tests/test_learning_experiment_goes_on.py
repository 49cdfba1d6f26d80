"""benchmarks.learning as a command: it stops when its time is up, goes on with the same result, and reports."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import soundfile

from benchmarks.learning.answering import run_arm
from benchmarks.learning.controls import PIECE, mistaken, with_other
from benchmarks.learning.experiment import PROBED, RUNS, SETTINGS, Experiment, is_done, run_folder, selected
from benchmarks.learning.labels import OF_PROBING
from benchmarks.learning.material import claim, prepare
from benchmarks.learning.music import training_tracks
from benchmarks.learning.report import JSON, MARKDOWN, PICTURES
from benchmarks.learning.settings import SIZES, Arm, config_of
from benchmarks.learning.training import STATE, fit_centroids, make_crops, make_program, on_device, train
from data_pipelines.musicbox import render_track
from musicssl_jax.errors import TrainingStopped, UserError
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


def test_each_row_of_a_curve_is_the_mean_of_as_many_steps(tmp_path):
    """Those at the points of evaluation too: one of a single step would stand out."""
    toy = SIZES["toy"]
    size = dataclasses.replace(toy, points=5, fields={"music2vec": toy.fields["music2vec"] | {"steps": 90}})
    mesh = make_mesh(1, 1)
    with jax.set_mesh(mesh):
        program = make_program(Arm("music2vec", "music2vec"), size, {}, mesh)
        music = on_device(training_tracks(1, 4, 4.0, 16_000), program.margin)
        *_, last = train(program, size, 0, music, music, tmp_path)
    steps = [row["step"] for row in last.curve]
    assert set(np.diff([0, *steps])) == {2, 3} and len(steps) == 40
    assert {22, 45, 68, 90} <= set(steps)


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
    for arm in found["arms"].values():
        assert list(arm["validation_by_layer"]["linear"]) == list(found["chance"])
    for verdicts in found["learned"].values():
        assert [verdict["question"] for verdict in verdicts["linear"]] == list(found["chance"])
        for verdict in verdicts["linear"]:
            assert not verdict["learned"] and "targets redrawn" in verdict["missing"]
            assert "did not learn" in verdict["words"] or "cannot be said" in verdict["words"]
    # No baseline is left out: front ends, and the codes of each arm that has any.
    assert set(found["baselines"]) == {"MFCC", "log-mel", "chroma", "CQT", "bag of codes, mfcc"}
    text = (tmp_path / MARKDOWN).read_text()
    assert "| music2vec, step 0 |" in text
    assert "training heard the tracks that are probed: 15 of 15, though no label" in text
    assert "- not asked: pitch, key, mode, chords (too few tracks answer, or all alike)" in text
    # What scores rest on is told before training, and beside them.
    assert last.stdout.index("tempo: 15 tracks (4 train, 2 valid, 9 test) (few: scores") < last.stdout.index("step 8")
    assert found["split"]["tempo"]["test"] == {"tracks": 9, "groups": 9, "windows": 9}
    assert set(found["split"]) == set(found["chance"])
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


def own(folder, **fields):
    """An experiment of the toy size with one arm."""
    size = SIZES["toy"]
    return Experiment(folder, size, selected(size, "music2vec"), 1, "reporting", **fields)


def test_a_folder_of_another_experiment_is_refused(tmp_path, folder_of_music):
    """Else its tracks and answers would be taken for these."""
    claimed = own(tmp_path, probe_on=folder_of_music)
    claim(claimed)
    claim(dataclasses.replace(claimed, seeds=3))
    others = [{"tracks": "tuning"}, {"probe_on": None}, {"train_on": folder_of_music}, {"size": SIZES["small"]}]
    for other in [*others, {"max_tracks": 12}]:
        with pytest.raises(UserError, match="another size, or on other music"):
            claim(dataclasses.replace(claimed, **other))


@pytest.fixture
def other_music(tmp_path, folder_of_music):
    """The same audio with one question, for which there is a second folder."""
    folder = tmp_path / "other"
    shutil.copytree(folder_of_music, folder)
    (folder / "tracks.jsonl").write_text(
        "\n".join(json.dumps({"file": f"{number}.wav", "pitch": 60 + number % 2}) for number in range(15))
    )
    return folder


@pytest.mark.parametrize("fault", ["list", "audio", "too little"])
def test_a_command_that_ends_before_the_music_is_there_leaves_nothing_for_another(
    tmp_path, folder_of_music, other_music, fault
):
    """Else the music that it was to probe would be probed in the name of the next one's."""
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "a.wav").write_text("no audio")
    shutil.copy(folder_of_music / "0.wav", bad / "b.wav")
    (bad / "a.jsonl").write_text(
        {"list": '{"file": "none.wav"}', "audio": '{"file": "a.wav"}', "too little": '{"file": "b.wav"}'}[fault]
    )
    work = tmp_path / "work"
    with pytest.raises(UserError, match="bad"):
        prepare(own(work, probe_on=folder_of_music, train_on=bad), print)
    assert not work.exists()
    asked = prepare(own(work, probe_on=other_music, train_on=folder_of_music), print).asked
    assert set(asked) == {"pitch"}


def test_time_that_is_up_at_once_leaves_nothing_for_another(tmp_path, folder_of_music):
    with pytest.raises(TrainingStopped):
        prepare(own(tmp_path / "work", probe_on=folder_of_music, train_on=folder_of_music, deadline=1.0), print)
    assert not (tmp_path / "work").exists()


def test_music_that_nobody_claimed_is_not_taken(tmp_path, folder_of_music):
    experiment = own(tmp_path / "work", probe_on=folder_of_music, train_on=folder_of_music)
    prepare(experiment, print)
    (experiment.folder / SETTINGS).unlink()
    with pytest.raises(UserError, match=r"holds music.npz, probed.npz, and no settings.json"):
        prepare(experiment, print)


def test_a_small_experiment_does_not_take_the_music_of_a_toy(tmp_path, folder_of_music):
    toy = own(tmp_path / "work", probe_on=folder_of_music, train_on=folder_of_music)
    prepare(toy, print)
    before = (toy.folder / PROBED).stat()
    with pytest.raises(UserError, match="another size"):
        prepare(dataclasses.replace(toy, size=SIZES["small"]), print)
    assert (toy.folder / PROBED).stat() == before


def test_tracks_that_training_heard_are_counted_however_their_folder_is_spelt(tmp_path, folder_of_music, other_music):
    """Also where the lists name other files, or link to them."""
    link = tmp_path / "link"
    link.symlink_to(folder_of_music)
    spelt = folder_of_music / ".." / folder_of_music.name
    (other_music / "1.wav").unlink()
    (other_music / "1.wav").symlink_to(folder_of_music / "1.wav")
    for number, (probed, heard) in enumerate([(link, 15), (spelt, 15), (other_music, 1)]):
        work = tmp_path / f"work{number}"
        assert prepare(own(work, probe_on=probed, train_on=folder_of_music), print).heard == heard


def test_no_more_tracks_are_used_than_wanted(tmp_path, folder_of_music):
    said = []
    experiment = own(tmp_path / "work", probe_on=folder_of_music, train_on=folder_of_music, max_tracks=12)
    material = prepare(experiment, said.append)
    assert len(material.waveforms) == 12 and len(material.training) + len(material.validation) == 12
    assert any("12 of 15 tracks are used" in line for line in said)
    with pytest.raises(UserError, match="its tracks answer no question: pitch is not asked: 0 tracks"):
        prepare(dataclasses.replace(experiment, folder=tmp_path / "few", max_tracks=9), print)


def test_answers_that_are_lost_are_given_again_or_missed_in_words(tmp_path, folder_of_music):
    experiment = own(tmp_path / "work", probe_on=folder_of_music, train_on=folder_of_music)
    material = prepare(experiment, print)
    [arm] = experiment.arms
    files = [experiment.answers_file(arm, 0, point) for point in range(3)]

    def again():
        run_arm(experiment, material, arm, 0, print)
        return [file.read_bytes() for file in files]

    whole = again()
    files[0].unlink()
    files[2].unlink()
    assert again() == whole
    files[1].unlink()
    assert not is_done(experiment, arm, 0)
    with pytest.raises(UserError, match=rf"point 1.npz is missing: delete .*{RUNS}/music2vec, seed 0, and the same"):
        again()
    shutil.rmtree(run_folder(experiment, arm, 0))
    assert again() == whole
    (run_folder(experiment, arm, 0) / STATE).unlink()
    assert not is_done(experiment, arm, 0)


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--seeds=0", "argument --seeds: 0: want a whole number from 1"),
        ("--max_tracks=many", "argument --max_tracks: many: want a whole number from 1"),
        ("--max_tracks=9", "--max_tracks is of the folders --train_on and --probe_on: give one"),
        ("--processes=-1", "argument --processes: -1: want a whole number from 1"),
        ("--minutes=0", "argument --minutes: 0: want a number above 0"),
        ("--minutes=nan", "argument --minutes: nan: want a number above 0"),
        ("--minutes=soon", "argument --minutes: soon: want a number above 0"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(tmp_path, flag, said):
    found = learning(tmp_path, flag)
    assert found.returncode == 2
    assert said in found.stderr


def test_a_workdir_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    for workdir in (tmp_path / "file", tmp_path / "file" / "below"):
        found = learning(workdir)
        assert found.returncode == 2
        assert f"{tmp_path / 'file'} is no folder that can be written to" in found.stderr


def test_help_tells_the_format_of_folders():
    command = [sys.executable, "-m", "benchmarks.learning", "--help"]
    root = Path(__file__).resolve().parents[1]
    found = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert found.returncode == 0
    for said in ("docs/learning.md", ".jsonl", *OF_PROBING.keys() - {"notes", "solos"}):
        assert said in found.stdout


@pytest.mark.parametrize("pieces", [2, 3, 200])
def test_other_crops_are_of_other_pieces_all_equally_often(pieces):
    config = config_of(Arm("music2vec", "music2vec"), SIZES["toy"])
    tracks = on_device(np.zeros((pieces, 16_000), np.int16), 0)
    crops = make_crops(config, 0)
    own = np.tile(np.arange(pieces), 4)[:4]
    seen = np.concatenate([crops(tracks, 0, step, avoid=own)[PIECE][0] for step in range(60)])
    own = np.tile(own, 60)
    assert (seen != own).all() and seen.min() >= 0 and seen.max() < pieces
    if pieces == 3:
        assert 0.3 < np.mean(seen == (own + 1) % pieces) < 0.7


def test_no_redrawn_frame_is_of_the_clips_own_piece():
    """Though the batch holds other crops of it."""
    own, others = np.array([0, 0, 1, 2]), np.array([1, 2, 0, 0])
    targets = np.broadcast_to(others[:, None, None], (4, 500, 1))
    for draw in range(3):
        batch = {PIECE: own, **with_other({}, {PIECE: others}), "draw": np.full(4, draw, np.uint32)}
        given = np.asarray(mistaken("redrawn", jax.numpy.asarray(targets), batch))[..., 0]
        assert (given != own[:, None]).all()
        assert 0.4 < (given[0] == 1).mean() < 0.6 and (given[2:3] == 2).mean() > 0.2


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
        clips, same = ({name: column[0] for name, column in crops(music, 0, step).items()} for step in (1, 2))
        others = {name: column[0] for name, column in crops(music, 0, 3, avoid=clips[PIECE]).items()}
        state = program.init(0)

        def targets(batch, other):
            batch = with_other(batch, other) | {"draw": clips["draw"], PIECE: clips[PIECE]}
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
            assert set(given.ravel()) <= set(wanted.ravel())
