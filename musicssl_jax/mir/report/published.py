"""Published rows, to stand beside ours: `published.json` has the figures and where each was printed."""

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any, NamedTuple


class PublishedRow(NamedTuple):
    """scores, spread: task -> metric -> percent, as printed; spread where the authors give one.

    Of beats there is `f1`, no metric of ours by name, as it is not clear which one was printed.
    """

    model: str
    source: str
    scores: Mapping[str, Mapping[str, float]]
    spread: Mapping[str, Mapping[str, float]] = {}
    note: str = ""


def published_rows() -> list[PublishedRow]:
    """In the order of their sources."""
    sources = _content()["sources"]
    return [PublishedRow(**row | {"source": sources[row["source"]]}) for row in _content()["rows"]]


def published_notes() -> list[str]:
    """What must be said wherever the rows are shown."""
    return [_content()[name] for name in ("note", "not_obtained", "beats_note", "emotion_note")]


def printed_main_score(row: PublishedRow, task: str, metric: str) -> float | None:
    """The figure that stands in our table's column, in percent; None: there is none.

    Where emotions are printed one by one, their mean, which is what our main metric is; F1 for beats.
    """
    scores = row.scores.get(task, {})
    if metric in scores:
        return scores[metric]
    parts = [value for name, value in scores.items() if name.startswith(f"{metric}_") or name == "f1"]
    return sum(parts) / len(parts) if parts else None


@cache
def _content() -> dict[str, Any]:
    return json.loads(resources.files(__package__).joinpath("published.json").read_text(encoding="utf-8"))
