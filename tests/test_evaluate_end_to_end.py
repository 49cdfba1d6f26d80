"""`musicssl evaluate` as a user calls it, on small data sets in the official layouts.

What an encoder and a baseline get is made once, in `finished`; who needs results begins with a copy of it.
"""

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest
from audio_fixtures import ROOT
from encoder_fixtures import tiny_config_file

from data_pipelines.musicbox.official_layouts import DATA_SETS, Size, write_task_sets
from musicssl_jax.command import run_command
from musicssl_jax.evaluate import main
from musicssl_jax.mir.features import plan
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


class Finished(NamedTuple):
    """A folder of results of the encoder and of MFCC, and what the command said."""

    folder: Path
    out: str
    err: str

    def copy(self, folder: Path) -> Path:
        return Path(shutil.copytree(self.folder, folder))


@pytest.fixture(scope="module")
def finished(encoder, data_dir, tmp_path_factory):
    folder, out, err = tmp_path_factory.mktemp("finished") / "results", io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert run_command(main, command(encoder, data_dir, folder, "--baselines=mfcc")) == 0
    return Finished(folder, out.getvalue(), err.getvalue())


@pytest.fixture
def quick_plan(monkeypatch):
    monkeypatch.setattr(plan, "_MEASURE_SECONDS", 0.05)


def by_encoder(folder):
    return {result.encoder.name: result for result in read_results(folder)}


def test_an_encoder_and_a_baseline_get_a_table(finished):
    assert "tiny" in finished.out and "MFCC" in finished.out and "report.html" in finished.out
    assert "mtt_top50: left out" in finished.err
    results = {(r.encoder.name, r.task): r for r in read_results(finished.folder)}
    assert set(results) == {("tiny", "emomusic"), ("MFCC", "emomusic")}
    for result in results.values():
        assert set(result.scores) == {"linear", "knn"} and len(result.scores["linear"]["r2"]) == 2
        assert result.counts["test"] == len(result.recording)
        assert np.isfinite(result.scores["linear"]["r2_arousal"]).all()
    assert (finished.folder / "report.html").stat().st_size > 10_000


def test_what_is_there_is_not_made_anew_and_what_is_gone_gets_the_same_numbers(
    finished, encoder, data_dir, tmp_path, capsys
):
    output = finished.copy(tmp_path / "results")
    asked = command(encoder, data_dir, output, "--baselines=mfcc")
    assert run_command(main, [*asked, f"--pretraining_data={tmp_path}"]) == 0
    said = capsys.readouterr().err
    assert "probes on validation" not in said
    assert f"--pretraining_data={tmp_path} is not used" in said  # nobody here was trained
    shutil.rmtree(output / "MFCC")
    assert run_command(main, asked) == 0
    assert capsys.readouterr().err.count("probes on validation") == 1  # of the encoder's there are results
    first, again = by_encoder(finished.folder), by_encoder(output)
    for name, result in first.items():
        np.testing.assert_array_equal(result.outputs, again[name].outputs)


def test_finished_results_are_compared(finished, tmp_path):
    compare = ["--compare", str(finished.folder / "tiny"), str(finished.folder / "MFCC")]
    assert run_command(main, compare) == 2  # no --output
    assert run_command(main, [*compare, f"--output={tmp_path / 'compared'}"]) == 0
    assert (tmp_path / "compared" / "compare.html").exists()


def test_bad_input_ends_in_one_line(encoder, data_dir, tmp_path, capsys):
    output, file = tmp_path / "results", tmp_path / "file"
    file.write_text("mine")
    mfcc = [f"--data_dir={data_dir}", "--baselines=mfcc"]
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
        ([*mfcc, "--max_missing=1", f"--output={output}", f"--cache={file}"], f"--cache={file} cannot be written"),
        ([*mfcc, "--max_missing=1", f"--output={file / 'x'}"], f"--output={file / 'x'} cannot be written"),
    ):
        assert run_command(main, arguments) == 2, arguments
        err = capsys.readouterr().err.strip().splitlines()
        assert said in err[-1] and len(err[-1]) < 600, (arguments, err[-1])
        assert err[-1].startswith("error: ")


def test_the_data_are_checked_and_planned_for(encoder, data_dir, tmp_path, capsys, quick_plan):
    assert run_command(main, ["--check-data", f"--data_dir={tmp_path / 'nothing'}"]) == 2
    said = capsys.readouterr()
    assert said.out.startswith("0 of 13 tasks are ready") and "licence" in said.out
    assert said.err.startswith("error: --check-data: mtt_top50")
    assert run_command(main, ["--plan", "--json", *command(encoder, data_dir, tmp_path, "--baselines=none")]) == 0
    passes = json.loads(capsys.readouterr().out)
    assert {task for one in passes for task in one["tasks"]} == set(TASKS)


def test_results_are_kept_for_the_same_question_alone(data_dir, tmp_path, capsys):
    """A file that could not be read then and can now, or that was replaced: the task is done again."""
    folder, output = tmp_path / "MIR", tmp_path / "results"
    shutil.copytree(data_dir, folder)
    song = sorted((folder / "emomusic").rglob("*.mp3"))[0]
    whole = song.read_bytes()
    asked = [f"--data_dir={folder}", f"--output={output}", "--baselines=mfcc", "--networks=linear", "--seeds=1"]

    def counts():
        assert run_command(main, [*asked, "--max_missing=1"]) == 0
        (result,) = read_results(output)
        return result.missing, sum(result.counts.values()), "probes on validation" in capsys.readouterr().err

    song.write_bytes(b"no music")
    missing, used, _ = counts()
    assert counts() == (missing, used, False)
    song.write_bytes(whole)
    assert counts() == (missing - 1, used + 1, True)


