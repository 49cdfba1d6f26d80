"""Pictures of results: layers by tasks, learned weights, who was taken for whom, and scores with their intervals."""

import io
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from musicssl_jax.mir.report.results import WEIGHTED, TaskResult
from musicssl_jax.mir.report.tables import NOT_A_NUMBER, Table, shortened_name
from musicssl_jax.mir.tasks.catalogue import TASKS
from musicssl_jax.shapes import Float

BLUE, GREY, DARK = "#2f6db5", "#8a8f98", "#1f2430"
NOTHING = "#e4e6ea"
MANY_CLASSES = 30  # too many to write their counts into the picture
TICKS = 16  # of an axis with many classes, at most
PANELS = 3  # of score bars side by side


def png(figure: Figure) -> bytes:
    """The picture as a file's content."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def layer_heatmap(results: Sequence[TaskResult]) -> Figure | None:
    """One encoder's best validation score of each layer choice, coloured from the task's worst to its best.

    Framed: the layer chosen. None: no task has more than one layer.
    """
    shown = [r for r in results if len(r.layer_scores_valid.get(r.main_network, ())) > 1]
    if not shown:
        return None
    columns = _layer_columns(shown)
    scores = np.full((len(shown), len(columns)), np.nan)
    for row, result in zip(scores, shown, strict=True):
        valid = result.layer_scores_valid[result.main_network]
        for name, score in zip(result.layer_names, valid, strict=False):
            row[columns.index(name)] = score
    figure, axes = _matrix_figure(len(shown), len(columns))
    _heat(axes, _scaled(scores), scores, [r.task for r in shown], columns, fmt=lambda v: f"{100 * v:.1f}")
    for y, result in enumerate(shown):
        if result.main_network in result.chosen:
            x = columns.index(result.chosen[result.main_network].layer)
            axes.add_patch(_frame(x, y))
    axes.set_xlabel("layer (0: before the first block; weighted: a learned mean)")
    axes.set_title(f"{shown[0].encoder.name}\nvalidation score in percent, framed: chosen", loc="left")
    return figure


def layer_weights(results: Sequence[TaskResult]) -> Figure | None:
    """One encoder's learned weights of layers. None: no task has any."""
    shown = [r for r in results if r.layer_weights is not None]
    if not shown:
        return None
    columns = [name for name in _layer_columns(shown) if name != WEIGHTED]
    weights = np.full((len(shown), len(columns)), np.nan)
    for row, result in zip(weights, shown, strict=True):
        assert result.layer_weights is not None
        layers = [name for name in result.layer_names if name != WEIGHTED][-len(result.layer_weights) :]
        for name, weight in zip(layers, result.layer_weights, strict=True):
            row[columns.index(name)] = weight
    figure, axes = _matrix_figure(len(shown), len(columns))
    scale = np.nanmax(weights, initial=1e-9, where=~np.isnan(weights))
    _heat(axes, weights / scale, weights, [r.task for r in shown], columns, fmt=lambda v: f"{100 * v:.0f}")
    axes.set_xlabel("layer")
    axes.set_title(f"{shown[0].encoder.name}\nlearned weights in percent", loc="left")
    return figure


