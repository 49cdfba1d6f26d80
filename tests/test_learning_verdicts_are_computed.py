"""The verdicts of benchmarks.learning follow from scores and curves by the rules of docs/learning.md: arms that were
planted to memorise, to collapse and to guess are called by their names, and every rule of learning counts."""

import numpy as np
import pytest

from benchmarks.learning.planted import PLANTED, planted_music, run_planted
from benchmarks.learning.verdicts import Scored, compare, judge, judge_harmony, over_seeds


@pytest.fixture(scope="module")
def music():
    return planted_music()


@pytest.mark.long
@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_run_is_called_what_it_is(name, music, tmp_path):
    found, _ = run_planted(PLANTED[name], music, tmp_path)
    assert found.name == PLANTED[name].ends, found.why


def scored(mean, spread=0.01, seed=0):
    draws = np.random.default_rng(seed).normal(mean, spread, 1000)
    return Scored(mean, draws - draws.mean() + mean, (mean,))


RISING = [scored(0.5), scored(0.6), scored(0.7), scored(0.8), scored(0.9)]
LOW = {"targets redrawn": scored(0.5), "targets permuted": scored(0.55)}


def test_better_than_step_0_and_all_controls_and_rising_is_learned():
    found = judge("pitch", RISING, LOW)
    assert found.learned
    assert found.words.startswith("learned pitch: +0.400")
    assert found.rise[0] == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("course", "controls", "said"),
    [
        (RISING, LOW | {"targets permuted": scored(0.89)}, "not apart from targets permuted (+0.010"),
        (RISING, LOW | {"targets redrawn": scored(0.95)}, "not apart from targets redrawn (-0.050"),
        ([scored(0.9), *RISING[1:]], LOW, "not apart from its step 0 (+0.000"),
        ([scored(0.8), scored(0.99), scored(0.95), scored(0.85), scored(0.86)], LOW, "does not rise over training"),
    ],
)
def test_each_rule_of_learning_counts(course, controls, said):
    found = judge("pitch", course, controls)
    assert not found.learned
    assert said in found.words


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
    assert found.seeds == (0.2, 0.4)


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
