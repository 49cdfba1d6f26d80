"""For each of the 13 tasks: features that are the label give the perfect score, features that are noise give chance.

Data sets are the small ones in the official layouts; features go through the very probes of `musicssl evaluate`.
"""

import numpy as np
import pytest

from data_pipelines.musicbox.official_layouts import Size, write_task_sets
from musicssl_jax.mir.features.store import Frames, Layers
from musicssl_jax.mir.metrics import weighted_main_score
from musicssl_jax.mir.probed_beats import beat_targets, probe_beats
from musicssl_jax.mir.probed_task import labels_of, probe_task
from musicssl_jax.mir.probing.settings import Settings
from musicssl_jax.mir.tasks.catalogue import TASKS
from musicssl_jax.mir.tasks.completeness import checked

QUICK = Settings(rates=(3e-2,), epochs=200, patience_stop=50, batch=16, seeds=(0,))
FRAMES, RATE = 500, 50.0
# Of 100 ways to guess, few are right; AUC of noise is a half, R² of noise nothing.
CHANCE = {"accuracy": (0, 0.4), "weighted_score": (0, 0.35), "roc_auc": (0.3, 0.7), "r2": (-9, 0.25)}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("MIR")
    write_task_sets(folder, seed=1, size=Size(clips=1, seconds=1.0))  # its sound is not looked at
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


def asked(name, data_dir):
    task = TASKS[name]
    data = checked(task.read(data_dir, "ours"), task, 0.99)
    return task, sorted(data.examples, key=lambda example: example.recording)


@pytest.mark.parametrize("name", [name for name in TASKS if name != "gtzan_beats"])
def test_features_that_are_the_label_are_perfect_and_noise_is_chance(name, data_dir):
    task, examples = asked(name, data_dir)
    recordings = [example.recording for example in examples]
    labels = labels_of(task, examples)
    shown = np.eye(len(task.outputs))[labels] if task.kind == "class" else labels
    ours = task.protocols["ours"]
    answers = probe_task(task, ours, examples, Known(recordings, 4 * shown), QUICK, ("linear",), lambda _: None)
    assert answers.scores["linear"][task.metric][0] > 0.97
    once = np.ones(len(answers.recording), int)  # what the report resamples is what was scored
    assert weighted_main_score(task, answers.truth, answers.outputs[0], once) == pytest.approx(
        answers.scores["linear"][task.metric][0], abs=1e-6
    )
    noise = np.random.default_rng(0).normal(size=(len(examples), 16))
    answers = probe_task(task, ours, examples, Known(recordings, noise), QUICK, ("linear",), lambda _: None)
    low, high = CHANCE[task.metric]
    assert low <= answers.scores["linear"][task.metric][0] <= high


def test_frames_that_are_the_beats_are_perfect_and_noise_is_chance(data_dir):
    task, examples = asked("gtzan_beats", data_dir)
    times = np.arange(FRAMES) / RATE
    steady = [
        example._replace(label=tuple(np.arange(0.5 + 0.01 * (number % 7), 9.9, 0.5)))
        for number, example in enumerate(examples)
    ]
    recordings = [example.recording for example in steady]
    shown = [beat_targets(example.label, times)[:, None] * 4 for example in steady]
    answers = probe_beats(task, steady, Known(recordings, shown), (0,), QUICK, ("linear",), lambda _: None)
    scores = answers.scores["linear"]
    assert scores["f_measure"][0] > 0.97 and scores["f_measure_peaks"][0] > 0.97 and answers.f.min() > 0.8
    noise = np.random.default_rng(0).normal(size=(len(steady), FRAMES, 4))
    answers = probe_beats(task, steady, Known(recordings, noise), (0,), QUICK, ("linear",), lambda _: None)
    assert answers.scores["linear"]["f_measure"][0] < 0.6  # steady beats at a wrong place hit some


def test_marbles_ensemble_of_windows_is_chosen_on_validation(data_dir):
    task, examples = asked("giantsteps_key", data_dir)
    recordings = [example.recording for example in examples]
    shown = 4 * np.eye(len(task.outputs))[labels_of(task, examples)]
    theirs = task.protocols["marble-v1"]
    answers = probe_task(task, theirs, examples, Known(recordings, shown), QUICK, ("linear",), lambda _: None)
    assert len(answers.recording) == sum(example.part == "test" for example in examples)
    assert answers.scores["linear"]["weighted_score"][0] > 0.97