def confusion(result: TaskResult) -> Figure | None:
    """Shares of each true class; counts are written in where there are few classes. Grey: the class is not in the test
    part. None: the task has no classes."""
    if result.confusion is None:
        return None
    counts = np.asarray(result.confusion, np.float64)
    names, classes = result.output_names, len(counts)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.where(totals > 0, counts / np.maximum(totals, 1), np.nan)
    few = classes <= MANY_CLASSES
    inches = max(4.2, 0.36 * classes) if few else 8.4
    figure = Figure(figsize=(inches + 2.2, inches + 1.6), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(shares, cmap=_colours(), vmin=0, vmax=1, interpolation="nearest")
    ticks = np.arange(classes) if few else np.arange(0, classes, int(np.ceil(classes / TICKS)))
    axes.set_xticks(ticks, [names[i] for i in ticks], rotation=90)
    axes.set_yticks(ticks, [names[i] for i in ticks])
    if few:
        for y, x in np.argwhere(counts > 0).tolist():
            _write(axes, x, y, f"{counts[y, x]:.0f}", float(shares[y, x]), size=7)
    axes.set_xlabel("answered")
    axes.set_ylabel("true")
    axes.set_title(f"{result.encoder.name}\n{result.task}", loc="left")
    return figure


def score_bars(table: Table) -> Figure:
    """The main metric of all encoders, a panel for each task; lines: the bootstrap interval."""
    rows, panels = len(table.rows), max(1, len(table.tasks))
    across = min(PANELS, panels)
    down = -(-panels // across)
    figure = Figure(figsize=(4.2 * across, down * (0.9 + 0.28 * rows)), layout="constrained")
    grid = np.atleast_1d(np.array(figure.subplots(down, across, squeeze=False))).ravel()
    for i, axes in enumerate(grid):
        if i >= len(table.tasks):
            axes.set_axis_off()
            continue
        _bars(axes, table, table.tasks[i])
        if i % across == 0:
            axes.set_yticks(range(rows), [shortened_name(row.name) for row in table.rows])
        else:
            axes.set_yticks([])
    return figure


def _bars(axes: Axes, table: Table, task: str) -> None:
    lowest, highest = 0.0, 0.0
    for y, row in enumerate(table.rows):
        cell = row.cells.get(task)
        if cell is None or np.isnan(cell.mean):
            axes.text(0, y, f" {NOT_A_NUMBER}", va="center", color=GREY)
            continue
        plain = row.results[task].encoder.kind in ("random", "baseline")
        mean, low, high = (100 * value for value in (cell.mean, cell.low, cell.high))
        axes.barh(y, mean, color=GREY if plain else BLUE, height=0.66)
        if not np.isnan(low):
            axes.plot([low, high], [y, y], color=DARK, linewidth=1.4)
        end = max(v for v in (mean, high, 0.0) if not np.isnan(v))
        axes.text(end, y, f"  {mean:.1f}{cell.marks}", va="center", fontsize=8)
        lowest, highest = min(lowest, mean if np.isnan(low) else low), max(highest, end)
    right = max(1.0, 1.25 * highest)
    axes.set_xlim(max(1.05 * lowest, -right / 2), right)  # an R2 far below 0 would leave no room for the others
    axes.set_ylim(len(table.rows) - 0.5, -0.5)
    axes.set_title(f"{task}: {TASKS[task].metric}", loc="left", fontsize=10)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.axvline(0, color=GREY, linewidth=0.8)


def _layer_columns(results: Sequence[TaskResult]) -> list[str]:
    """Layers of all tasks, "weighted" last."""
    names = list(dict.fromkeys(name for result in results for name in result.layer_names))
    return sorted(names, key=lambda name: name == WEIGHTED)


def _scaled(scores: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "rows columns"]:
    """0: the worst of its row, 1: the best."""
    known = np.isfinite(scores)
    low = np.min(scores, axis=1, keepdims=True, initial=np.inf, where=known)
    high = np.max(scores, axis=1, keepdims=True, initial=-np.inf, where=known)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(high > low, (scores - low) / (high - low), np.where(known, 1.0, np.nan))


def _matrix_figure(rows: int, columns: int) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(2.4 + max(4.0, 0.62 * columns), 1.4 + 0.36 * rows), layout="constrained")
    return figure, figure.add_subplot()


def _heat(
    axes: Axes,
    shades: Float[np.ndarray, "rows columns"],
    values: Float[np.ndarray, "rows columns"],
    rows: Sequence[str],
    columns: Sequence[str],
    fmt: Callable[[float], str],
) -> None:
    axes.imshow(shades, cmap=_colours(), vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0)
    for (y, x), value in np.ndenumerate(values):
        if np.isfinite(value):
            _write(axes, x, y, fmt(value), float(shades[y, x]), size=8)


def _write(axes: Axes, x: int, y: int, text: str, shade: float, size: int) -> None:
    axes.text(x, y, text, ha="center", va="center", fontsize=size, color="white" if shade > 0.55 else DARK)


def _frame(x: int, y: int) -> Rectangle:
    return Rectangle((x - 0.47, y - 0.45), 0.94, 0.9, fill=False, edgecolor="#e07b28", linewidth=2)


def _colours() -> Colormap:
    return colormaps["Blues"].with_extremes(bad=NOTHING)
