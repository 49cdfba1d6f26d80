"""k nearest neighbours: what features say without training."""

import time
from collections.abc import Callable

import numpy as np

from musicssl_jax.mir.probing.problem import TEST, TRAIN, VALID, Problem
from musicssl_jax.mir.probing.selection import Outcome
from musicssl_jax.shapes import Float, Int

COUNTS = (1, 3, 5, 10, 20)
MOST_TRAINING = 20_000
"""Training units that are looked at; of more, so many are drawn."""
_BLOCK = 1024


def nearest_neighbours(problem: Problem, *, say: Callable[[str], None] = lambda _: None) -> Outcome:
    """Answers by the training units whose features are nearest by cosine; layer and k are chosen on validation.

    Features are means over a unit's rows, standardised by the training units. The answer is the neighbours' mean:
    shares of classes or tags, or numbers. `Outcome.rate` is k, its grid has a column for each of COUNTS.
    """
    began = time.monotonic()
    train, valid = (np.unique(problem.unit[problem.rows_of(part)]) for part in (TRAIN, VALID))
    if len(train) > MOST_TRAINING:
        train = np.sort(np.random.default_rng(0).choice(train, MOST_TRAINING, replace=False))
    asked = np.unique(problem.unit[problem.rows_of(VALID, TEST)])
    counts = [k for k in COUNTS if k <= len(train)]
    known = _targets(problem)[train]
    say(f"knn: {problem.layers.count} layers, k of {', '.join(map(str, counts))}")
    grid = np.empty((problem.layers.count, len(counts)))
    for layer in range(problem.layers.count):
        features = _features(problem, layer, train)
        answers = _answers(features[train], known, features[valid], counts)
        grid[layer] = [problem.score(problem.labels[valid], answer) for answer in answers]
    best, which = map(int, np.unravel_index(np.argmax(grid), grid.shape))
    features = _features(problem, best, train)
    out = np.full((1, len(problem.part), problem.outputs), np.nan, np.float32)
    out[0, asked] = _answers(features[train], known, features[asked], [counts[which]])[0]
    return Outcome(
        choices=tuple(map(str, range(problem.layers.count))),
        grid=grid,
        layer=str(best),
        rate=float(counts[which]),
        valid_scores=np.array([grid[best, which]]),
        answers=out,
        mix=None,
        seconds=time.monotonic() - began,
    )


def _targets(problem: Problem) -> Float[np.ndarray, "n K"]:
    if problem.kind == "class":
        return (problem.labels[:, None] == np.arange(problem.outputs)).astype(np.float32)
    return problem.labels.astype(np.float32)


def _features(problem: Problem, layer: int, train: Int[np.ndarray, " T"]) -> Float[np.ndarray, "n D"]:
    """Of every unit: means over rows, standardised by training units, of length 1; zeros without rows."""
    values = problem.layers.layer(layer)
    total = np.zeros((len(problem.part), values.shape[1]), np.float32)
    for first in range(0, len(values), 1 << 14):
        np.add.at(total, problem.unit[first : first + (1 << 14)], values[first : first + (1 << 14)].astype(np.float32))
    means = total / np.maximum(np.bincount(problem.unit, minlength=len(total)), 1)[:, None]
    means = (means - means[train].mean(axis=0)) / np.maximum(means[train].std(axis=0), 1e-5)
    return means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)


def _answers(
    train: Float[np.ndarray, "T D"],
    known: Float[np.ndarray, "T K"],
    asked: Float[np.ndarray, "A D"],
    counts: list[int],
) -> list[Float[np.ndarray, "A K"]]:
    """For each k the mean of what is known of the k nearest."""
    out = [np.empty((len(asked), known.shape[1]), np.float32) for _ in counts]
    for first in range(0, len(asked), _BLOCK):
        likeness = asked[first : first + _BLOCK] @ train.T
        near = np.argpartition(-likeness, max(counts) - 1, axis=1)[:, : max(counts)]
        order = np.argsort(-np.take_along_axis(likeness, near, axis=1), axis=1, kind="stable")
        nearest = np.take_along_axis(near, order, axis=1)
        for answer, k in zip(out, counts, strict=True):
            answer[first : first + _BLOCK] = known[nearest[:, :k]].mean(axis=1)
    return out
