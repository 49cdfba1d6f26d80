"""Linear probes of frozen features.

Tracks are split into train, validation and test; layer and penalty are chosen by the validation score alone, the
probe is then fitted on train and validation together, and the test part is read once. Windows of one track are
alike, so that splits and bootstrap intervals go by track (`groups`), never by window.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from sklearn.preprocessing import StandardScaler

from musicssl_jax.shapes import Bool, Float, Int, Shaped

PENALTIES = tuple(10.0 ** np.arange(5, -2, -1))
"""Strongest first: of equally good settings the most regular one is taken."""

Score = Callable[[np.ndarray, np.ndarray], float]


class Parts(NamedTuple):
    """Which windows are fitted, which choose the settings, and which give the score."""

    train: Bool[np.ndarray, "windows"]
    valid: Bool[np.ndarray, "windows"]
    test: Bool[np.ndarray, "windows"]


@dataclass(frozen=True)
class Task:
    """What is asked of the features.

    `kind` "class": labels are names or numbers of classes; "number": labels are real numbers.
    `score(truth, predicted)` is better when higher. With `per_group`, a group has one label: the outputs of its
    windows are averaged before the decision and groups are scored, not windows.
    """

    name: str
    labels: Shaped[np.ndarray, "windows"]
    groups: Shaped[np.ndarray, "windows"]
    kind: Literal["class", "number"]
    score: Score
    per_group: bool = False


@dataclass(frozen=True)
class ProbeResult:
    """The test score of the chosen probe, with the bootstrap draws that its interval comes from."""

    score: float
    draws: Float[np.ndarray, "draws"]
    layer: int
    penalty: float
    valid_score: float
    valid_score_by_layer: tuple[float, ...]

    @property
    def interval(self) -> tuple[float, float]:
        """Of 95%."""
        return percentile_interval(self.draws)


def accuracy(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Share of equal labels."""
    return float(np.mean(truth == predicted))


def split_by_group(groups: Shaped[np.ndarray, "windows"], *, valid: float, test: float, seed: int) -> Parts:
    """Every group falls into one part as a whole; `valid` and `test` are shares of the groups."""
    names = np.random.default_rng(seed).permutation(np.unique(groups))
    in_test, in_valid = np.split(names, [first := round(test * len(names)), first + round(valid * len(names))])[:2]
    test_windows, valid_windows = np.isin(groups, in_test), np.isin(groups, in_valid)
    return Parts(~test_windows & ~valid_windows, valid_windows, test_windows)


def probe(
    features: Float[np.ndarray, "layers windows dims"], task: Task, parts: Parts, *, seed: int = 0
) -> ProbeResult:
    """Score of a linear probe (least squares with a ridge penalty, one output per class) on the test part.

    `seed` is that of the bootstrap: results of the same task and parts have paired draws.
    """
    chosen_on = [
        [task.score(a.truth, a.predicted) for a in _answers(layer, task, parts.train, parts.valid, PENALTIES)]
        for layer in features
    ]
    layer, which = np.unravel_index(np.argmax(chosen_on), np.shape(chosen_on))
    fitted = parts.train | parts.valid
    [test] = _answers(features[layer], task, fitted, parts.test, PENALTIES[which : which + 1])
    return ProbeResult(
        score=task.score(test.truth, test.predicted),
        draws=bootstrap_by_group(
            lambda rows: task.score(test.truth[rows], test.predicted[rows]), test.groups, seed=seed
        ),
        layer=int(layer),
        penalty=PENALTIES[which],
        valid_score=chosen_on[layer][which],
        valid_score_by_layer=tuple(max(scores) for scores in chosen_on),
    )


def difference(ours: ProbeResult, theirs: ProbeResult) -> tuple[float, float, float]:
    """Difference of two scores of the same task and parts, and its 95% interval from the paired draws."""
    return ours.score - theirs.score, *percentile_interval(ours.draws - theirs.draws)


def bootstrap_by_group(
    score: Callable[[Int[np.ndarray, "rows"]], float],
    groups: Shaped[np.ndarray, "rows"],
    *,
    draws: int = 1000,
    seed: int = 0,
) -> Float[np.ndarray, "draws"]:
    """Scores of resampled test sets: as many groups as there are, drawn with replacement, with all their rows."""
    members = [np.flatnonzero(groups == name) for name in np.unique(groups)]
    chosen = np.random.default_rng(seed).integers(len(members), size=(draws, len(members)))
    return np.array([score(np.concatenate([members[i] for i in row])) for row in chosen])


def percentile_interval(draws: Float[np.ndarray, "draws"], level: float = 0.95) -> tuple[float, float]:
    """The middle `level` of the draws."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


class _Answers(NamedTuple):
    """A probe's predictions beside the truth: a row is a window, or a group if groups are scored."""

    truth: Shaped[np.ndarray, "rows"]
    predicted: Shaped[np.ndarray, "rows"]
    groups: Shaped[np.ndarray, "rows"]


def _answers(
    features: Float[np.ndarray, "windows dims"],
    task: Task,
    fit_on: Bool[np.ndarray, "windows"],
    predict_on: Bool[np.ndarray, "windows"],
    penalties: Sequence[float],
) -> list[_Answers]:
    """What probes with each penalty answer on `predict_on`, whose labels they do not see."""
    labels = task.labels[fit_on]
    classes = np.unique(labels)
    targets = (labels[:, None] == classes) if task.kind == "class" else labels[:, None]
    truth, groups = task.labels[predict_on], task.groups[predict_on]
    fits = ridge_outputs(features[fit_on], targets.astype(float), features[predict_on], penalties)
    if task.per_group:
        groups, first, member = np.unique(groups, return_index=True, return_inverse=True)
        fits = [np.stack([out[member == i].mean(axis=0) for i in range(len(groups))]) for out in fits]
        truth = truth[first]
    if task.kind == "class":
        return [_Answers(truth, classes[out.argmax(axis=1)], groups) for out in fits]
    return [_Answers(truth, out[:, 0], groups) for out in fits]


def ridge_outputs(
    features: Float[np.ndarray, "fitted dims"],
    targets: Float[np.ndarray, "fitted outputs"],
    asked: Float[np.ndarray, "asked dims"],
    penalties: Sequence[float],
) -> list[Float[np.ndarray, "asked outputs"]]:
    """Ridge regression on standardised features with an intercept, for all penalties from one decomposition."""
    scaler = StandardScaler().fit(features.astype(np.float64))
    fitted, centred = scaler.transform(features), targets - targets.mean(axis=0)
    # The smaller of the two products of the features with themselves: penalties keep it from being singular.
    if fitted.shape[0] > fitted.shape[1]:
        values, vectors = np.linalg.eigh(fitted.T @ fitted)
        along, projected = vectors.T @ (fitted.T @ centred), scaler.transform(asked) @ vectors
    else:
        values, vectors = np.linalg.eigh(fitted @ fitted.T)
        along, projected = vectors.T @ centred, scaler.transform(asked) @ (fitted.T @ vectors)
    values = np.maximum(values, 0)
    return [projected @ (along / (values + p)[:, None]) + targets.mean(axis=0) for p in penalties]
