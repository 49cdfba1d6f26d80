"""A table of probe scores, one row a representation, one column a task: as text, JSON and a picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from musicssl_jax.mir.probes import ProbeResult, difference

matplotlib.use("Agg")
import matplotlib.pyplot as plt

Table = Mapping[str, Mapping[str, ProbeResult]]
"""task -> representation -> result"""


def format_table(table: Table) -> str:
    """Scores with their 95% intervals."""
    rows = list(next(iter(table.values())))
    width = max(map(len, rows))
    cells = {task: {name: _cell(results[name]) for name in rows} for task, results in table.items()}
    widths = {task: max(len(task), *map(len, column.values())) for task, column in cells.items()}
    lines = ["  ".join([" " * width, *(task.ljust(widths[task]) for task in cells)]).rstrip()]
    lines += [
        "  ".join([name.ljust(width), *(column[name].ljust(widths[task]) for task, column in cells.items())]).rstrip()
        for name in rows
    ]
    return "\n".join(lines)


def gain_lines(table: Table, ours: str, theirs: str) -> list[str]:
    """For every task what `ours` gained over `theirs`, and whether that can be told from nothing."""
    lines = []
    for task, results in table.items():
        gain, low, high = difference(results[ours], results[theirs])
        verdict = f"gain over {theirs}" if low > 0 else f"worse than {theirs}" if high < 0 else f"no gain over {theirs}"
        lines.append(f"{task}: {verdict} ({gain:+.2f}, 95% interval {low:+.2f} to {high:+.2f})")
    return lines


def to_json(table: Table) -> dict[str, dict[str, dict[str, Any]]]:
    """Plain values: score, interval and what was chosen on validation."""
    return {
        task: {
            name: {
                "score": result.score,
                "interval": list(result.interval),
                "layer": result.layer,
                "penalty": result.penalty,
                "valid_score": result.valid_score,
                "valid_score_by_layer": list(result.valid_score_by_layer),
            }
            for name, result in results.items()
        }
        for task, results in table.items()
    }


def draw_table(table: Table, path: Path, title: str) -> None:
    """A panel a task, a bar a representation, with intervals; the last representation (chance) is a dashed line."""
    *rows, chance = next(iter(table.values()))
    lowest = min(0, *(result.interval[0] for results in table.values() for result in results.values()))
    figure, panels = plt.subplots(1, len(table), figsize=(3 * len(table), 4), sharey=True, layout="constrained")
    for panel, (task, results) in zip(np.atleast_1d(panels), table.items(), strict=True):
        scores = np.array([results[name].score for name in rows])
        intervals = np.array([results[name].interval for name in rows]).T
        errors = np.abs(intervals - scores)
        colours = ["tab:blue" if f"{name}, step 0" in rows else "tab:grey" for name in rows]
        panel.bar(rows, scores, yerr=errors, capsize=3, color=colours)
        panel.axhline(results[chance].score, color="black", linestyle="--", linewidth=1, label=chance)
        panel.set_title(task, fontsize=10)
        panel.set_ylim(lowest, 1)
        panel.tick_params(axis="x", labelrotation=90, labelsize=8)
    np.atleast_1d(panels)[0].legend(fontsize=8, frameon=False)
    np.atleast_1d(panels)[0].set_ylabel("test score")
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _cell(result: ProbeResult) -> str:
    low, high = result.interval
    return f"{result.score:.2f} [{low:.2f} {high:.2f}]"
