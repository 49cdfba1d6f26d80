"""Scores of the music tasks, as the papers define them, with the variants that papers differ by.

`score` gives all of a task, `main_score` the one that probes are chosen by, thousands of times, and
`weighted_main_score` the one of resampled examples.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import mir_eval
import numpy as np
from sklearn.metrics import average_precision_score, r2_score, roc_auc_score

from musicssl_jax.mir.tasks.task import Ensemble, Task
from musicssl_jax.shapes import Bool, Float, Int, Shaped

WINDOW = 0.07
"""Seconds between a beat and its estimate, at most (Davies, Degara and Plumbley 2009)."""

NARROW_WINDOW = 0.02
TRIMMED = 5.0
"""Seconds at the beginning of which beats are not scored: MIREX's, and mir_eval's."""

_FIFTH = 0.5
"""What a key a fifth off scores."""

Times = Sequence[Float[np.ndarray, "_"]]


def score(task: Task, truth: Any, outputs: Any) -> dict[str, float]:
    """All metrics of a task's kind, by name. n examples, K outputs:

    - "class": truth (n,) numbers, outputs (n, K), larger is likelier. `accuracy`, `balanced_accuracy` (mean recall of
      the classes in the truth). If the main metric is `weighted_score`, classes are keys ("C major"), and in place of
      the balanced accuracy there are MIREX's `weighted_score`, where a fifth above the truth scores half (MARBLE v1),
      and `weighted_score_descending`, where one below does too (MIREX since 2017).
    - "tags": truth (n, K) bool, outputs (n, K). `roc_auc`, `average_precision`: means over the `classes_scored`, those
      with positives and negatives; `roc_auc_tagged`, `average_precision_tagged`: of the examples with any tag (NaN:
      these leave no such class).
    - "numbers": truth, outputs (n, K). `r2`: the mean of `r2_NAME`.
    - "beats": truth, outputs: each track's times in seconds, rising. `f_measure`: mean over tracks, within 70 ms,
      without the first 5 s (as beat_this). `_20ms`: within 20 ms. `_untrimmed`: with the first 5 s. `f_measure_pooled`,
      `f_measure_pooled_20ms`: beats of all tracks in one count, untrimmed (MARBLE v1).

    Raises ValueError: no examples, outputs that are not finite, or no class with positives and negatives.
    """
    _check(task, truth, outputs)
    if not _finite(outputs):
        raise ValueError(f"{task.name}: outputs hold NaN or infinity")
    if task.kind == "beats":
        return _score_beats(truth, outputs)
    if task.kind == "tags":
        return _score_tags(truth, outputs)
    if task.kind == "numbers":
        each = np.atleast_1d(r2_score(truth, outputs, multioutput="raw_values"))
        named = {f"r2_{name}": float(r2) for name, r2 in zip(task.outputs, each, strict=True)}
        return {"r2": float(each.mean())} | named
    answers = outputs.argmax(axis=1)
    accuracy = {"accuracy": float(np.mean(answers == truth))}
    if task.metric == "weighted_score":
        return {
            "weighted_score": float(_key_scores(task.outputs, False)[truth, answers].mean()),
            "weighted_score_descending": float(_key_scores(task.outputs, True)[truth, answers].mean()),
        } | accuracy
    return accuracy | {"balanced_accuracy": _balanced_accuracy(truth, answers)}


def main_score(task: Task, truth: Any, outputs: Any) -> float:
    """`score(task, truth, outputs)[task.metric]`, quickly. -inf where outputs are not finite: never chosen.

    Raises ValueError: no examples, or no class with positives and negatives.
    """
    _check(task, truth, outputs)
    if not _finite(outputs):
        return -np.inf
    if task.kind == "tags":
        return float(np.mean([_roc_auc(truth[:, k], outputs[:, k]) for k in np.flatnonzero(_mixed(truth))]))
    if task.kind == "numbers":
        return float(r2_score(truth, outputs))
    return float(_example_scores(task, truth, outputs).mean())


def weighted_main_score(
    task: Task, truth: Any, outputs: Any, weights: Int[np.ndarray, "*draws examples"]
) -> Float[np.ndarray, "*draws"]:
    """The main score of examples taken `weights` times each, of every draw.

    NaN: a draw has no examples, or of tags no class with positives and negatives. Raises ValueError: outputs are not
    finite.
    """
    _check(task, truth, outputs)
    if not _finite(outputs):
        raise ValueError(f"{task.name}: outputs hold NaN or infinity")
    draws = weights.reshape(-1, weights.shape[-1])
    if task.kind == "tags":
        scores = _weighted_roc_auc(truth, outputs, draws)
    elif task.kind == "numbers":
        scores = _weighted_r2(truth, outputs, draws)
    else:
        scores = _mean_over(draws, _example_scores(task, truth, outputs))
    return scores.reshape(weights.shape[:-1])


def per_track_f(
    truth: Times, estimates: Times, *, window: float | int = WINDOW, trim: float | int = TRIMMED
) -> Float[np.ndarray, "tracks"]:
    """F-measure of each track's beats: within `window` seconds, without the first `trim` seconds.

    0 where there are no beats in the truth or in the estimate, as mir_eval has it.
    """
    hits, estimated, true = _counts(truth, estimates, window, trim).T
    return _f_measure(hits, estimated, true)


def ensemble(
    window_outputs: Float[np.ndarray, "rows outputs"],
    recording: Int[np.ndarray, "rows"],
    how: Ensemble,
) -> Float[np.ndarray, "recordings outputs"]:
    """Outputs of recordings, by rising number, from probabilities of their windows.

    mean, gmean: of the probabilities, arithmetic and geometric (that of logits, but for a factor). max: the highest of
    each class. vote: share of windows that answer so; among equals the mean decides.
    """
    groups = np.unique(recording, return_inverse=True)[1]
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    counts = np.bincount(groups)[:, None]

    def mean(values: np.ndarray) -> np.ndarray:
        return np.add.reduceat(values[order], starts) / counts

    if how == "mean":
        return mean(window_outputs)
    if how == "gmean":
        return np.exp(mean(np.log(np.maximum(window_outputs, np.finfo(np.float32).tiny))))
    if how == "max":
        return np.maximum.reduceat(window_outputs[order], starts)
    votes = np.eye(window_outputs.shape[1])[window_outputs.argmax(axis=1)]
    decisive = 1 / (2 * counts.max())  # means that differ by 1 are still less than a vote
    return (mean(votes) + decisive * mean(window_outputs)) / (1 + decisive)


def _check(task: Task, truth: Any, outputs: Any) -> None:
    if len(truth) != len(outputs) or not len(truth):
        raise ValueError(f"{task.name}: {len(truth)} labels and {len(outputs)} outputs cannot be scored")
    if task.kind == "tags" and not _mixed(truth).any():
        raise ValueError(f"{task.name}: no class has positives and negatives")


def _finite(outputs: Any) -> bool:
    return all(np.isfinite(part).all() for part in ([outputs] if isinstance(outputs, np.ndarray) else outputs))


def _example_scores(task: Task, truth: Any, outputs: Any) -> Float[np.ndarray, "examples"]:
    """What the main metric is the mean of."""
    if task.kind == "beats":
        return per_track_f(truth, outputs)
    answers = outputs.argmax(axis=1)
    if task.metric == "weighted_score":
        return _key_scores(task.outputs, False)[truth, answers]
    return (answers == truth).astype(np.float64)


def _mean_over(draws: np.ndarray, scores: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return draws @ scores / draws.sum(axis=1)


def _weighted_r2(truth: np.ndarray, outputs: np.ndarray, draws: np.ndarray) -> Float[np.ndarray, "draws"]:
    """`r2_score` of every draw at once; as there, a truth that does not vary scores 1 where it is met, else 0."""
    truth, outputs = truth.astype(np.float64), outputs.astype(np.float64)
    count = draws.sum(axis=1, keepdims=True)
    centred = truth - truth.mean(axis=0)  # the variance of a draw is a difference of squares
    with np.errstate(invalid="ignore", divide="ignore"):
        total = draws @ centred**2 - (draws @ centred) ** 2 / count
        varies = total > 1e-12 * (draws @ centred**2)
        residual = draws @ (truth - outputs) ** 2
        scores = np.where(varies, 1 - residual / total, residual == 0).mean(axis=1)
    return np.where(count[:, 0] > 1, scores, np.nan)


@lru_cache
def _key_scores(keys: tuple[str, ...], descending: bool) -> Float[np.ndarray, "true answered"]:
    # mir_eval 0.8 counts ascending fifths alone, and has no option; its default is to change. Hence not left to it.
    scores = np.array([[mir_eval.key.weighted_score(true, answer) for answer in keys] for true in keys], np.float64)
    fifths = (scores == _FIFTH) | (scores.T == _FIFTH)
    tonics = np.array([mir_eval.key.split_key_string(key)[0] for key in keys])
    above = (tonics - tonics[:, None]) % 12 == 7
    return np.where(fifths, _FIFTH * (above | descending), scores)


def _balanced_accuracy(truth: np.ndarray, answers: np.ndarray) -> float:
    return float(np.mean([np.mean(answers[truth == k] == k) for k in np.unique(truth)]))


def _mixed(truth: Bool[np.ndarray, "examples classes"]) -> Bool[np.ndarray, "classes"]:
    """Classes with positives and negatives."""
    return np.asarray(truth.any(axis=0) & ~truth.all(axis=0))


def _score_tags(truth: np.ndarray, outputs: np.ndarray) -> dict[str, float]:
    scores = {"classes_scored": float(_mixed(truth).sum())}
    for suffix, examples in (("", slice(None)), ("_tagged", truth.any(axis=1))):
        part = truth[examples]
        classes = _mixed(part)
        for name, metric in (("roc_auc", roc_auc_score), ("average_precision", average_precision_score)):
            given = part[:, classes], outputs[examples][:, classes]
            scores[name + suffix] = float(metric(*given)) if classes.any() else np.nan
    return scores


def _roc_auc(positive: Bool[np.ndarray, "examples"], output: Shaped[np.ndarray, "examples"]) -> float:
    """Probability that a positive is above a negative; equals count half."""
    above, below = np.sort(output[positive]), np.sort(output[~positive])
    won = np.searchsorted(below, above, "left").sum() + np.searchsorted(below, above, "right").sum()
    return won / (2 * len(above) * len(below))


def _weighted_roc_auc(truth: np.ndarray, outputs: np.ndarray, draws: np.ndarray) -> Float[np.ndarray, "draws"]:
    total, classes = np.zeros(len(draws)), np.zeros(len(draws))
    for positive, output in zip(truth.T, outputs.T, strict=True):
        above, below = np.flatnonzero(positive), np.flatnonzero(~positive)
        below = below[np.argsort(output[below])]
        lower, upper = (np.searchsorted(output[below], output[above], side) for side in ("left", "right"))
        for draw, weights in enumerate(draws):
            up_to = np.concatenate([[0], np.cumsum(weights[below])])
            pairs = weights[above].sum() * up_to[-1]
            if pairs:
                total[draw] += weights[above] @ (up_to[lower] + up_to[upper]) / (2 * pairs)
                classes[draw] += 1
    with np.errstate(invalid="ignore"):
        return total / classes


def _score_beats(truth: Times, estimates: Times) -> dict[str, float]:
    scores = {}
    for within, window in (("", WINDOW), ("_20ms", NARROW_WINDOW)):
        untrimmed = _counts(truth, estimates, window, 0.0)
        scores[f"f_measure{within}"] = float(per_track_f(truth, estimates, window=window).mean())
        scores[f"f_measure{within}_untrimmed"] = float(_f_measure(*untrimmed.T).mean())
        scores[f"f_measure_pooled{within}"] = float(_f_measure(*untrimmed.sum(axis=0)[:, None])[0])
    return scores


def _counts(truth: Times, estimates: Times, window: float | int, trim: float | int) -> Int[np.ndarray, "tracks 3"]:
    """Beats that match one to one, beats estimated, beats in the truth."""
    counts = []
    for times, estimate in zip(truth, estimates, strict=True):
        times, estimate = (mir_eval.beat.trim_beats(np.asarray(t), min_beat_time=trim) for t in (times, estimate))
        hits = len(mir_eval.util.match_events(times, estimate, window)) if len(times) and len(estimate) else 0
        counts.append((hits, len(estimate), len(times)))
    return np.array(counts, np.int64)


def _f_measure(
    hits: Int[np.ndarray, "tracks"], estimated: Int[np.ndarray, "tracks"], true: Int[np.ndarray, "tracks"]
) -> Float[np.ndarray, "tracks"]:
    return 2 * hits / np.maximum(estimated + true, 1)
