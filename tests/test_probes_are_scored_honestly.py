"""Linear probes: what is in the features is found, what is not is not, and the test part is read once."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from musicssl_jax.mir.probes import (
    Task,
    accuracy,
    bootstrap_by_group,
    difference,
    percentile_interval,
    probe,
    ridge_outputs,
    split_by_group,
)

TRACKS, WINDOWS, CLASSES, LAYERS, DIMS = 50, 8, 4, 3, 24


@pytest.fixture
def windows():
    """Noise features of three layers, class labels that vary within tracks, and the split by track."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(TRACKS), WINDOWS)
    labels = rng.integers(CLASSES, size=groups.size)
    features = rng.standard_normal((LAYERS, groups.size, DIMS))
    return (
        features,
        Task("class", labels, groups, "class", accuracy),
        split_by_group(groups, valid=0.2, test=0.4, seed=0),
    )


def planted(features, signal, layer):
    """The signal (windows, k) added to k of the layer's dimensions."""
    features = features.copy()
    features[layer, :, : signal.shape[1]] += signal
    return features


def test_planted_classes_are_found_in_the_layer_that_holds_them(windows):
    features, task, parts = windows
    result = probe(planted(features, 3 * np.eye(CLASSES)[task.labels], layer=1), task, parts)
    assert result.score > 0.9 and result.interval[0] > 1 / CLASSES
    assert result.layer == 1 == np.argmax(result.valid_score_by_layer)


def test_noise_scores_chance(windows):
    low, high = probe(*windows).interval
    assert low < 1 / CLASSES < high < 0.5


def test_planted_numbers_are_found(windows):
    features, task, parts = windows
    labels = np.log(np.random.default_rng(1).uniform(60, 180, task.labels.size))
    task = Task("tempo", labels, task.groups, "number", r2_score)
    assert probe(planted(features, 40 * labels[:, None], layer=2), task, parts).score > 0.9
    assert probe(features, task, parts).interval[0] < 0.05


@pytest.mark.parametrize("windows", [30, 7, 4])
def test_the_fit_is_ridge_regression_on_standardised_features(windows):
    rng = np.random.default_rng(0)
    features, asked = 3 + 5 * rng.standard_normal((windows, 7)), rng.standard_normal((4, 7))
    targets = features[:, :2] ** 2
    penalties = (0.1, 1.0, 100.0)
    for outputs, penalty in zip(ridge_outputs(features, targets, asked, penalties), penalties, strict=True):
        peer = make_pipeline(StandardScaler(), Ridge(penalty)).fit(features, targets)
        np.testing.assert_allclose(outputs, peer.predict(asked), rtol=1e-6)


def test_no_track_is_in_two_parts(windows):
    _, task, parts = windows
    sets = [set(task.groups[part]) for part in parts]
    assert [len(names) for names in sets] == [20, 10, 20]
    assert set.union(*sets) == set(task.groups)


def test_settings_and_probe_do_not_see_test_labels(windows):
    features, task, parts = windows
    features = planted(features, np.eye(CLASSES)[task.labels], layer=1)
    # In the test part alone the labels follow layer 0: choosing on test would take it.
    decoy = planted(features, 9 * parts.test[:, None] * np.eye(CLASSES)[(task.labels + 1) % CLASSES], layer=0)
    shifted = replace(task, labels=np.where(parts.test, (task.labels + 1) % CLASSES, task.labels))
    ours, theirs = probe(decoy, task, parts), probe(decoy, shifted, parts)
    assert ours.layer == theirs.layer == 1
    assert ours.penalty == theirs.penalty and ours.valid_score_by_layer == theirs.valid_score_by_layer
    assert ours.score != theirs.score


def test_intervals_by_track_are_wider_than_by_window():
    hits = np.random.default_rng(0).integers(2, size=TRACKS).repeat(WINDOWS)  # all windows of a track alike

    def width(groups):
        low, high = percentile_interval(bootstrap_by_group(lambda rows: hits[rows].mean(), groups))
        return high - low

    by_track, by_window = width(np.arange(TRACKS).repeat(WINDOWS)), width(np.arange(hits.size))
    assert by_track == pytest.approx(WINDOWS**0.5 * by_window, rel=0.15)
    assert by_track == pytest.approx(2 * 1.96 * 0.5 / TRACKS**0.5, rel=0.15)


def test_answers_per_track_average_their_windows(windows):
    features, task, parts = windows
    labels = np.arange(TRACKS).repeat(WINDOWS) % CLASSES
    features = planted(features, 1.5 * np.eye(CLASSES)[labels], layer=1)
    by_window = probe(features, replace(task, labels=labels), parts)
    by_track = probe(features, replace(task, labels=labels, per_group=True), parts)
    assert by_track.score > by_window.score + 0.1


def test_differences_are_paired(windows):
    features, task, parts = windows
    better = planted(features, np.eye(CLASSES)[task.labels], layer=1)
    assert difference(probe(better, task, parts), probe(better, task, parts)) == (0, 0, 0)
    gain, low, high = difference(probe(better, task, parts), probe(features, task, parts))
    assert 0 < low < gain < high
