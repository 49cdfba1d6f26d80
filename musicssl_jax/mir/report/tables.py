"""The table of all tasks: rows are encoders, columns tasks, published rows below; as Markdown, CSV and text."""

import csv
import io
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from musicssl_jax.errors import UserError
from musicssl_jax.mir.report.published import PublishedRow, printed_main_score, published_notes, published_rows
from musicssl_jax.mir.report.results import TaskResult
from musicssl_jax.mir.report.statistics import DRAWS, interval
from musicssl_jax.mir.tasks.catalogue import TASKS

NOT_A_NUMBER = "\N{EN DASH}"
CONTAMINATED = "†"
UNCHECKED = "°"
OTHER_PROTOCOL = "‡"
ONE_SEED = "¹"
UNKNOWN_SEEDS = "²"

FOOTNOTES = {
    CONTAMINATED: f"{CONTAMINATED} recordings of this task were heard in pretraining.",
    UNCHECKED: f"{UNCHECKED} not checked against the music that the encoder was pretrained on.",
    OTHER_PROTOCOL: f"{OTHER_PROTOCOL} another protocol, split or test set than the column's others: not comparable "
    "with them.",
    ONE_SEED: f"{ONE_SEED} one pretraining seed: the spread is of probes alone and says nothing of "
    "what another pretraining would give.",
    UNKNOWN_SEEDS: f"{UNKNOWN_SEEDS} how many pretraining seeds is not known.",
}


class Cell(NamedTuple):
    """Of the main metric, as fractions: mean and standard deviation over probe seeds (NaN: one seed), its interval."""

    mean: float
    spread: float
    low: float
    high: float
    marks: str


@dataclass(frozen=True)
class Row:
    """results: by task. mark: ONE_SEED, UNKNOWN_SEEDS, or none."""

    name: str
    mark: str
    results: Mapping[str, TaskResult]
    cells: Mapping[str, Cell]


@dataclass(frozen=True)
class Table:
    """tasks: names of those that any row has, in the order of the catalogue."""

    tasks: tuple[str, ...]
    rows: tuple[Row, ...]
    published: tuple[PublishedRow, ...] = field(default_factory=lambda: tuple(published_rows()))

    @property
    def footnotes(self) -> list[str]:
        """What the marks in it mean, and how it is to be read."""
        used = "".join(row.mark + "".join(cell.marks for cell in row.cells.values()) for row in self.rows)
        return [
            "Test scores in percent: mean ± standard deviation over probe seeds [bootstrap 95 % interval: "
            f"{DRAWS} draws of songs, singers or instruments]. Layer and rate were chosen on validation.",
            *(text for mark, text in FOOTNOTES.items() if mark in used),
            *published_notes(),
        ]


def make_table(results: Sequence[TaskResult]) -> Table:
    """Rows in the order of the results. Raises UserError: an encoder has two results of a task."""
    by_encoder: dict[str, dict[str, TaskResult]] = {}
    for result in results:
        row = by_encoder.setdefault(result.encoder.name, {})
        if result.task in row:
            raise UserError(f"two results of {result.encoder.name} on {result.task}; give each encoder its own name")
        row[result.task] = result
    tasks = tuple(task for task in TASKS if any(task in row for row in by_encoder.values()))
    usual = {task: _usual([row[task] for row in by_encoder.values() if task in row]) for task in tasks}
    rows = (
        Row(name, _seed_mark(row), row, {t: _cell(r, _setting(r) != usual[t]) for t, r in row.items()})
        for name, row in by_encoder.items()
    )
    return Table(tasks, tuple(rows))


def heading(task: str) -> str:
    return f"{TASKS[task].title} ({TASKS[task].metric})"


def cell_text(cell: Cell | None) -> str:
    """`74.1 ± 0.3 [71.0, 77.2] †`"""
    if cell is None or math.isnan(cell.mean):
        return " ".join(filter(None, (NOT_A_NUMBER, cell.marks if cell else "")))
    parts = [percent(cell.mean)]
    if not math.isnan(cell.spread):
        parts.append(f"± {percent(cell.spread)}")
    if not math.isnan(cell.low):
        parts.append(f"[{percent(cell.low)}, {percent(cell.high)}]")
    return " ".join(parts + [cell.marks] * bool(cell.marks))


def percent(fraction: float) -> str:
    return NOT_A_NUMBER if math.isnan(fraction) else f"{100 * fraction:.1f}"


def printed_text(row: PublishedRow, task: str) -> str:
    """What a published row has in a column, as it was printed."""
    metric = TASKS[task].metric
    score = printed_main_score(row, task, metric)
    if score is None:
        return NOT_A_NUMBER
    spread = row.spread.get(task, {}).get(metric)
    text = f"{score:.1f}" if round(score, 1) == round(score, 6) else f"{score:.2f}"
    return text if spread is None else f"{text} ± {spread:g}"


def shown_published(table: Table) -> list[PublishedRow]:
    """Published rows that have any of the table's tasks."""
    return [row for row in table.published if any(task in row.scores for task in table.tasks)]


def markdown(table: Table) -> str:
    """Ours, the published rows under them in italics, and the footnotes."""
    lines = [["encoder", *map(heading, table.tasks)], ["---"] * (1 + len(table.tasks))]
    lines += [[row.name + row.mark, *(cell_text(row.cells.get(task)) for task in table.tasks)] for row in table.rows]
    lines += [
        [f"*{row.model}* (published)", *(f"*{printed_text(row, task)}*" for task in table.tasks)]
        for row in shown_published(table)
    ]
    text = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    notes = table.footnotes + [f"Published: {source}." for source in sources(table)]
    return text + "\n\n" + "\n\n".join(notes) + "\n"


