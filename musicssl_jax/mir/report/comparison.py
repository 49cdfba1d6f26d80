"""Who is better than whom: paired differences between encoders, corrected over tasks."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from musicssl_jax.mir.report.results import TaskResult
from musicssl_jax.mir.report.statistics import SIGNIFICANT, Difference, can_differ, difference, holm, why_not_comparable
from musicssl_jax.mir.report.tables import contamination_mark
from musicssl_jax.mir.tasks.catalogue import TASKS


class Compared(NamedTuple):
    """One task of a pair. p_holm: adjusted over the pair's tasks. refused: why there is no difference."""

    task: str
    a: TaskResult
    b: TaskResult
    difference: Difference | None
    p_holm: float
    refused: str | None

    @property
    def significant(self) -> bool:
        return self.p_holm < SIGNIFICANT

    @property
    def undecidable(self) -> str:
        """Why no difference, however large, could be called significant; "": it could."""
        groups = len(np.unique(self.a.group))
        return "" if can_differ(groups) else f"{groups} groups: too few to tell"


class Pair(NamedTuple):
    """What `b` has more than `a`, on the tasks that both have."""

    a: str
    b: str
    tasks: tuple[Compared, ...]


def compare_pairs(by_name: Mapping[str, Mapping[str, TaskResult]]) -> list[Pair]:
    """All pairs of names. by_name: name -> task -> result."""
    return [_pair(a, b, by_name[a], by_name[b]) for a, b in itertools.combinations(by_name, 2)]


def by_task(results: Sequence[TaskResult]) -> dict[str, TaskResult]:
    return {result.task: result for result in results}


def to_json(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """Fractions; null for what is not known."""
    return [
        {"a": pair.a, "b": pair.b, "task": row.task}
        | {name: _finite(value) for name, value in (row.difference._asdict() if row.difference else {}).items()}
        | {"p_holm": _finite(row.p_holm), "significant": row.significant, "refused": row.refused}
        | {"marks": [contamination_mark(row.a), contamination_mark(row.b)]}
        for pair in pairs
        for row in pair.tasks
    ]


def _pair(name_a: str, name_b: str, a: Mapping[str, TaskResult], b: Mapping[str, TaskResult]) -> Pair:
    shared = [task for task in TASKS if task in a and task in b]
    reasons = [why_not_comparable(a[task], b[task]) for task in shared]
    differences = [
        None if reason else difference(a[task], b[task]) for task, reason in zip(shared, reasons, strict=True)
    ]
    adjusted = holm([d.p if d else np.nan for d in differences])
    rows = zip(shared, differences, adjusted, reasons, strict=True)
    return Pair(name_a, name_b, tuple(Compared(t, a[t], b[t], d, p, reason) for t, d, p, reason in rows))


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
