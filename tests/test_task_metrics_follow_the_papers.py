"""Metrics of the tasks: those of the libraries and of small cases by hand; draws are the examples they repeat."""

import time
import warnings
from pathlib import Path

import mir_eval
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, balanced_accuracy_score, r2_score, roc_auc_score

from musicssl_jax.mir.metrics import ensemble, main_score, per_track_f, score, weighted_main_score
from musicssl_jax.mir.tasks.task import Protocol, Task, TaskData, Windows

TONICS = ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")
KEYS = tuple(f"{tonic} {mode}" for mode in ("major", "minor") for tonic in TONICS)


def read_nothing(data_dir: Path, protocol: str) -> TaskData:
    return TaskData({}, ())


def task(kind, metric, outputs=()):
    return Task("a-task", "A task", "a_set", kind, outputs, metric, {"ours": Protocol(Windows(None))}, read_nothing)


GENRES = task("class", "accuracy", tuple("abc"))
KEY = task("class", "weighted_score", KEYS)
TAGS = task("tags", "roc_auc", tuple("abcd"))
MOOD = task("numbers", "r2", ("arousal", "valence"))
BEATS = task("beats", "f_measure")


def answers(*classes, of):
    return np.eye(of, dtype=np.float32)[list(classes)]


def examples(which, n, rng):
    """(truth, outputs) without any relation, with ties among the outputs of tags."""
    if which.kind == "class":
        return rng.integers(len(which.outputs), size=n), rng.random((n, len(which.outputs)), np.float32)
    if which.kind == "tags":
        return rng.random((n, 4)) < 0.3, np.round(rng.random((n, 4), np.float32), 1)
    if which.kind == "numbers":
        return rng.normal(size=(n, 2)), rng.normal(size=(n, 2))
    return [[np.sort(rng.uniform(0, 20, rng.integers(1, 40))) for _ in range(n)] for _ in range(2)]


def taken(values, numbers):
    return values[numbers] if isinstance(values, np.ndarray) else [values[n] for n in numbers]


def test_classes_are_counted():
    truth = np.array([0, 0, 0, 1])
    scores = score(GENRES, truth, answers(0, 0, 2, 1, of=3))
    assert scores == {"accuracy": 0.75, "balanced_accuracy": pytest.approx((2 / 3 + 1) / 2)}


def test_balanced_accuracy_is_of_classes_in_the_truth():
    rng = np.random.default_rng(0)
    truth, outputs = rng.integers(4, size=200), rng.random((200, 4))
    outputs[np.arange(200), truth] += 0.3
    names = task("class", "accuracy", tuple("abcde"))
    expected = balanced_accuracy_score(truth, outputs.argmax(1))
    assert score(names, truth, outputs)["balanced_accuracy"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("answer", "weighted", "descending"),
    [
        ("C major", 1, 1),
        ("G major", 0.5, 0.5),  # a fifth above the truth
        ("F major", 0, 0.5),  # a fifth below
        ("A minor", 0.3, 0.3),
        ("C minor", 0.2, 0.2),
        ("Gb major", 0, 0),
    ],
)
def test_keys_are_weighted_with_and_without_descending_fifths(answer, weighted, descending):
    scores = score(KEY, np.array([KEYS.index("C major")]), answers(KEYS.index(answer), of=24))
    assert scores == {
        "weighted_score": weighted,
        "weighted_score_descending": descending,
        "accuracy": float(weighted == 1),
    }


def test_tags_are_those_of_scikit_learn_and_a_class_without_positives_is_left_out():
    rng = np.random.default_rng(0)
    truth, outputs = examples(TAGS, 300, rng)
    truth[:, 2], truth[:60] = False, False
    scored, tagged = [0, 1, 3], truth.any(axis=1)
    assert 0 < tagged.sum() < 240
    expected = {
        f"{name}{suffix}": np.mean([metric(truth[part, k], outputs[part, k]) for k in scored])
        for name, metric in (("roc_auc", roc_auc_score), ("average_precision", average_precision_score))
        for suffix, part in (("", slice(None)), ("_tagged", tagged))
    }
    assert score(TAGS, truth, outputs) == pytest.approx(expected | {"classes_scored": 3}, abs=1e-9)
    assert main_score(TAGS, truth, outputs) == pytest.approx(expected["roc_auc"], abs=1e-9)


