"""What the features of the tasks will take is known before anything runs."""

import dataclasses
import json

import pytest
from encoder_fixtures import tiny_config_file
from task_feature_fixtures import write_recordings

from musicssl_jax.mir.features import plan
from musicssl_jax.mir.features.encoders import baseline, checkpoint
from musicssl_jax.mir.features.extract import ensure_features
from musicssl_jax.mir.features.plan import OFFICIAL, plan_features, plan_table
from musicssl_jax.mir.tasks.catalogue import TASKS
from musicssl_jax.mir.tasks.task import TaskData


@pytest.fixture(scope="module")
def representation(tmp_path_factory):
    return checkpoint(f"random:{tiny_config_file(tmp_path_factory.mktemp('config'))}")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(plan, "_MEASURE_SECONDS", 0.05)


def test_tasks_on_the_same_audio_are_one_pass(representation):
    assert set(OFFICIAL) == set(TASKS)
    shared = ["nsynth_pitch", "nsynth_instrument", "gtzan_genre", "gtzan_beats", "mtg_genre", "mtg_moodtheme"]
    passes = plan_features(representation, [TASKS[name] for name in shared], "ours", {}, frames_of_layers=(0, 1, 2))
    assert [one.tasks for one in passes] == [tuple(shared[:2]), tuple(shared[2:4]), tuple(shared[4:])]
    nsynth, gtzan, jamendo = passes
    assert (nsynth.recordings, nsynth.window_count) == (305979, 305979)
    assert nsynth.gigabytes == pytest.approx(305979 * 3 * 32 * 2 / 1e9)
    assert gtzan.gigabytes == pytest.approx((930 * 3 * 32 + 7.75 * 3600 * 50 * 3 * 32) * 2 / 1e9)
    assert (jamendo.recordings, jamendo.hours_of_audio) == (55525, 3764.0)
    assert jamendo.window_count == 55525 * 8  # of 244 s: eight of 30 s, and 4 s that are left out
    assert json.loads(json.dumps([one.to_json() for one in passes]))[1]["tasks"] == ["gtzan_genre", "gtzan_beats"]
    table = plan_table(passes)
    assert "mtg_genre,mtg_moodtheme" in table and "NVIDIA A100" in table and "30% of its bfloat16 peak" in table
    assert "305979" in table and " 340* " in table and "all of all" not in table
    two = plan_table([nsynth, gtzan, nsynth._replace(encoder="other")]).splitlines()
    assert [line for line in two if line in (nsynth.encoder, "other")] == [nsynth.encoder, "other"]
    assert [line.split()[:2] for line in two if line.startswith("all")] == [
        ["all", "347.8"],
        ["all", "340"],
        ["all", "of"],
    ]


def test_what_is_here_is_measured_and_the_plan_comes_true(representation, tmp_path):
    songs = write_recordings(tmp_path / "music", [4.0] * 6)
    task = TASKS["emomusic"]
    data = TaskData({song.id: song for song in songs}, ())
    (planned,) = plan_features(representation, [task], "marble-v1", {"emomusic": data})
    assert planned.from_files and planned.recordings == 6
    assert planned.hours_of_audio == pytest.approx(24 / 3600)
    windows = task.protocols["marble-v1"].windows
    store = ensure_features(representation, songs, windows, tmp_path / "features", data_set=task.data_set)
    assert store.layers_for(list(data.recordings)).rows == planned.window_count
    assert planned.windows == store.folder.name


def test_hours_follow_from_the_arithmetic_of_the_encoder(representation):
    (known,) = plan_features(representation, [TASKS["mtg_top50"]], "ours", {})
    heavier = dataclasses.replace(representation, flops=lambda samples: 10**13)
    (heavy,) = plan_features(heavier, [TASKS["mtg_top50"]], "ours", {})
    assert heavy.hours_on["NVIDIA A100"] == pytest.approx(heavy.window_count * 1e13 / (312e12 * 0.3) / 3600)
    assert known.hours_on["NVIDIA A100"] == pytest.approx(3689 / 400 / 16)  # so small that decoding takes longer
    assert known.hours_on["this machine"] == pytest.approx(known.window_count * 30 / known.speed / 3600)
    (mfcc,) = plan_features(baseline("mfcc"), [TASKS["gtzan_genre"]], "ours", {})
    assert mfcc.hours_on["NVIDIA A100"] is None and mfcc.hours_on["this machine"] > 0
