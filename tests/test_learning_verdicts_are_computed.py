"""The verdicts of benchmarks.learning follow from scores and curves by the rules of docs/learning.md: arms that were
planted to memorise, to collapse and to guess are called by their names, and every rule of learning counts."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.learning.planted import PLANTED, planted_music, run_planted
from benchmarks.learning.scores import compare, over_seeds
from benchmarks.learning.settings import SIZES, Arm, config_of
from benchmarks.learning.verdicts import (
    COLLAPSED,
    DIVERGED,
    GUESSES,
    HEALTHY,
    MEMORISES,
    condition,
    judge,
    judge_harmony,
)


@pytest.fixture(scope="module")
def music():
    return planted_music()


@pytest.mark.long
@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_run_is_called_what_it_is(name, music, tmp_path):
    found, _ = run_planted(PLANTED[name], music, tmp_path)
    assert found.name == PLANTED[name].ends, found.why


def scored(*means, spread=0.01, seed=0):
    """Of so many seeds."""
    draws = np.random.default_rng(seed).normal(0, spread, 1000)
    return over_seeds(means, [draws - draws.mean() + mean for mean in means])


RISING = [scored(0.5), scored(0.6), scored(0.7), scored(0.8), scored(0.9)]
LOW = {"targets redrawn": [scored(0.5), scored(0.5)], "targets permuted": [scored(0.5), scored(0.55)]}


def test_better_than_step_0_and_all_controls_and_rising_is_learned():
    found = judge("pitch", RISING, LOW)
    assert found.learned
    assert found.words.startswith("learned pitch: +0.400")
    assert found.rise[0] == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("course", "controls", "said"),
    [
        (
            RISING,
            LOW | {"targets permuted": [scored(0.5), scored(0.89)]},
            "not above targets permuted with intervals apart (+0.010",
        ),
        (
            RISING,
            LOW | {"targets redrawn": [scored(0.5), scored(0.95)]},
            "not above targets redrawn with intervals apart (-0.050",
        ),
        ([scored(0.9), *RISING[1:]], LOW, "not above its step 0 with intervals apart (+0.000"),
        ([scored(0.8), scored(0.99), scored(0.95), scored(0.85), scored(0.86)], LOW, "does not rise over training"),
    ],
)
def test_each_rule_of_learning_counts(course, controls, said):
    found = judge("pitch", course, controls)
    assert not found.learned
    assert said in found.words


@pytest.mark.parametrize("absent", list(LOW))
def test_nothing_is_learned_without_both_controls(absent):
    controls = {name: control for name, control in LOW.items() if name != absent}
    found = judge("pitch", RISING, controls)
    assert not found.learned
    assert found.words.startswith(f"cannot be said to have learned pitch, for want of {absent}: +0.400")


RISING_TWICE = [scored(0.5, 0.5), scored(0.7, 0.7), scored(0.86, 0.94)]


@pytest.mark.parametrize(
    ("redrawn", "reasons"),
    [
        ([scored(0.5, 0.5), scored(0.6, 0.6), scored(0.6, 0.5)], []),
        # Better than the control in the mean, and not by itself in one of the seeds.
        (
            [scored(0.5, 0.5), scored(0.5, 0.5), scored(0.5, 0.91)],
            [
                "in seed 1 not above targets redrawn with intervals apart (+0.030",
                "its worst seed no better than a control's best (-0.050)",
            ],
        ),
        # In each seed better than the control there, but a start of the control was luckier than one of the arm.
        (
            [scored(0.5, 0.5), scored(0.7, 0.7), scored(0.7, 0.875)],
            ["its worst seed no better than a control's best (-0.015)"],
        ),
        # The control came as far, and fell back.
        (
            [scored(0.5, 0.5), scored(0.88, 0.9), scored(0.7, 0.7)],
            ["not above targets redrawn at its best with intervals apart (+0.010", "at 50% of training"],
        ),
    ],
)
def test_what_stands_neither_in_each_seed_nor_against_a_control_at_its_best_is_weak(redrawn, reasons):
    """It stays learned: the rules are as they were."""
    controls = {"targets redrawn": redrawn, "targets permuted": [scored(0.5, 0.5)] * 3}
    found = judge("pitch", RISING_TWICE, controls)
    assert found.learned
    assert ("(weak: " in found.words) == bool(found.weak) == bool(reasons)
    assert all(reason in found.words for reason in reasons), found.words


def test_margins_by_seed_stand_in_the_words_of_what_was_learned():
    controls = {
        "targets redrawn": [scored(0.5, 0.5), scored(0.8, 0.6), scored(0.6, 0.7)],
        "targets permuted": [scored(0.5, 0.5), scored(0.55, 0.5), scored(0.65, 0.5)],
    }
    found = judge("pitch", RISING_TWICE, controls)
    assert "by seed +0.210, +0.240 over the better control, its worst seed +0.160 over all of theirs" in found.words
    assert "+0.200 over targets redrawn at its best, +0.325 over targets permuted at its best" in found.words
    assert [of_seed.control for of_seed in found.strength.by_seed] == ["targets permuted", "targets redrawn"]
    assert found.strength.over_best["targets redrawn"].at == 0.5


def test_apart_means_intervals_that_do_not_overlap():
    """A difference whose own interval is above 0 is not enough."""
    one, other = scored(0.53), scored(0.5)
    found = compare(one, other)
    assert found.low > 0 and not found.apart
    assert compare(scored(0.56), other).apart


def test_a_score_over_seeds_is_their_mean_draw_by_draw():
    found = over_seeds([0.2, 0.4], [np.array([0.1, 0.3]), np.array([0.3, 0.5])])
    assert found.score == pytest.approx(0.3)
    assert found.draws == pytest.approx([0.2, 0.4])
    assert [of_seed.score for of_seed in found.seeds] == [0.2, 0.4]
    assert found.seeds[1].draws == pytest.approx([0.3, 0.5])


MFCC_SCORES = {"key": 0.1, "chords": 0.1, "pitch": 0.5, "instrument": 0.7, "beats": 0.8}
CHROMA_SCORES = {"key": 0.5, "chords": 0.6, "pitch": 0.6, "instrument": 0.7, "beats": 0.8}
CODES_SCORES = {"key": 0.3, "chords": 0.4, "pitch": 0.6, "instrument": 0.3, "beats": 0.7}


@pytest.mark.parametrize(
    ("arm", "codes", "hears"),
    [
        ({}, {}, True),
        ({"instrument": 0.6}, {}, False),  # it loses instruments
        ({}, {"key": 0.5}, False),  # its codes know as much
        ({"chords": 0.1}, {"chords": 0.05}, False),  # no better than MFCC targets
        ({"instrument": 0.695}, {}, True),  # a loss that cannot be told from nothing
    ],
)
def test_harmony_is_more_than_mfcc_targets_and_own_codes_hear_and_loses_nothing(arm, codes, hears):
    def scores(means):
        return {name: scored(mean, seed=number) for number, (name, mean) in enumerate(means.items())}

    reference = {name: scored(mean, seed=10 + number) for number, (name, mean) in enumerate(MFCC_SCORES.items())}
    found = judge_harmony("chroma", scores(CHROMA_SCORES | arm), reference, scores(CODES_SCORES | codes))
    assert found.hears == hears, found.words
    assert ("was not shown" in found.words) == (not hears)


@pytest.mark.parametrize("absent", [("chords",), ("key",), ("beats",), ("key", "chords", "instrument")])
def test_of_harmony_nothing_can_be_told_where_it_was_not_asked(absent):
    asked = {name: scored(mean) for name, mean in CHROMA_SCORES.items() if name not in absent}
    low = {name: scored(0.01) for name in asked}
    found = judge_harmony("chroma", asked, low, low)
    assert not found.hears
    assert found.words.startswith("whether chroma hears harmony cannot be told: not asked were " + ", ".join(absent))
    assert "not shown" not in found.words


LIMITS = SimpleNamespace(**config_of(Arm("music2vec", "music2vec"), SIZES["toy"]).collapse, used=0.02)
DATA2VEC = {
    "loss": 2.0,
    "target/spread": 0.7,
    "prediction/spread": 0.5,
    "target/positional_share": 0.1,
    "prediction/swap_gap": 1.0,
}
HUBERT = {"loss": 1.0, "a/used": 0.9, "a/loss": 1.0, "a/accuracy": 0.8, "a/copy_accuracy": 0.7}


@pytest.mark.parametrize(
    ("own", "others", "name"),
    [
        ({}, {}, HEALTHY),
        ({"target/spread": 0.09}, {}, COLLAPSED),
        ({"prediction/spread": 0.009}, {}, COLLAPSED),
        ({"target/positional_share": 0.71}, {}, COLLAPSED),
        ({"prediction/swap_gap": 0.019}, {}, COLLAPSED),
        ({"prediction/swap_gap": 0.021}, {"prediction/swap_gap": 0.0}, GUESSES),
        ({"prediction/swap_gap": 0.19}, {"prediction/swap_gap": 0.19}, GUESSES),
        ({"prediction/swap_gap": 0.021}, {"prediction/swap_gap": 0.32}, GUESSES),  # as a control's, by chance
        ({"prediction/swap_gap": 0.3}, {"prediction/swap_gap": 0.19}, GUESSES),
        ({"prediction/swap_gap": 0.3}, {"prediction/swap_gap": 0.0}, MEMORISES),
        ({"prediction/swap_gap": 0.21}, {"prediction/swap_gap": 0.21}, HEALTHY),
        ({}, {"prediction/swap_gap": 0.51}, HEALTHY),
        ({}, {"prediction/swap_gap": 0.49}, MEMORISES),
        ({"loss": math.nan}, {}, DIVERGED),
        ({}, {"loss": math.inf}, DIVERGED),
    ],
)
def test_how_a_music2vec_run_ended(own, others, name):
    assert condition(curve_of(DATA2VEC | own, DATA2VEC | others), "data2vec", LIMITS, {}).name == name


@pytest.mark.parametrize(
    ("own", "others", "name"),
    [
        ({}, {}, HEALTHY),
        ({"a/used": 0.01}, {}, COLLAPSED),
        ({"a/loss": 1.95}, {}, GUESSES),
        ({"a/loss": 1.93}, {}, HEALTHY),
        ({}, {"a/accuracy": 0.41}, HEALTHY),
        ({}, {"a/accuracy": 0.39}, MEMORISES),
        ({"loss": math.nan}, {}, DIVERGED),
    ],
)
def test_how_a_musichubert_run_ended(own, others, name):
    found = condition(curve_of(HUBERT | own, HUBERT | others), "hubert", LIMITS, {"a": 2.0})
    assert found.name == name, found.why


def curve_of(own, others):
    """Ten rows, of which the last two count."""
    row = {("train/loss" if name == "loss" else name): value for name, value in own.items()}
    row |= {f"valid/{name}": value for name, value in others.items()}
    return [dict.fromkeys(row, 0.0)] * 8 + [row] * 2