def test_tags_by_hand():
    truth = np.array([[1, 0], [1, 0], [0, 1], [0, 0]], bool)
    outputs = np.array([[0.9, 0.1], [0.5, 0.2], [0.5, 0.9], [0.1, 0.3]])
    # Of the pairs of the first tag all are right but one equal one; of the second all are.
    scores = score(TAGS, truth, outputs)
    assert scores["roc_auc"] == pytest.approx((3.5 / 4 + 1) / 2)
    assert scores["average_precision"] == pytest.approx((0.5 * 1 + 0.5 * 2 / 3 + 1) / 2)
    assert scores["roc_auc_tagged"] == pytest.approx((1.5 / 2 + 1) / 2)


def test_numbers_are_explained():
    truth = np.array([[1.0, 0.0], [2.0, 1.0], [3.0, 5.0]])
    outputs = np.array([[1.0, 2.0], [2.0, 2.0], [2.0, 2.0]])
    assert score(MOOD, truth, outputs) == pytest.approx({"r2": 0.25, "r2_arousal": 0.5, "r2_valence": 0.0})


def test_beats_by_hand():
    truth = [np.array([1.0, 4.9, 6.0, 7.0, 8.0]), np.array([10.0, 11.0])]
    estimates = [np.array([1.05, 6.01, 7.06, 9.0]), np.array([10.0, 11.0, 12.0, 13.0])]
    assert score(BEATS, truth, estimates) == pytest.approx(
        {
            "f_measure": (4 / 6 + 4 / 6) / 2,
            "f_measure_20ms": (2 / 6 + 4 / 6) / 2,
            "f_measure_untrimmed": (6 / 9 + 4 / 6) / 2,
            "f_measure_20ms_untrimmed": (2 / 9 + 4 / 6) / 2,
            "f_measure_pooled": 10 / 15,
            "f_measure_pooled_20ms": 6 / 15,
        }
    )


def test_beats_are_those_of_mir_eval():
    truth, estimates = examples(BEATS, 12, np.random.default_rng(0))
    for trim in (0.0, 5.0):
        for window in (0.07, 0.02):
            expected = [
                mir_eval.beat.f_measure(*(mir_eval.beat.trim_beats(t, trim) for t in pair), window)
                for pair in zip(truth, estimates, strict=True)
            ]
            np.testing.assert_allclose(per_track_f(truth, estimates, window=window, trim=trim), expected, atol=1e-12)


