"""Ours beside a peer: the peer's best setting, rounds of both, and their table.

A side's module serves `work(number, **setting)`, which returns figures of one piece of work with `seconds` among them,
and `memory()`.
"""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.machine import cores
from benchmarks.turns import Side, turns
from musicssl_jax.errors import UserError

Row = Mapping[str, Any]
Setting = dict[str, Any]
Columns = Mapping[str, Callable[[Row, str], str]]
"""By title, the cell of a row of results and the name of a side."""

ALLOCATOR = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "-1"}
"""Environment of a peer: freed memory is kept, as our training keeps it. PyTorch is the faster for it."""


def need(peer: str, packages: Sequence[str]) -> None:
    """UserError: the peer's packages are not installed."""
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise UserError(
            f"--peer={peer}: {' and '.join(missing)} missing; install {' and '.join(packages)}, or take --peer=none"
        )


def thread_counts() -> list[int]:
    """What a peer tries on a CPU: 1, 2 and all."""
    return sorted({1, min(2, cores()), cores()})


def tried(start: Callable[[], Side], settings: Sequence[Setting], runs: int) -> list[Setting]:
    """Each setting with its least `seconds` of so many runs, or why it `failed`.

    Each has a process of its own, so that the memory of one is not another's.
    """
    results = []
    for setting in settings:
        side = start()
        try:
            took = [side.ask("work", number=0, **setting)["seconds"] for _ in range(runs)]
            results.append(setting | {"seconds": min(took)})
        except UserError as error:
            results.append(setting | {"failed": str(error)})
        side.close()
    return results


def best_of(settings: Sequence[Setting]) -> Setting:
    """The fastest of those that were tried, without its time. UserError: all failed."""
    working = [setting for setting in settings if "seconds" in setting]
    if not working:
        raise UserError(f"no setting of the peer works: {settings[0]['failed']}")
    best = min(working, key=lambda setting: setting["seconds"])
    return {name: value for name, value in best.items() if name != "seconds"}


def rounds(
    sides: Mapping[str, Callable[[int], Mapping[str, float]]], repeats: int
) -> dict[str, dict[str, list[float]]]:
    """By figure and side, what each says of number 0, 1, ..."""
    said: dict[str, list[Mapping[str, float]]] = {name: [] for name in sides}
    names = list(sides)
    for turn, place in turns(len(sides), repeats):
        said[names[place]].append(sides[names[place]](turn))
    figures = said[names[0]][0]
    return {figure: {name: [one[figure] for one in said[name]] for name in names} for figure in figures}


def beside(
    ours: Side,
    peer: str,
    start: Callable[[], Side] | None,
    settings: Sequence[Setting],
    repeats: int,
    *,
    warm: bool = True,
) -> dict[str, Any]:
    """Figures and memory of ours and of the peer in the best of its settings.

    peer: its name. start: makes a prepared side of it; None: no peer. warm: each works once before it is timed. All
    sides are closed.
    """
    row: dict[str, Any] = {}
    sides: dict[str, tuple[Side, Setting]] = {"ours": (ours, {})}
    if start:
        row["tried"] = tried(start, settings, runs=3 if warm else 1)
        row["best"] = best_of(row["tried"])
        sides[peer] = start(), row["best"]
    works = {name: asking(*side) for name, side in sides.items()}
    for work in works.values() if warm else ():
        work(0)
    row |= rounds(works, repeats)
    row["memory"] = {name: side.ask("memory") for name, (side, _) in sides.items()}
    for side, _ in sides.values():
        side.close()
    return row


def asking(side: Side, setting: Setting) -> Callable[[int], Mapping[str, float]]:
    """A side's work of a number."""
    return lambda number: side.ask("work", number=number, **setting)


class Ratio(NamedTuple):
    """Of medians, and quartiles of the ratios in each turn."""

    value: float
    low: float
    high: float
    turns: int

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f} {self.high:.2f}]"

    def line(self, what: str) -> str:
        return (
            f"ratio {self.value:.2f} ({what}, of medians of {self.turns}; quartiles {self.low:.2f} and {self.high:.2f})"
        )


def ratio(above: Sequence[float], below: Sequence[float]) -> Ratio:
    """Of what was measured in the same turns."""
    low, high = np.quantile(np.divide(above, below), (0.25, 0.75))
    return Ratio(float(np.median(above) / np.median(below)), float(low), float(high), len(above))


def table(rows: Sequence[Row], columns: Columns, figure: str = "seconds") -> str:
    """A line for each side of each row. figure: one that names the sides."""
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    lines += [f"| {' | '.join(cell(row, name) for cell in columns.values())} |" for row in rows for name in row[figure]]
    return "\n".join(lines)


def each(figure: str, form: str = ".3g") -> Callable[[Row, str], str]:
    """The column of all that was measured."""
    return lambda row, name: ", ".join(format(value, form) for value in row[figure][name])


def median(figure: str, form: str = ".3g") -> Callable[[Row, str], str]:
    """The column of its medians."""
    return lambda row, name: format(float(np.median(row[figure][name])), form)


def memory(row: Row, name: str) -> str:
    """The column of peak memory, GiB."""
    return f"{row['memory'][name] / 2**30:.2f}"


def mfu(row: Row, name: str) -> str:
    """The column of the share of the device's peak."""
    return f"{_rate(row, name) / row['peak']:.1%}"


def gflops(row: Row, name: str) -> str:
    """The column of GFLOP/s."""
    return f"{_rate(row, name) / 1e9:.3g}"


def _rate(row: Row, name: str) -> float:
    return row["flops"] / float(np.median(row["seconds"][name]))


def verdict(row: Row, peer: str) -> str:
    """The ratio, and what the peer tried; nothing without a peer."""
    if peer not in row["seconds"]:
        return ""
    return "\n".join(
        [
            ratio(row["seconds"][peer], row["seconds"]["ours"]).line("ours/peer throughput"),
            *(setting_line(setting) for setting in row["tried"]),
        ]
    )


def setting_line(setting: Setting) -> str:
    """A setting that was tried, and what came of it."""
    how = ", ".join(f"{name} {value}" for name, value in setting.items() if name not in ("seconds", "failed"))
    result = f"{setting['seconds']:.3g} s" if "seconds" in setting else f"failed: {setting['failed']}"
    return f"peer, {how}: {result}"