def test_what_cannot_be_evaluated_stops_nothing_else(finished, encoder, data_dir, tmp_path, capsys):
    """Features of no recording: said at the end, with exit code 2; everybody else is in the report."""
    empty = tmp_path / "elsewhere"
    empty.mkdir()
    output = finished.copy(tmp_path / "results")
    shutil.rmtree(output / "MFCC")  # which comes after what cannot be evaluated
    asked = command(encoder, data_dir, output, "--baselines=mfcc", f"--features=theirs={empty}")
    assert run_command(main, asked) == 2
    said = capsys.readouterr()
    assert "not evaluated: theirs on emomusic" in said.err.splitlines()[-1]
    assert set(by_encoder(output)) == {"tiny", "MFCC"}
    assert "report.html" in said.out


def test_an_incomplete_data_set_is_left_out_of_all(finished, encoder, data_dir, tmp_path, capsys, quick_plan):
    """GTZAN without anything in it, beside a whole EmoMusic; named, it is an error."""
    folder = tmp_path / "MIR"
    shutil.copytree(data_dir, folder)
    (folder / "gtzan").mkdir()
    asked = command(encoder, folder, finished.copy(tmp_path / "results"), "--baselines=mfcc")
    assert run_command(main, asked) == 0
    assert "gtzan_genre: left out, " in capsys.readouterr().out
    assert run_command(main, [*asked, "--tasks=gtzan_genre,emomusic", "--plan"]) == 0
    assert run_command(main, [*asked, "--tasks=gtzan_genre,emomusic"]) == 2


def test_features_from_elsewhere_say_that_windows_are_their_own(finished, encoder, data_dir, tmp_path):
    """Their protocol is another one, and is marked as such."""
    features = tmp_path / "theirs"
    features.mkdir()
    for number, song in enumerate(sorted((data_dir / "emomusic").rglob("*.mp3"))):
        np.save(features / f"{song.stem}.npy", np.random.default_rng(number).normal(size=(2, 4, 8)))
    output = finished.copy(tmp_path / "results")
    asked = command(encoder, data_dir, output, "--baselines=mfcc", f"--features={features}", "--tasks=emomusic")
    assert run_command(main, asked) == 0
    by_kind = {result.encoder.kind: result.protocol_id for result in read_results(output)}
    assert "windows as the files have them" in by_kind["files"] and "windows 5s" in by_kind["baseline"]


def test_layers_of_beats_have_to_exist(encoder, data_dir, tmp_path, capsys):
    assert run_command(main, command(encoder, data_dir, tmp_path, "--beat_layers=0,99")) == 2
    assert "no encoder here has layer 99" in capsys.readouterr().err


@pytest.mark.long
def test_a_killed_evaluation_ends_with_the_same_numbers(finished, encoder, data_dir, tmp_path):
    """Killed while the encoder reads, and when its result is there and the baseline's is not."""
    output = tmp_path / "results"
    program = [sys.executable, "-m", "musicssl_jax.evaluate"]
    program += command(encoder, data_dir, output, "--baselines=mfcc")
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(jax.local_device_count())}
    for sign in ("features/*/*/*/windows/.part-*.partial", "tiny/emomusic.json"):
        process = subprocess.Popen(program, cwd=ROOT, env=environment)
        deadline = time.monotonic() + 300
        while not list(output.glob(sign)):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (output / "MFCC" / "emomusic.json").exists() and not (output / "report.html").exists()
    assert subprocess.run(program, cwd=ROOT, env=environment, check=False).returncode == 0
    whole, killed = by_encoder(finished.folder), by_encoder(output)
    assert set(killed) == {"tiny", "MFCC"}
    for name, result in whole.items():
        np.testing.assert_array_equal(result.outputs, killed[name].outputs)
        assert result.scores == killed[name].scores


@pytest.mark.long
def test_all_13_tasks_run_on_small_sets(tmp_path, capsys):
    """By an encoder of one layer; GTZAN's recordings are longer, as beats are scored from 5 s on."""
    data_dir, whole = tmp_path / "MIR", ("gtzan", "vocalset")
    write_task_sets(data_dir, seed=3, accidents=True, sets=whole)
    write_task_sets(data_dir, seed=3, accidents=True, sets=DATA_SETS.keys() - whole, size=Size(clips=1, seconds=3.0))
    encoder = f"tiny=random:{tiny_config_file(tmp_path, model__layers=1, target__top_k=1)}:tiny"
    assert run_command(main, command(encoder, data_dir, tmp_path / "results", "--baselines=mfcc")) == 0
    results = {(r.encoder.name, r.task): r for r in read_results(tmp_path / "results")}
    assert set(results) == {(name, task) for name in ("tiny", "MFCC") for task in TASKS}
    assert results["MFCC", "nsynth_instrument"].main_scores.mean() > 0.7
    assert results["MFCC", "gtzan_beats"].main_scores.mean() > 0.5
    assert "batches of 512, at most 30 epochs" in results["MFCC", "gtzan_beats"].protocol_id  # as it was done
    table = (tmp_path / "results" / "table.md").read_text()
    assert all(name in table for name in ("tiny", "MFCC", "MAP-Music2Vec"))
    capsys.readouterr()
