"""Writes the report of results into a folder, and comparisons of encoders."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from musicssl_jax.errors import UserError
from musicssl_jax.mir.report import comparison, figures
from musicssl_jax.mir.report.comparison import Compared, Pair, by_task, compare_pairs
from musicssl_jax.mir.report.page import Picture, comparison_page, p_text, report_page, signed
from musicssl_jax.mir.report.results import TaskResult, slug, to_json, write_file
from musicssl_jax.mir.report.statistics import DRAWS, SIGNIFICANT
from musicssl_jax.mir.report.tables import (
    FOOTNOTES,
    NOT_A_NUMBER,
    Table,
    as_csv,
    contamination_mark,
    make_table,
    markdown,
    percent,
    text_table,
)

COMPARISON_NOTES = (
    "Test scores in percent, of the main metric, means over probe seeds. Interval and p: paired bootstrap, "
    f"{DRAWS} draws of songs, singers or instruments. Holm: p corrected over the tasks of a pair; below "
    f"{SIGNIFICANT:g} is called significant.",
    "It speaks of these very encoders and of other test music, not of other pretraining seeds.",
)


def write_report(results: Sequence[TaskResult], folder: Path) -> list[str]:
    """Writes results.json, table.md, table.csv, report.html and pictures/*.png; gives the table for a terminal.

    Raises UserError: no results, two of an encoder on one task, or the folder cannot be written.
    """
    if not results:
        raise UserError("there are no results to report; run `musicssl evaluate` first")
    table = make_table(results)
    tested = {row.name: row.results for row in table.rows if _is_tested(row.results)}
    pairs = compare_pairs(tested)
    pictures = _pictures(table)
    folder = Path(folder)
    for name, picture in ((name, p) for shown in pictures.values() for name, p in shown.items()):
        write_file(folder / "pictures" / f"{name}.png", picture.png)
    write_file(
        folder / "results.json", json.dumps(_as_json(table, pairs), indent=1, allow_nan=False, ensure_ascii=False)
    )
    write_file(folder / "table.md", markdown(table))
    write_file(folder / "table.csv", as_csv(table))
    write_file(
        folder / "report.html", report_page(table, pairs, {t: list(shown.values()) for t, shown in pictures.items()})
    )
    return [*text_table(table), "", *_said_below(table), f"report: {folder / 'report.html'}"]


def compare(results_by_name: Mapping[str, Sequence[TaskResult]], folder: Path) -> list[str]:
    """Writes compare.md, compare.html and compare.json of all pairs of names; gives lines for a terminal.

    Raises UserError: fewer than two names, two results of a name on one task, or the folder cannot be written.
    """
    if len(results_by_name) < 2:
        raise UserError("--compare needs two encoders or more; give the names of their folders in the results")
    for name, results in results_by_name.items():
        if len(by_task(results)) < len(results):
            raise UserError(f"--compare: {name} has two results of one task; name a folder of one encoder")
    pairs = compare_pairs({name: by_task(results) for name, results in results_by_name.items()})
    folder = Path(folder)
    notes = (*COMPARISON_NOTES, *_marks_of(pairs))
    write_file(folder / "compare.md", "\n".join(_comparison_markdown(pairs, notes)))
    write_file(folder / "compare.html", comparison_page(pairs, notes))
    write_file(folder / "compare.json", json.dumps(comparison.to_json(pairs), indent=1, allow_nan=False))
    return [*_comparison_lines(pairs), *_marks_of(pairs), f"comparison: {folder / 'compare.html'}"]


def _is_tested(results: Mapping[str, TaskResult]) -> bool:
    return next(iter(results.values())).encoder.kind not in ("random", "baseline")


def _pictures(table: Table) -> dict[str, dict[str, Picture]]:
    """Section -> file name -> picture."""
    sections: dict[str, dict[str, Picture]] = {"Scores": {}, "Layers": {}, "Learned weights": {}, "Confusions": {}}
    bars = figures.png(figures.score_bars(table))
    caption = "Main metric in percent; lines: 95 % intervals. Grey: baselines and random encoders."
    sections["Scores"]["scores"] = Picture("Scores", caption, bars)
    for row in table.rows:
        results = [row.results[task] for task in table.tasks if task in row.results]
        name = slug(row.name)
        for section, file, draw in (
            ("Layers", f"layers_{name}", figures.layer_heatmap),
            ("Learned weights", f"weights_{name}", figures.layer_weights),
        ):
            figure = draw(results)
            if figure:
                sections[section][file] = Picture(row.name, "", figures.png(figure))
        for result in results:
            figure = figures.confusion(result)
            if figure:
                title = f"{row.name}: {result.task}"
                sections["Confusions"][f"confusion_{name}_{result.task}"] = Picture(title, "", figures.png(figure))
    return sections


def _as_json(table: Table, pairs: Sequence[Pair]) -> dict[str, Any]:
    """Everything in the report, scores as fractions but for the published ones, which are as printed."""
    rows = [
        {
            "encoder": row.name,
            "mark": row.mark,
            "cells": {task: _finite(row.cells[task]._asdict()) for task in table.tasks if task in row.cells},
        }
        for row in table.rows
    ]
    return {
        "tasks": table.tasks,
        "rows": rows,
        "footnotes": table.footnotes,
        "differences": comparison.to_json(pairs),
        "published_percent": [row._asdict() for row in table.published],
        "results": [to_json(result) for row in table.rows for result in row.results.values()],
    }


def _finite(cell: Mapping[str, Any]) -> dict[str, Any]:
    return {key: None if value != value else value for key, value in cell.items()}


def _said_below(table: Table) -> Iterator[str]:
    """Footnotes of marks, and where published rows are: a terminal is too narrow for these."""
    yield "Test scores in percent ± deviation over probe seeds; intervals and published rows: table.md, report.html"
    yield from (note for note in table.footnotes if note[0] in MARKS)


MARKS = "†°‡¹²"


def _marks_of(pairs: Sequence[Pair]) -> list[str]:
    """What the marks of contamination in the comparison mean."""
    used = "".join(contamination_mark(result) for pair in pairs for row in pair.tasks for result in (row.a, row.b))
    return [text for mark, text in FOOTNOTES.items() if mark in used]


def _comparison_markdown(pairs: Sequence[Pair], notes: Sequence[str]) -> Iterator[str]:
    yield from (f"{note}\n" for note in notes)
    for pair in pairs:
        yield f"## a: {pair.a}, b: {pair.b}\n"
        yield "| task | a | b | b - a | 95 % interval | p | p (Holm) | |"
        yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
        for row in pair.tasks:
            yield f"| {row.task} | {' | '.join(_comparison_row(row))} |"
        yield ""


def _comparison_row(row: Compared) -> list[str]:
    means = [percent(float(r.main_scores.mean())) + contamination_mark(r) for r in (row.a, row.b)]
    if row.difference is None:
        return [*means, *[NOT_A_NUMBER] * 4, f"not compared: {row.refused}"]
    d = row.difference
    interval = NOT_A_NUMBER if d.low != d.low else f"[{signed(d.low)}, {signed(d.high)}]"
    verdict = ("b is better" if d.gain > 0 else "a is better") if row.significant else row.undecidable
    return [*means, signed(d.gain), interval, p_text(d.p), p_text(row.p_holm), verdict]


def _comparison_lines(pairs: Sequence[Pair]) -> Iterator[str]:
    for pair in pairs:
        yield f"a: {pair.a}, b: {pair.b} (p after Holm; significant below {SIGNIFICANT:g})"
        if not pair.tasks:
            yield "  no task in common"
        for row in pair.tasks:
            a, b, gain, interval, _, p, verdict = _comparison_row(row)
            yield f"  {row.task:<19}{a:>6}{b:>7}{gain:>7} {interval:>15}  p {p}  {verdict}".rstrip()
        yield ""