def test_tracks_without_beats_score_nothing():
    none, some, early = np.empty(0), np.array([6.0, 7.0]), np.array([1.0, 2.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = score(BEATS, [none, some, none, some, early], [some, none, none, some, early])
        nothing = score(BEATS, [none], [none])
    assert scores["f_measure"] == 1 / 5
    assert scores["f_measure_untrimmed"] == 2 / 5
    assert scores["f_measure_pooled"] == 2 * 4 / (6 + 6)
    assert set(nothing.values()) == {0.0}


@pytest.mark.parametrize("which", [GENRES, KEY, TAGS, MOOD, BEATS], ids=["class", "key", "tags", "numbers", "beats"])
def test_what_is_known_is_perfect_and_what_is_not_is_chance(which):
    rng = np.random.default_rng(0)
    truth, noise = examples(which, 60 if which is BEATS else 2000, rng)
    perfect = {"class": lambda: answers(*truth, of=len(which.outputs)), "tags": lambda: truth.astype(np.float32)}
    perfect = perfect.get(which.kind, lambda: truth)()
    for name, value in score(which, truth, perfect).items():
        assert value == pytest.approx(len(which.outputs) if name == "classes_scored" else 1)
    chance = {
        "accuracy": 1 / 3,
        # Of 24 answers to a key one is right, one each a fifth above, relative and parallel.
        "weighted_score": (1 + 0.5 + 0.3 + 0.2) / 24,
        "roc_auc": 0.5,
        "r2": -1.0,  # noise of the truth's own variance
        "f_measure": 0.13,  # 20 uniform beats in 20 s are about 0.14 a window
    }[which.metric]
    assert main_score(which, truth, perfect) == pytest.approx(1)
    assert main_score(which, truth, noise) == pytest.approx(score(which, truth, noise)[which.metric], abs=1e-9)
    assert main_score(which, truth, noise) == pytest.approx(chance, abs=0.15 if which is MOOD else 0.04)


@pytest.mark.parametrize("which", [GENRES, KEY, TAGS, MOOD, BEATS], ids=["class", "key", "tags", "numbers", "beats"])
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(4, 12))
def test_weighted_examples_score_as_repeated_ones(which, seed, n):
    rng = np.random.default_rng(seed)
    truth, outputs = examples(which, n, rng)
    if which is TAGS:
        truth[0], truth[1] = True, False
    draws = rng.multinomial(n, np.full(n, 1 / n), size=3)
    draws[:, :2] += 1  # each draw can be scored
    got = weighted_main_score(which, truth, outputs, draws)
    for weights, weighted in zip(draws, got, strict=True):
        drawn = np.repeat(np.arange(n), weights)
        expected = main_score(which, taken(truth, drawn), taken(outputs, drawn))
        assert weighted == pytest.approx(expected, rel=1e-9, abs=1e-9)
        assert float(weighted_main_score(which, truth, outputs, weights)) == pytest.approx(weighted)


def test_draws_that_cannot_be_scored_are_nan():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for which in (GENRES, KEY, TAGS, MOOD, BEATS):
            truth, outputs = examples(which, 6, np.random.default_rng(0))
            if which is TAGS:
                truth[0], truth[1] = True, False
            draws = np.stack([np.zeros(6, int), np.ones(6, int)])
            np.testing.assert_array_equal(np.isnan(weighted_main_score(which, truth, outputs, draws)), [True, False])


def test_windows_are_joined():
    outputs = np.array([[0.6, 0.4], [0.6, 0.4], [0.1, 0.9], [0.8, 0.2], [0.3, 0.7]])
    recording = np.array([7, 3, 3, 3, 7])
    np.testing.assert_allclose(ensemble(outputs, recording, "mean"), [[0.5, 0.5], [0.45, 0.55]])
    np.testing.assert_allclose(ensemble(outputs, recording, "max"), [[0.8, 0.9], [0.6, 0.7]])
    gmean = [[(0.6 * 0.1 * 0.8) ** (1 / 3), (0.4 * 0.9 * 0.2) ** (1 / 3)], [0.18**0.5, 0.28**0.5]]
    np.testing.assert_allclose(ensemble(outputs, recording, "gmean"), gmean)
    vote = ensemble(outputs, recording, "vote")
    # Two of three windows of the first; one of two of the second, where the mean decides.
    np.testing.assert_array_equal(vote.argmax(axis=1), [0, 1])
    np.testing.assert_allclose(vote.sum(axis=1), 1)
    assert ensemble(np.array([[1.0, 0.0], [1.0, 0.0]]), np.zeros(2, int), "gmean").argmax() == 0


def test_what_cannot_be_scored_is_refused():
    truth, outputs = examples(TAGS, 5, np.random.default_rng(0))
    for give in (score, main_score):
        with pytest.raises(ValueError, match="5 labels and 4 outputs"):
            give(TAGS, truth, outputs[:4])
        with pytest.raises(ValueError, match="0 labels"):
            give(TAGS, truth[:0], outputs[:0])
        with pytest.raises(ValueError, match="no class has positives"):
            give(TAGS, np.zeros_like(truth), outputs)
    truth[0], truth[1] = True, False
    for diverged in (np.nan, np.inf):
        outputs[3, 1] = diverged
        with pytest.raises(ValueError, match="NaN or infinity"):
            score(TAGS, truth, outputs)
        assert main_score(TAGS, truth, outputs) == -np.inf


def test_validation_of_magnatagatune_takes_no_time():
    rng = np.random.default_rng(0)
    truth, outputs = rng.random((11000, 50)) < 0.05, rng.random((11000, 50), np.float32)
    tags = task("tags", "roc_auc", tuple(map(str, range(50))))
    seconds = []
    for _ in range(5):
        begin = time.process_time()
        main = main_score(tags, truth, outputs)
        seconds.append(time.process_time() - begin)
    assert main == pytest.approx(roc_auc_score(truth, outputs), abs=1e-9)
    assert min(seconds) < 0.06


def test_r2_of_scikit_learn():
    truth, outputs = examples(MOOD, 50, np.random.default_rng(0))
    assert main_score(MOOD, truth, outputs) == pytest.approx(r2_score(truth, outputs))
