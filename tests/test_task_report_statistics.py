"""Intervals and p values: by hand where that is possible, by simulation where it is not."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from task_report_fixtures import made_up_result

from musicssl_jax.mir.report.statistics import (
    DRAWS,
    bootstrap,
    can_differ,
    difference,
    holm,
    interval,
    why_not_comparable,
)


def test_holm_by_hand():
    # sorted: .01 x 4, .02 x 3, .03 x 2, .04 x 1, none below the one before
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.01, 0.01, 0.9]) == pytest.approx([0.03, 0.03, 0.9])
    assert holm([0.6, 0.7]) == pytest.approx([1, 1])
    assert holm([]) == []
    np.testing.assert_allclose(holm([0.02, math.nan, 0.01]), [0.02, math.nan, 0.02])


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_keeps_the_order_and_lies_between_p_and_bonferroni(p):
    adjusted = np.array(holm(p))
    raw = np.array(p)
    assert (adjusted >= raw - 1e-12).all() and (adjusted <= np.minimum(1, raw * len(p)) + 1e-12).all()
    assert (np.diff(adjusted[np.argsort(raw, kind="stable")]) >= -1e-12).all()


def answers(correct: np.ndarray, group: np.ndarray, name: str = "a"):
    """A genre result of one seed, whose answers are right where `correct` says so."""
    truth = np.zeros(len(correct), int)
    outputs = np.zeros((1, len(correct), 10))
    outputs[0, np.arange(len(correct)), np.where(correct, 0, 1)] = 1
    result = made_up_result("gtzan_genre", name, units=len(correct), seeds=1, confusion=None)
    scores = {"mlp": {"accuracy": (float(np.mean(correct)),)}}
    return dataclasses.replace(result, truth=truth, outputs=outputs, group=group, scores=scores)


def test_intervals_hold_the_true_score_as_often_as_they_say():
    rng, held, runs = np.random.default_rng(0), 0, 200
    for _ in range(runs):
        # 60 songs of 1 to 4 windows that are right or wrong together: by windows the interval would be too narrow
        right, windows = rng.random(60) < 0.7, rng.integers(1, 5, size=60)
        result = answers(np.repeat(right, windows), np.repeat(np.arange(60), windows).astype(str))
        low, high = interval(result)
        held += low <= 0.7 <= high
    assert 0.90 <= held / runs <= 0.98


def test_two_windows_of_one_song_are_one_observation():
    rng = np.random.default_rng(1)
    once = rng.random(50) < 0.6
    songs = np.array([f"{i:02}" for i in range(50)])
    single = answers(once, songs)
    doubled = answers(np.repeat(once, 2), np.repeat(songs, 2))
    np.testing.assert_allclose(bootstrap(doubled), bootstrap(single))
    by_window = answers(np.repeat(once, 2), np.array([f"{i:03}" for i in range(100)]))
    width = {name: np.subtract(*interval(r)) for name, r in (("song", doubled), ("window", by_window))}
    assert width["song"] / width["window"] == pytest.approx(math.sqrt(2), rel=0.15)


def test_the_spread_is_the_binomial_one():
    right = np.arange(100) < 80
    draws = bootstrap(answers(right, np.arange(100).astype(str)))
    assert len(draws) == DRAWS
    assert draws.mean() == pytest.approx(0.8, abs=0.005)
    assert draws.std() == pytest.approx(math.sqrt(0.8 * 0.2 / 100), rel=0.1)


def test_pairing_leaves_only_what_two_disagree_on():
    songs = np.arange(100).astype(str)
    right = np.random.default_rng(2).random(100) < 0.5
    better = right.copy()
    better[np.flatnonzero(~right)[:8]] = True
    a, b = answers(right, songs), answers(better, songs, "b")
    gain = difference(a, b)
    assert gain.gain == pytest.approx(0.08)
    assert 0 < gain.low < 0.08 < gain.high < 0.16 and gain.p < 0.01
    assert interval(a)[1] > interval(b)[0]  # unpaired intervals overlap
    back = difference(b, a)
    assert (back.gain, back.low, back.high, back.p) == pytest.approx((-gain.gain, -gain.high, -gain.low, gain.p))
    assert gain.p >= 2 / (DRAWS + 1)


def test_equals_do_not_differ():
    a = made_up_result("gtzan_genre", "a")
    assert difference(a, made_up_result("gtzan_genre", "b")) == (0, 0, 0, 1)


def test_false_alarms_are_as_rare_as_they_should_be():
    rng, songs = np.random.default_rng(3), np.arange(80).astype(str)
    pairs = [[answers(rng.random(80) < 0.6, songs) for _ in range(2)] for _ in range(150)]
    assert np.mean([difference(*pair).p < 0.05 for pair in pairs]) < 0.1


def test_few_groups_are_not_overrated():
    singers = np.repeat(np.arange(5), 20).astype(str)
    a, b = answers(np.tile(np.arange(20) < 10, 5), singers), answers(np.tile(np.arange(20) < 12, 5), singers, "b")
    assert difference(a, b).low > 0 and np.isnan(difference(a, b).p)  # a sign test of five gives 0.06 at best
    assert [can_differ(groups) for groups in (1, 2, 5, 6, 100)] == [False, False, False, True, True]
    rng, songs, p, held = np.random.default_rng(4), np.arange(8).repeat(10).astype(str), [], 0
    for _ in range(300):
        right = rng.random((2, 80)) < np.repeat(rng.uniform(0.3, 0.9, (2, 8)), 10, axis=1)
        a, b = (answers(r, songs) for r in right)
        gain = difference(a, b)
        p.append(gain.p)
        held += gain.low <= 0 <= gain.high
    assert np.mean(np.array(p) < 0.05) < 0.065 and held / 300 > 0.935  # 0.083 and 0.917 by plain percentiles


def test_the_interval_and_p_agree():
    songs, rng = np.arange(12).astype(str), np.random.default_rng(5)
    for _ in range(60):
        gain = difference(answers(rng.random(12) < 0.3, songs), answers(rng.random(12) < 0.7, songs, "b"))
        if abs(gain.p - 0.05) > 0.01:
            assert (gain.p < 0.05) == (gain.low > 0 or gain.high < 0)


@pytest.mark.parametrize("task", ["gtzan_genre", "mtt_top50", "emomusic", "gtzan_beats", "giantsteps_key"])
def test_every_kind_of_task_has_an_interval_around_its_score(task):
    result = made_up_result(task, skill=2.0, units=60, groups=30)
    low, high = interval(result)
    assert low < result.main_scores.mean() < high
    assert difference(made_up_result(task, "worse", skill=0.1, units=60, groups=30), result).p < 0.05


def test_seeds_are_averaged_in_each_draw():
    result = made_up_result("gtzan_genre")
    each = [
        dataclasses.replace(
            result, seeds=(0,), outputs=result.outputs[[i]], scores={"mlp": {"accuracy": (result.main_scores[i],)}}
        )
        for i in range(3)
    ]
    np.testing.assert_allclose(bootstrap(result), np.mean([bootstrap(r) for r in each], axis=0))


@pytest.mark.parametrize(
    "unknowable",
    [
        made_up_result("gtzan_genre", groups=1),
        made_up_result("gtzan_genre", outputs=np.full((3, 40, 10), np.nan)),
        made_up_result("gtzan_beats", f=np.full((3, 40), np.nan)),
    ],
    ids=["one group", "NaN outputs", "NaN beats"],
)
def test_where_nothing_is_known_nothing_is_said(unknowable):
    assert np.isnan(interval(unknowable)).all()
    other = made_up_result(unknowable.task, "other", group=unknowable.group)
    assert np.isnan(difference(unknowable, other)[1:]).all()


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (made_up_result("emomusic"), "tasks"),
        (made_up_result("gtzan_genre", protocol_id="v1"), "protocols"),
        (made_up_result("gtzan_genre", split_sha256="6" * 64), "splits"),
        (made_up_result("gtzan_genre", units=39), "test examples"),
        (made_up_result("gtzan_genre", groups=7), "test examples"),
    ],
)
def test_what_is_not_comparable_is_not_compared(other, reason):
    result = made_up_result("gtzan_genre")
    assert reason in (why_not_comparable(result, other) or "")
    with pytest.raises(ValueError, match=reason):
        difference(result, other)
