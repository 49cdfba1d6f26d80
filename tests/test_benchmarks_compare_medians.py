"""What benchmarks say of two sides: a ratio of medians, with quartiles of the ratios in each turn; sides take turns."""

import numpy as np
import pytest

from benchmarks.codebook_inertia import inertia
from benchmarks.comparison import ratio, rounds
from benchmarks.turns import memory


def test_the_ratio_is_of_medians_and_its_spread_of_pairs():
    found = ratio([2.0, 4.0, 9.0], [1.0, 4.0, 3.0])
    assert found.value == pytest.approx(4.0 / 3.0)
    assert (found.low, found.high) == (1.5, 2.5)  # of 2, 1, 3
    assert found.line("ours/peer") == "ratio 1.33 (ours/peer, of medians of 3; quartiles 1.50 and 2.50)"


def test_who_begins_changes():
    asked = []

    def side(name):
        def work(number):
            asked.append((name, number))
            return {"seconds": number, "of": name}

        return work

    told = rounds({"a": side("a"), "b": side("b")}, 3)
    assert asked == [("b", 0), ("a", 0), ("a", 1), ("b", 1), ("b", 2), ("a", 2)]
    assert told == {"seconds": {"a": [0, 1, 2], "b": [0, 1, 2]}, "of": {"a": ["a"] * 3, "b": ["b"] * 3}}


def test_memory_is_the_most_that_was_held():
    before = memory()
    block = np.ones(before, np.uint8)
    held = memory()
    del block
    assert held > 1.2 * before
    assert memory() > 0.99 * held  # the system counts in steps


def test_inertia_is_of_the_nearest():
    random = np.random.default_rng(0)
    frames, centroids = random.normal(size=(2500, 4)).astype(np.float32), random.normal(size=(7, 4)).astype(np.float32)
    distances = ((frames[:, None].astype(np.float64) - centroids) ** 2).sum(-1)
    assert inertia(frames, centroids) == pytest.approx(distances.min(1).mean())
