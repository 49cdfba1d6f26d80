"""`musicssl evaluate` as a user calls it, on small data sets in the official layouts."""

import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from audio_fixtures import ROOT
from encoder_fixtures import tiny_config_file

from data_pipelines.musicbox.official_layouts import write_task_sets
from musicssl_jax.command import run_command
from musicssl_jax.evaluate import main
from musicssl_jax.mir.report.results import read_results
from musicssl_jax.mir.tasks.catalogue import TASKS


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """EmoMusic alone: songs of some seconds."""
    folder = tmp_path_factory.mktemp("MIR")
    write_task_sets(folder, seed=2, sets=["emomusic"])
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return f"tiny=random:{tiny_config_file(tmp_path_factory.mktemp('config'))}:tiny"


def command(encoder, data_dir, output, *more):
    return [
        f"--checkpoint={encoder}",
        f"--data_dir={data_dir}",
        f"--output={output}",
        "--networks=linear,knn",
        "--seeds=2",
        "--max_missing=1",
        *more,
    ]


def test_an_encoder_and_a_baseline_get_a_table(encoder, data_dir, tmp_path, capsys):
    asked = command(encoder, data_dir, tmp_path / "results", "--baselines=mfcc")
    assert run_command(main, asked) == 0
    said = capsys.readouterr()
    assert "tiny" in said.out and "MFCC" in said.out and "report.html" in said.out
    assert "mtt_top50: left out" in said.err
    first = {(r.encoder.name, r.task): r for r in read_results(tmp_path / "results")}
    assert set(first) == {("tiny", "emomusic"), ("MFCC", "emomusic")}
    for result in first.values():
        assert set(result.scores) == {"linear", "knn"} and len(result.scores["linear"]["r2"]) == 2
        assert result.counts["test"] == len(result.recording)
        assert np.isfinite(result.scores["linear"]["r2_arousal"]).all()
    assert (tmp_path / "results" / "report.html").stat().st_size > 10_000

    # Again: nothing is made anew; without results but with features, the same numbers.
    assert run_command(main, asked) == 0
    assert "probes on validation" not in capsys.readouterr().err
    shutil.rmtree(tmp_path / "results" / "tiny")
    assert run_command(main, asked) == 0
    again = {(r.encoder.name, r.task): r for r in read_results(tmp_path / "results")}
    for key, result in first.items():
        np.testing.assert_array_equal(result.outputs, again[key].outputs)

    assert run_command(main, ["--compare", str(tmp_path / "results/tiny"), str(tmp_path / "results/MFCC")]) == 2
    compare = ["--compare", str(tmp_path / "results/tiny"), str(tmp_path / "results/MFCC")]
    assert run_command(main, [*compare, f"--output={tmp_path / 'compared'}"]) == 0
    assert (tmp_path / "compared" / "compare.html").exists()


def test_bad_input_ends_in_one_line(encoder, data_dir, tmp_path, capsys):
    output = tmp_path / "results"
    for arguments, said in (
        ([f"--checkpoint={encoder}"], "--data_dir is missing"),
        (command(encoder, data_dir, output, "--tasks=emomusics"), "did you mean emomusic"),
        (command(encoder, tmp_path / "nowhere", output), "none of the data sets is there"),
        (command(encoder, data_dir, output, "--tasks=gtzan_genre"), "gtzan"),
        (command(encoder, data_dir, output, "--baselines=mfccs"), "no baseline 'mfccs'"),
        (command(encoder, data_dir, output, "--networks=knn"), "not knn first"),
        ([f"--data_dir={data_dir}", f"--output={output}", "--baselines=none"], "nobody to evaluate"),
        (command(encoder, data_dir, output, f"--checkpoint={encoder}"), "is there twice"),
        ([f"--data_dir={data_dir}", "--baselines=mfcc"], "--output is missing"),
        (["--compare", str(tmp_path), f"--output={output}"], "holds no results"),
    ):
        assert run_command(main, arguments) == 2, arguments
        err = capsys.readouterr().err.strip().splitlines()
        assert said in err[-1] and len(err[-1]) < 600, (arguments, err[-1])
        assert err[-1].startswith("error: ")


def test_the_data_are_checked_and_planned_for(encoder, data_dir, tmp_path, capsys):
    assert run_command(main, ["--check-data", f"--data_dir={tmp_path / 'nothing'}"]) == 2
    said = capsys.readouterr()
    assert said.out.startswith("0 of 13 tasks are ready") and "licence" in said.out
    assert said.err.startswith("error: --check-data: mtt_top50")
    assert run_command(main, ["--plan", "--json", *command(encoder, data_dir, tmp_path, "--baselines=none")]) == 0
    passes = json.loads(capsys.readouterr().out)
    assert {task for one in passes for task in one["tasks"]} == set(TASKS)


