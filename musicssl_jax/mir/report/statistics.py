"""How sure a score is, and whether two differ: the bootstrap over songs, singers or instruments, and Holm's correction.

Test examples of one song are not independent, so whole groups are resampled (Davison and Hinkley 1997, section 3.8).
Results of the same examples are resampled together, which leaves of their difference only what they disagree on.
Percentiles of the draws of few groups lie too close together: of five singers without any difference, one in six would
be called significant. So percentiles further out are taken, as far as Student's t is beyond the normal distribution
(the expanded percentile interval: Hesterberg, "What teachers should know about the bootstrap", The American
Statistician 69, 2015); p values follow from the same correction.
"""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy import stats

from musicssl_jax.mir.metrics import weighted_main_score
from musicssl_jax.mir.report.results import TaskResult
from musicssl_jax.mir.tasks.catalogue import TASKS
from musicssl_jax.shapes import Float, Int, Shaped

DRAWS = 1000
LEVEL = 0.95
SIGNIFICANT = 0.05
_AT_ONCE = 100  # draws: bounds memory at 11,000 units


class Difference(NamedTuple):
    """b - a of the main metric. low, high: its interval of 95 %. p: two-sided, of no difference."""

    gain: float
    low: float
    high: float
    p: float


def interval(result: TaskResult) -> tuple[float, float]:
    """The 95 % bootstrap interval of the main metric, averaged over probe seeds.

    NaN: there is one group alone, or outputs are NaN.
    """
    return _ends(bootstrap(result), _groups(result))


def difference(a: TaskResult, b: TaskResult) -> Difference:
    """What `b` scores more than `a`, of the same draws for both.

    p follows from the share of draws on the other side of 0, counting one more than there are, so that it is never 0
    (Davison and Hinkley 1997, section 4.2.3). Raises ValueError: they cannot be compared.
    """
    reason = why_not_comparable(a, b)
    if reason:
        raise ValueError(f"{a.encoder.name} and {b.encoder.name} on {a.task}: {reason}")
    gains = bootstrap(b) - bootstrap(a)
    gains = gains[~np.isnan(gains)]
    gain = float(b.main_scores.mean() - a.main_scores.mean())
    if not len(gains) or np.isnan(gain):
        return Difference(gain, np.nan, np.nan, np.nan)
    beyond = min(np.sum(gains <= 0), np.sum(gains >= 0))
    groups = _groups(a)
    p = _two_sided((1 + beyond) / (1 + len(gains)), groups) if can_differ(groups) else np.nan
    return Difference(gain, *_ends(gains, groups), p)


def can_differ(groups: int) -> bool:
    """Whether so many groups can show a difference at all: of five singers even one that every draw agrees on has a p
    above SIGNIFICANT. Such tasks have no p, and Holm's correction does not count them."""
    return groups > 1 and _two_sided(1 / (1 + DRAWS), groups) < SIGNIFICANT


def why_not_comparable(a: TaskResult, b: TaskResult) -> str | None:
    """None: they are of the same task, protocol, split and examples."""
    if a.task != b.task:
        return f"tasks {a.task} and {b.task}"
    if a.protocol_id != b.protocol_id:
        return f"protocols {a.protocol_id} and {b.protocol_id}"
    if a.split_sha256 != b.split_sha256:
        return f"splits {a.split_sha256[:8]} and {b.split_sha256[:8]}"
    if not (np.array_equal(a.recording, b.recording) and np.array_equal(a.group, b.group)):
        return f"not the same test examples ({len(a.recording)} and {len(b.recording)})"
    return None


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p values (1979), in the order given: below 0.05, the chance of any false one of them is.

    NaN stays NaN, and does not count as a test.
    """
    p = np.asarray(p_values, np.float64)
    adjusted = np.full(len(p), np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    stepped = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return adjusted.tolist()


@cache
def bootstrap(result: TaskResult) -> Float[np.ndarray, "draws"]:
    """The main metric of resampled test examples, averaged over probe seeds. Kept, as it takes seconds.

    The same draws for the same groups. All NaN: there is one group alone, or outputs are NaN.
    """
    groups = np.unique(result.group, return_inverse=True)[1]
    values = result.f if result.outputs is None else result.outputs
    if groups.max(initial=0) == 0 or values is None or np.isnan(values).any():
        return np.full(DRAWS, np.nan)
    rng = np.random.default_rng(0)
    parts = [_scores(result, _weights(rng, groups, _AT_ONCE)) for _ in range(DRAWS // _AT_ONCE)]
    return np.concatenate(parts)


def _weights(rng: np.random.Generator, groups: Int[np.ndarray, "units"], draws: int) -> Int[np.ndarray, "draws units"]:
    """How often each unit is in a draw: as often as its group is."""
    count = int(groups.max()) + 1
    drawn = rng.integers(count, size=(draws, count))
    return np.stack([np.bincount(row, minlength=count) for row in drawn])[:, groups]


def _scores(result: TaskResult, weights: Int[np.ndarray, "draws units"]) -> Float[np.ndarray, "draws"]:
    if result.f is not None:
        return (weights @ result.f.T.astype(np.float64) / weights.sum(axis=1, keepdims=True)).mean(axis=1)
    assert result.outputs is not None
    task = TASKS[result.task]
    return np.mean([weighted_main_score(task, result.truth, seed, weights) for seed in result.outputs], axis=0)


def _groups(result: TaskResult) -> int:
    return len(np.unique(result.group))


def _ends(values: Shaped[np.ndarray, "draws"], groups: int) -> tuple[float, float]:
    """The interval of draws of so many groups."""
    if np.isnan(values).all():
        return np.nan, np.nan
    beyond = stats.norm.cdf(-_stretch(groups) * stats.t.ppf((1 + LEVEL) / 2, groups - 1))
    low, high = np.nanquantile(values, [beyond, 1 - beyond])
    return float(low), float(high)


def _two_sided(share: float, groups: int) -> float:
    """p where `share` of the draws lie on the other side: that of the interval which ends at 0."""
    return float(2 * stats.t.cdf(stats.norm.ppf(min(share, 0.5)) / _stretch(groups), groups - 1))


def _stretch(groups: int) -> float:
    """Draws of groups vary less than samples of them, as a variance over n varies less than one over n - 1."""
    return (groups / (groups - 1)) ** 0.5