COLUMNS = (
    *("encoder", "kind", "pretraining_seeds", "task", "network", "metric", "mean", "sd_probe_seeds", "low", "high"),
    *("seeds", "layer", "rate", "contaminated", "protocol_id", "split_sha256", "source"),
)


def as_csv(table: Table) -> str:
    """A line for each encoder, task, network and metric; published ones too. Fractions; empty: not known."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in table.rows:
        for result in row.results.values():
            writer.writerows(_csv_lines(result, row.cells[result.task]))
    for published in shown_published(table):
        for task, scores in published.scores.items():
            for metric, score in scores.items():
                spread = published.spread.get(task, {}).get(metric)
                line = {"encoder": published.model, "kind": "published", "task": task, "metric": metric}
                line |= {"mean": _number(score / 100), "source": published.source}
                writer.writerow(line | {"sd_probe_seeds": _number(math.nan if spread is None else spread / 100)})
    return buffer.getvalue()


def text_table(table: Table, width: int = 120) -> list[str]:
    """Mean ± spread for a terminal: as many tasks side by side as fit, the others below."""
    names = ["", "", *(shortened_name(row.name) + row.mark for row in table.rows)]
    names_width = max(map(len, names))
    columns = []
    for task in table.tasks:
        first, _, second = task.partition("_")
        cells = [first, second, *(_short_text(row.cells.get(task)) for row in table.rows)]
        columns.append([cell.rjust(max(map(len, cells))) for cell in cells])
    lines: list[str] = []
    while columns:
        block = [columns.pop(0)]
        while columns and names_width + sum(len(c[0]) + 2 for c in [*block, columns[0]]) <= width:
            block.append(columns.pop(0))
        lines += [""] * bool(lines)
        lines += [
            "  ".join([name.ljust(names_width), *line]).rstrip() for name, *line in zip(names, *block, strict=True)
        ]
    return lines


def shortened_name(name: str, width: int = 28) -> str:
    """The end of a name says more than its beginning: names are often paths."""
    return name if len(name) <= width else "…" + name[1 - width :]


def _short_text(cell: Cell | None) -> str:
    if cell is None or math.isnan(cell.mean):
        return NOT_A_NUMBER + (cell.marks if cell else "")
    spread = "" if math.isnan(cell.spread) else f" ±{percent(cell.spread)}"
    return percent(cell.mean) + spread + cell.marks


def _cell(result: TaskResult, unusual: bool) -> Cell:
    scores = result.main_scores
    spread = float(scores.std(ddof=1)) if len(scores) > 1 else math.nan
    marks = contamination_mark(result) + OTHER_PROTOCOL * unusual
    return Cell(float(scores.mean()), spread, *interval(result), marks)


def contamination_mark(result: TaskResult) -> str:
    """CONTAMINATED or UNCHECKED; none for what has heard nothing, baselines and random encoders included."""
    if result.encoder.kind in ("baseline", "random"):
        return ""
    found = result.contamination
    if found is not None and found.found:
        return CONTAMINATED
    return UNCHECKED if found is None or None in (found.train, found.valid, found.test) else ""


def _setting(result: TaskResult) -> tuple[str, str, bytes]:
    return result.protocol_id, result.split_sha256, np.char.encode(result.recording.astype(str), "utf-8").tobytes()


def _usual(results: Sequence[TaskResult]) -> tuple[str, str, bytes]:
    return Counter(map(_setting, results)).most_common(1)[0][0]


def _seed_mark(row: Mapping[str, TaskResult]) -> str:
    encoder = next(iter(row.values())).encoder
    if encoder.pretraining_seeds == 1:
        return ONE_SEED
    return UNKNOWN_SEEDS if encoder.pretraining_seeds is None and encoder.kind == "checkpoint" else ""


def sources(table: Table) -> Iterator[str]:
    """Models by where they were printed, a line each."""
    by_source: dict[str, list[str]] = {}
    for row in shown_published(table):
        by_source.setdefault(row.source, []).append(row.model)
    yield from (f"{', '.join(models)}: {source}" for source, models in by_source.items())


def _csv_lines(result: TaskResult, cell: Cell) -> Iterator[dict[str, object]]:
    encoder = result.encoder
    for network, metrics in result.scores.items():
        chosen = result.chosen.get(network)
        for metric, scores in metrics.items():
            main = network == result.main_network and metric == result.metric
            spread = np.std(scores, ddof=1) if len(scores) > 1 else math.nan
            yield {
                **{"encoder": encoder.name, "kind": encoder.kind, "task": result.task},
                "pretraining_seeds": "" if encoder.pretraining_seeds is None else encoder.pretraining_seeds,
                **{"network": network, "metric": metric, "seeds": len(scores)},
                **{"mean": _number(np.mean(scores)), "sd_probe_seeds": _number(spread)},
                **{"low": _number(cell.low if main else math.nan), "high": _number(cell.high if main else math.nan)},
                **{"layer": chosen.layer if chosen else "", "rate": chosen.rate if chosen else ""},
                "contaminated": "" if result.contamination is None else int(result.contamination.found),
                **{"protocol_id": result.protocol_id, "split_sha256": result.split_sha256},
            }


def _number(value: float | np.floating) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"
