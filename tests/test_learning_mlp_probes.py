"""MLP probes of benchmarks.learning: find what is planted in one layer, nothing in noise, and never see test labels;
and no probe is thrown off by what training windows do not have."""

import dataclasses

import numpy as np
import pytest
from sklearn.metrics import r2_score

from benchmarks.learning.evaluation import linear, mlp
from benchmarks.learning.questions import Asked
from musicssl_jax.mir.probes import Task, accuracy, split_by_group

TRACKS, PER_TRACK, CLASSES = 100, 6, 3
EPOCHS = 100


@pytest.fixture(scope="module")
def asked():
    groups = np.repeat(np.arange(TRACKS), PER_TRACK)
    labels = np.random.default_rng(0).integers(CLASSES, size=len(groups))
    task = Task("planted", np.array(["a", "b", "c"])[labels], groups, "class", accuracy)
    return Asked(task, split_by_group(groups, valid=0.2, test=0.4, seed=0), [])


@pytest.fixture(scope="module")
def features(asked):
    """Noise in layers 0 and 2; in layer 1 the class, but only as the product of two dimensions' signs."""
    rng = np.random.default_rng(1)
    noise = rng.standard_normal((3, len(asked.task.labels), 8))
    classes = np.searchsorted(["a", "b", "c"], asked.task.labels)
    angle = 2 * np.pi * (classes + rng.integers(0, 2, len(classes)) * 1.5) / CLASSES
    noise[1, :, :2] = 4 * np.stack([np.cos(angle), np.sin(angle)], 1)
    return noise


def test_what_is_not_linear_is_found_in_its_layer(features, asked):
    found = mlp(features, asked, EPOCHS)
    assert found.score > 0.9 and found.layer == 1
    assert found.layers.shape == (3,) and found.layers.argmax() == 1
    low, high = np.quantile(found.draws, [0.025, 0.975])
    assert low <= found.score <= high


def test_test_labels_are_not_seen(features, asked):
    """With other labels in the test part, the same answers: right ones become wrong ones."""
    shuffled = asked.task.labels.copy()
    test = asked.parts.test
    shuffled[test] = np.roll(shuffled[test], 1)
    other = asked._replace(task=dataclasses.replace(asked.task, labels=shuffled))
    ours, theirs = mlp(features, asked, EPOCHS), mlp(features, other, EPOCHS)
    assert theirs.layer == ours.layer and (theirs.layers == ours.layers).all()
    assert theirs.score < 0.6 < ours.score


def test_windows_of_a_track_decide_together(features, asked):
    labels = np.repeat(np.random.default_rng(2).integers(CLASSES, size=TRACKS), PER_TRACK)
    task = dataclasses.replace(asked.task, labels=labels, per_group=True)
    per_track = np.random.default_rng(3).standard_normal((1, len(labels), 4))
    per_track[0, np.arange(len(labels)), labels] += 1.0  # a window alone is often wrong
    found = mlp(per_track, asked._replace(task=task), EPOCHS)
    alone = mlp(per_track, asked._replace(task=dataclasses.replace(task, per_group=False)), EPOCHS)
    assert found.score > alone.score


@pytest.mark.parametrize("known", [0.0, 1e-4], ids=["in no training window", "in one, a little"])
@pytest.mark.parametrize("probed", [linear, lambda features, asked: mlp(features, asked, 20)], ids=["linear", "MLP"])
def test_a_code_that_training_windows_hardly_have_decides_nothing(probed, known, asked):
    """One test track is full of it; R² has no lower bound."""
    rng = np.random.default_rng(4)
    numbers = rng.standard_normal(TRACKS)[asked.task.groups]
    task = dataclasses.replace(asked.task, labels=numbers, kind="number", score=r2_score)
    bag = np.stack([numbers + 0.3 * rng.standard_normal(len(numbers)), np.zeros_like(numbers)], 1)[None]
    train, test = (np.flatnonzero(part) for part in (asked.parts.train, asked.parts.test))
    bag[0, train[0], 1] = known
    bag[0, asked.task.groups == asked.task.groups[test[0]], 1] = 1.0
    assert probed(bag, asked._replace(task=task)).score > 0.7
