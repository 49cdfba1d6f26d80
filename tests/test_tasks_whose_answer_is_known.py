"""For each of the 13 tasks: features that are the label give the perfect score, features that are noise give chance.

Examples are those of the small data sets in the official layouts, many times over; features go through the very probes
of `musicssl evaluate`. What chance is, and how far a score may lie from it, follows from the test part: answers that
know nothing of the truth score as they would on any other order of it.
"""

from dataclasses import replace

import numpy as np
import pytest

from data_pipelines.musicbox.official_layouts import Size, write_task_sets
from musicssl_jax.mir.beat_decoding import decode_beats
from musicssl_jax.mir.features.store import Frames, Layers
from musicssl_jax.mir.metrics import main_score, per_track_f, weighted_main_score
from musicssl_jax.mir.probed_beats import beat_targets, probe_beats
from musicssl_jax.mir.probed_task import labels_of, probe_task
from musicssl_jax.mir.probing.settings import Settings, for_frames
from musicssl_jax.mir.tasks.catalogue import TASKS
from musicssl_jax.mir.tasks.completeness import checked

NETWORKS = ("mlp", "linear")
SETTINGS = Settings(hidden=64, rates=(1e-2,), epochs=60, patience_stop=6, batch=32, seeds=(0,))
OF_NOISE = replace(SETTINGS, epochs=5)
OF_FRAMES = replace(for_frames(SETTINGS), rates=(3e-2,))
FRAMES, RATE = 500, 50.0
TEST_UNITS = 120  # at least
ORDERS = 40


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("MIR")
    write_task_sets(folder, seed=1, size=Size(clips=1, seconds=0.4))  # its sound is not looked at
    return folder


class Known:
    """Features of recordings, two windows each: `values` (recordings, width)."""

    rejected: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, recordings, values):
        self.values = dict(zip(recordings, values, strict=True))

    def layers_for(self, recordings):
        rows = np.repeat(np.stack([self.values[name] for name in recordings]), 2, axis=0)
        times = np.zeros(len(rows))
        return Layers(np.repeat(np.arange(len(recordings)), 2), times, times, rows[None].astype(np.float16))

    def frames_for(self, recordings, layer):
        del layer
        frames = np.concatenate([self.values[name] for name in recordings]).astype(np.float16)
        return Frames(frames, np.arange(len(recordings) + 1) * FRAMES, RATE, 0.0)


def asked(name, data_dir, test_units=TEST_UNITS):
    """The task, and its examples as many times over as give so many of the test part."""
    task = TASKS[name]
    data = checked(task.read(data_dir, "ours"), task, 0.99)
    times = -(-test_units // sum(example.part == "test" for example in data.examples))
    copies = [e._replace(recording=f"{e.recording} {number}") for number in range(times) for e in data.examples]
    return task, sorted(copies, key=lambda example: example.recording)


def chance(task, answers, outputs):
    """Mean and deviation of the main score over orders of the truth."""
    rng = np.random.default_rng(1)
    truths = (answers.truth[rng.permutation(len(answers.truth))] for _ in range(ORDERS))
    scores = [main_score(task, truth, outputs) for truth in truths]
    return np.mean(scores), np.std(scores)


SAME_AS_ANOTHER = ("mtg_genre", "mtg_instrument", "mtg_moodtheme", "vocalset_singer")  # but for the data set


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.long) if name in SAME_AS_ANOTHER else name
        for name in TASKS
        if name != "gtzan_beats"
    ],
)
def test_features_that_are_the_label_are_perfect_and_noise_is_chance(name, data_dir):
    task, examples = asked(name, data_dir)
    recordings = [example.recording for example in examples]
    labels = labels_of(task, examples)
    shown = np.eye(len(task.outputs))[labels] if task.kind == "class" else labels
    ours = task.protocols["ours"]
    answers = probe_task(task, ours, examples, Known(recordings, 4 * shown), SETTINGS, NETWORKS, lambda _: None)
    for network in NETWORKS:
        assert answers.scores[network][task.metric][0] > 0.97, network
    once = np.ones(len(answers.recording), int)  # what the report resamples is what was scored
    assert weighted_main_score(task, answers.truth, answers.outputs[0], once) == pytest.approx(
        answers.scores["mlp"][task.metric][0], abs=1e-6
    )
    noise = np.random.default_rng(0).normal(size=shown.shape)
    for network in NETWORKS:
        answers = probe_task(task, ours, examples, Known(recordings, noise), OF_NOISE, (network,), lambda _: None)
        score, (mean, deviation) = answers.scores[network][task.metric][0], chance(task, answers, answers.outputs[0])
        assert abs(score - mean) <= 4 * deviation, network


def test_frames_that_are_the_beats_are_perfect_and_noise_is_chance(data_dir):
    task, examples = asked("gtzan_beats", data_dir, 30)
    times, rng = np.arange(FRAMES) / RATE, np.random.default_rng(0)
    steady = [e._replace(label=tuple(np.arange(rng.uniform(0.3, 1), 9.9, rng.uniform(0.35, 0.9)))) for e in examples]
    recordings = [example.recording for example in steady]
    shown = [beat_targets(example.label, times)[:, None] * 4 for example in steady]
    answers = probe_beats(task, steady, Known(recordings, shown), (0,), OF_FRAMES, NETWORKS, lambda _: None)
    for network in NETWORKS:
        scores = answers.scores[network]
        assert scores["f_measure"][0] > 0.97 and scores["f_measure_peaks"][0] > 0.97, network
    assert answers.f.min() > 0.8
    noise = rng.normal(size=(len(steady), FRAMES, 1))
    settings = replace(OF_FRAMES, epochs=OF_NOISE.epochs)
    answers = probe_beats(task, steady, Known(recordings, noise), (0,), settings, NETWORKS, lambda _: None)
    # What the decoder makes of probabilities that say nothing, and are as high as beats and their neighbours frequent.
    truth = [np.array(example.label) for example in steady if example.part == "test"]
    guessed = decode_beats([rng.uniform(0.04, 0.1, FRAMES) for _ in truth], RATE)
    f = per_track_f(truth, guessed)
    for network in NETWORKS:
        assert abs(answers.scores[network]["f_measure"][0] - f.mean()) <= 4 * f.std() * (2 / len(f)) ** 0.5, network


def test_marbles_ensemble_of_windows_is_chosen_on_validation(data_dir):
    task, examples = asked("giantsteps_key", data_dir, 1)
    recordings = [example.recording for example in examples]
    shown = 4 * np.eye(len(task.outputs))[labels_of(task, examples)]
    theirs = task.protocols["marble-v1"]
    answers = probe_task(task, theirs, examples, Known(recordings, shown), SETTINGS, ("linear",), lambda _: None)
    assert len(answers.recording) == sum(example.part == "test" for example in examples)
    assert answers.scores["linear"]["weighted_score"][0] > 0.97
