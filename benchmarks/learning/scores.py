"""Scores over seeds, and how much better one is than another."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from musicssl_jax.mir.probes import percentile_interval
from musicssl_jax.shapes import Float


class Scored(NamedTuple):
    """A score, the mean over seeds; its draws, of the same draws of tracks for all that are compared; seeds: each one's
    own."""

    score: float
    draws: Float[np.ndarray, " draws"]
    seeds: "tuple[Scored, ...]" = ()

    @property
    def interval(self) -> tuple[float, float]:
        """Of 95%, by tracks."""
        return percentile_interval(self.draws)


def over_seeds(scores: Sequence[float], draws: Sequence[Float[np.ndarray, " draws"]]) -> Scored:
    """The mean of what several seeds scored."""
    seeds = tuple(Scored(float(score), of_seed) for score, of_seed in zip(scores, draws, strict=True))
    return Scored(float(np.mean(scores)), np.mean(draws, axis=0), seeds)


class Comparison(NamedTuple):
    """Difference of two scores and its 95% interval by paired draws. apart: the first is better, and the 95% intervals
    of the two scores do not overlap."""

    difference: float
    low: float
    high: float
    apart: bool

    def __str__(self) -> str:
        return f"{self.difference:+.3f} ({self.low:+.3f} to {self.high:+.3f})"


def compare(one: Scored, other: Scored) -> Comparison:
    """How much better `one` is than `other`."""
    low, high = percentile_interval(one.draws - other.draws)
    return Comparison(one.score - other.score, low, high, one.interval[0] > other.interval[1])