def test_results_are_kept_for_the_same_question_alone(encoder, data_dir, tmp_path, capsys):
    """A file that could not be read then and can now, or that was replaced: the task is done again."""
    folder, output = tmp_path / "MIR", tmp_path / "results"
    shutil.copytree(data_dir, folder)
    song = sorted((folder / "emomusic").rglob("*.mp3"))[0]
    whole = song.read_bytes()
    asked = command(encoder, folder, output, "--baselines=mfcc", "--networks=linear")

    def counts():
        assert run_command(main, asked) == 0
        (result,) = [r for r in read_results(output) if r.encoder.name == "MFCC"]
        return result.missing, sum(result.counts.values()), "probes on validation" in capsys.readouterr().err

    song.write_bytes(b"no music")
    missing, used, _ = counts()
    assert counts() == (missing, used, False)
    song.write_bytes(whole)
    assert counts() == (missing - 1, used + 1, True)


def test_what_cannot_be_evaluated_stops_nothing_else(encoder, data_dir, tmp_path, capsys):
    """Features of no recording: said at the end, with exit code 2; everybody else is in the report."""
    empty = tmp_path / "elsewhere"
    empty.mkdir()
    asked = command(encoder, data_dir, tmp_path / "results", "--baselines=mfcc", f"--features=theirs={empty}")
    assert run_command(main, asked) == 2
    said = capsys.readouterr()
    assert "not evaluated: theirs on emomusic" in said.err.splitlines()[-1]
    assert {r.encoder.name for r in read_results(tmp_path / "results")} == {"tiny", "MFCC"}
    assert "report.html" in said.out


def test_an_incomplete_data_set_is_left_out_of_all(encoder, data_dir, tmp_path, capsys):
    """GTZAN without anything in it, beside a whole EmoMusic; named, it is an error."""
    folder = tmp_path / "MIR"
    shutil.copytree(data_dir, folder)
    (folder / "gtzan").mkdir()
    asked = command(encoder, folder, tmp_path / "results", "--baselines=mfcc")
    assert run_command(main, asked) == 0
    assert "gtzan_genre: left out, " in capsys.readouterr().out
    assert run_command(main, [*asked, "--plan"]) == 0
    assert run_command(main, [*asked, "--tasks=gtzan_genre,emomusic"]) == 2


def test_features_from_elsewhere_say_that_windows_are_their_own(data_dir, tmp_path):
    """Their protocol is another one, and is marked as such."""
    features = tmp_path / "theirs"
    features.mkdir()
    for number, song in enumerate(sorted((data_dir / "emomusic").rglob("*.mp3"))):
        np.save(features / f"{song.stem}.npy", np.random.default_rng(number).normal(size=(2, 4, 8)))
    asked = [f"--data_dir={data_dir}", f"--output={tmp_path}", "--baselines=mfcc", f"--features={features}"]
    assert run_command(main, [*asked, "--tasks=emomusic", "--networks=linear", "--seeds=1", "--max_missing=1"]) == 0
    by_kind = {result.encoder.kind: result.protocol_id for result in read_results(tmp_path)}
    assert "windows as the files have them" in by_kind["files"] and "windows 5s" in by_kind["baseline"]


def test_layers_of_beats_have_to_exist(encoder, data_dir, tmp_path, capsys):
    assert run_command(main, command(encoder, data_dir, tmp_path, "--beat_layers=0,99")) == 2
    assert "no encoder here has layer 99" in capsys.readouterr().err


@pytest.mark.long
def test_a_killed_evaluation_ends_with_the_same_numbers(encoder, data_dir, tmp_path):
    program = [sys.executable, "-m", "musicssl_jax.evaluate"]
    whole = command(encoder, data_dir, tmp_path / "whole", "--baselines=chroma")
    assert subprocess.run([*program, *whole], cwd=ROOT, check=False).returncode == 0
    killed = command(encoder, data_dir, tmp_path / "killed", "--baselines=chroma")
    for seconds in (6, 9, 12):
        process = subprocess.Popen([*program, *killed], cwd=ROOT)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert subprocess.run([*program, *killed], cwd=ROOT, check=False).returncode == 0
    one, other = read_results(tmp_path / "whole"), read_results(tmp_path / "killed")
    assert len(one) == len(other) == 2
    for left, right in zip(one, other, strict=True):
        np.testing.assert_array_equal(left.outputs, right.outputs)
        assert left.scores == right.scores


@pytest.mark.long
def test_all_13_tasks_run_on_small_sets(encoder, tmp_path, capsys):
    write_task_sets(tmp_path / "MIR", seed=3, accidents=True)
    asked = command(encoder, tmp_path / "MIR", tmp_path / "results", "--baselines=mfcc")
    assert run_command(main, asked) == 0
    results = {(r.encoder.name, r.task): r for r in read_results(tmp_path / "results")}
    assert set(results) == {(name, task) for name in ("tiny", "MFCC") for task in TASKS}
    assert results["MFCC", "nsynth_instrument"].main_scores.mean() > 0.7
    assert results["MFCC", "gtzan_beats"].main_scores.mean() > 0.5
    assert "batches of 512, at most 30 epochs" in results["MFCC", "gtzan_beats"].protocol_id  # as it was done
    table = (tmp_path / "results" / "table.md").read_text()
    assert all(name in table for name in ("tiny", "MFCC", "MAP-Music2Vec"))
    capsys.readouterr()
