"""The report on one HTML page that needs no other file and no network."""

import base64
import html
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from musicssl_jax.mir.report.comparison import Compared, Pair
from musicssl_jax.mir.report.results import Contamination, TaskResult
from musicssl_jax.mir.report.tables import (
    NOT_A_NUMBER,
    Row,
    Table,
    cell_text,
    contamination_mark,
    percent,
    printed_text,
    shown_published,
    sources,
)
from musicssl_jax.mir.tasks.catalogue import TASKS
from musicssl_jax.mir.tasks.task import PARTS

STYLE = """
:root { color-scheme: light }
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2430; background: #f4f5f7; margin: 0 }
main { max-width: 84em; margin: 0 auto; padding: 2em 1.2em }
h1 { margin: 0; font-size: 1.6em } h2 { margin: 2em 0 .4em; font-size: 1.2em }
h3 { margin: 1.4em 0 .3em; font-size: 1em }
p { margin: .2em 0 .6em; color: #565d6b; max-width: 62em }
img { max-width: 100%; display: block; background: #fff; border-radius: 8px; box-shadow: 0 1px 3px #0002;
  margin: .6em 0 }
.wide { overflow-x: auto; background: #fff; border-radius: 8px; box-shadow: 0 1px 3px #0002; margin: .6em 0 }
table { border-collapse: collapse; font-size: .85em; font-variant-numeric: tabular-nums }
th, td { padding: .35em .7em; border-bottom: 1px solid #eceef1; text-align: left; vertical-align: top }
thead th { white-space: nowrap; border-bottom: 2px solid #d9dde4 }
tbody th { font-weight: 600; overflow-wrap: anywhere }
td b { font-size: 1.1em } td small, th small { color: #565d6b; font-weight: 400; display: block; white-space: nowrap }
tbody th:first-child { position: sticky; left: 0; background: #fff; min-width: 11em; max-width: 18em }
.published td, .published th { color: #7a808c; font-style: italic; font-weight: 400 }
.best { background: #e8f0f9 } .yes { color: #1d6b3a; font-weight: 600 } .bad { color: #c2372e }
.footnotes p { font-size: .85em; margin: .15em 0 }
details { background: #fff; border-radius: 8px; box-shadow: 0 1px 3px #0002; padding: .6em 1em; margin: .5em 0 }
details details { box-shadow: none; border: 1px solid #eceef1 } summary { cursor: pointer; overflow-wrap: anywhere }
"""


class Picture(NamedTuple):
    title: str
    caption: str
    png: bytes


def report_page(table: Table, pairs: Sequence[Pair], pictures: Mapping[str, Sequence[Picture]]) -> str:
    """pairs: the encoders that are marked as better than others. pictures: by section."""
    body = [
        "<h1>Music tasks</h1>",
        "<p>Probes on frozen encoders. Layers and learning rates were chosen on validation, never on test.</p>",
        _main_table(table, pairs),
        *_footnotes(table, pairs),
        *(part for title, shown in pictures.items() for part in _section(title, shown)),
        "<h2>Details of each result</h2>",
        *(_encoder_details(row) for row in table.rows),
    ]
    return _page("Music tasks", body)


def comparison_page(pairs: Sequence[Pair], notes: Sequence[str]) -> str:
    """Differences of each pair."""
    body = ["<h1>Encoders compared</h1>", *(f"<p>{_text(note)}</p>" for note in notes)]
    for pair in pairs:
        head = ("task", "a", "b", "b - a", "95 % interval", "p", "p (Holm)", "")
        rows = [[f"<th>{_text(TASKS[row.task].title)}</th>", *_comparison_cells(row)] for row in pair.tasks]
        body += [f"<h2>a: {_text(pair.a)}, b: {_text(pair.b)}</h2>", _html_table(head, rows)]
        body += [] if pair.tasks else ["<p>They have no task in common.</p>"]
    return _page("Encoders compared", body)


def _page(title: str, body: Iterable[str]) -> str:
    content = "\n".join(body)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{_text(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>'
        f"<body><main>{content}</main></body></html>"
    )


def _main_table(table: Table, pairs: Sequence[Pair]) -> str:
    head = ["encoder", *(f"{_text(TASKS[t].title)}<small>{TASKS[t].metric}</small>" for t in table.tasks)]
    numbers = {row.name: i for i, row in enumerate(table.rows, 1)}
    best = {task: _best(table, task) for task in table.tasks}
    lines = []
    for row in table.rows:
        cells = [f"<th>{numbers[row.name]}. {_text(row.name)}{row.mark}</th>"]
        for task in table.tasks:
            beaten = sorted(numbers[name] for name in _beaten(pairs, row.name, task))
            marked = ' class="best"' if best[task] == row.name else ""
            cells.append(f"<td{marked}>{_cell(row, task, beaten)}</td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    for published in shown_published(table):
        note = f"<small>published{': ' + _text(published.note) if published.note else ''}</small>"
        cells = [f"<th>{_text(published.model)}{note}</th>"]
        cells += [f"<td>{printed_text(published, task)}</td>" for task in table.tasks]
        lines.append(f'<tr class="published" title="{_text(published.source)}">{"".join(cells)}</tr>')
    header = "".join(f"<th>{name}</th>" for name in head)
    return f'<div class="wide"><table><thead><tr>{header}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def _cell(row: Row, task: str, beaten: Sequence[int]) -> str:
    cell = row.cells.get(task)
    text = cell_text(cell)
    if cell is None or math.isnan(cell.mean):
        return text
    value, _, rest = text.partition(" ")
    interval = rest.replace(f" {cell.marks}", "").replace(cell.marks, "") if cell.marks else rest
    better = f"<small class='yes'>&gt; {_ranges(beaten)}</small>" if beaten else ""
    return f"<b>{value}</b>{cell.marks}<small>{interval}</small>{better}"


def _best(table: Table, task: str) -> str | None:
    means = {row.name: row.cells[task].mean for row in table.rows if task in row.cells and not row.cells[task].marks}
    known = {name: mean for name, mean in means.items() if not math.isnan(mean)}
    return max(known, key=lambda name: known[name]) if known else None


def _beaten(pairs: Sequence[Pair], name: str, task: str) -> Iterator[str]:
    """Who is significantly worse."""
    for pair in pairs:
        for row in pair.tasks:
            if row.task == task and row.significant and row.difference:
                winner, loser = (pair.b, pair.a) if row.difference.gain > 0 else (pair.a, pair.b)
                if winner == name:
                    yield loser


def _ranges(numbers: Sequence[int]) -> str:
    """`1-3, 5` of rising numbers."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _footnotes(table: Table, pairs: Sequence[Pair]) -> Iterator[str]:
    notes = list(table.footnotes)
    if pairs:
        notes.insert(1, SIGNIFICANCE)
    notes.insert(1, "Shaded: the highest mean of a task without a mark, whether or not it is significantly higher.")
    notes += [f"Published: {source}." for source in sources(table)]
    yield f'<div class="footnotes">{"".join(f"<p>{_text(note)}</p>" for note in notes)}</div>'


SIGNIFICANCE = (
    "> 2, 4: significantly better than rows 2 and 4 (paired bootstrap of test groups, p < 0.05 after Holm's correction "
    "over the tasks of each pair; baselines and random encoders are not tested). It speaks of these very encoders and "
    "of other test music, not of other pretraining seeds."
)


def _section(title: str, pictures: Sequence[Picture]) -> Iterator[str]:
    if not pictures:
        return
    yield f"<h2>{_text(title)}</h2>"
    for picture in pictures:
        data = base64.b64encode(picture.png).decode()
        image = f'<img alt="{_text(picture.title)}" src="data:image/png;base64,{data}">'
        caption = f"<p>{_text(picture.caption)}</p>" if picture.caption else ""
        is_long = len(pictures) > 3
        heading = f"<h3>{_text(picture.title)}</h3>" if len(pictures) > 1 else ""
        shown = f"<details><summary>{_text(picture.title)}</summary>{caption}{image}</details>"
        yield shown if is_long else f"{heading}{caption}{image}"


def _encoder_details(row: Row) -> str:
    encoder = next(iter(row.results.values())).encoder
    facts = [("kind", encoder.kind), ("sha256", encoder.sha256 or NOT_A_NUMBER)]
    seeds = "not known" if encoder.pretraining_seeds is None else str(encoder.pretraining_seeds)
    facts += [("pretraining seeds", seeds if encoder.kind == "checkpoint" else NOT_A_NUMBER)]
    facts += [("note", note) for note in encoder.notes]
    tasks = "".join(_task_details(row.results[task]) for task in TASKS if task in row.results)
    return f"<details><summary><b>{_text(row.name)}</b></summary>{_facts(facts)}{tasks}</details>"


def _task_details(result: TaskResult) -> str:
    counts = ", ".join(f"{part} {result.counts[part]:,}" for part in PARTS)
    facts = [
        ("protocol", f"{result.protocol} ({result.protocol_id})"),
        ("split", result.split_sha256),
        ("examples", f"{counts}; missing {result.missing:,}"),
        ("scored", f"{len(result.recording):,} in {len(np.unique(result.group)):,} groups"),
        ("heard in pretraining", _contamination(result.contamination)),
        ("probe seeds", ", ".join(map(str, result.seeds))),
        ("seconds", NOT_A_NUMBER if math.isnan(result.seconds) else f"{result.seconds:,.1f}"),
        *(("note", note) for note in result.notes),
        ("versions", ", ".join(f"{name} {version}" for name, version in result.versions.items())),
    ]
    return (
        f"<details><summary>{_text(TASKS[result.task].title)}</summary>{_facts(facts)}"
        f"{_chosen_table(result)}{_metric_table(result)}</details>"
    )


def _chosen_table(result: TaskResult) -> str:
    rows = [
        [
            f"<th>{_text(network)}</th><td>{_text(chosen.layer)}</td>"
            f"<td>{NOT_A_NUMBER if chosen.rate is None else f'{chosen.rate:g}'}</td>"
            f"<td>{percent(chosen.valid_score)}</td>"
        ]
        for network, chosen in result.chosen.items()
    ]
    return _html_table(("network", "layer", "rate", f"{result.metric} on validation, percent"), rows)


def _metric_table(result: TaskResult) -> str:
    metrics = list(dict.fromkeys(metric for scores in result.scores.values() for metric in scores))
    rows = []
    for metric in metrics:
        cells = [f"<th>{_text(metric)}</th>"]
        cells += [f"<td>{_metric(metric, scores.get(metric, ()))}</td>" for scores in result.scores.values()]
        rows.append(cells)
    return _html_table(("test score, percent", *result.scores), rows)


def _metric(name: str, scores: Sequence[float]) -> str:
    if not len(scores):
        return NOT_A_NUMBER
    if name == "classes_scored":  # a count, not a score
        return f"{np.mean(scores):g}"
    spread = f" ± {percent(float(np.std(scores, ddof=1)))}" if len(scores) > 1 else ""
    return percent(float(np.mean(scores))) + spread


def _contamination(found: Contamination | None) -> str:
    if found is None:
        return "not looked for"
    shares = ((part, getattr(found, part)) for part in PARTS)
    text = ", ".join(f"{part} {'not looked for' if share is None else f'{share:.2%}'}" for part, share in shares)
    examples = [f"{recording} in {track} at {seconds:.1f} s" for recording, track, seconds in found.examples[:5]]
    return "; ".join(filter(None, (text, found.note, *examples)))


def _comparison_cells(row: Compared) -> list[str]:
    means = [percent(float(r.main_scores.mean())) + contamination_mark(r) for r in (row.a, row.b)]
    cells = [f"<td>{text}</td>" for text in means]
    if row.difference is None:
        return [*cells, f'<td colspan="5" class="bad">not compared: {_text(row.refused or "")}</td>']
    d = row.difference
    verdict = (
        f'<td class="yes">{"b" if d.gain > 0 else "a"} is better</td>'
        if row.significant
        else f"<td>{row.undecidable}</td>"
    )
    interval = NOT_A_NUMBER if math.isnan(d.low) else f"[{100 * d.low:+.1f}, {100 * d.high:+.1f}]"
    numbers = (signed(d.gain), interval, p_text(d.p), p_text(row.p_holm))
    return [*cells, *(f"<td>{text}</td>" for text in numbers), verdict]


def signed(fraction: float) -> str:
    return NOT_A_NUMBER if math.isnan(fraction) else f"{100 * fraction:+.1f}"


def p_text(p: float) -> str:
    return NOT_A_NUMBER if math.isnan(p) else f"{p:.3f}"


def _facts(facts: Iterable[tuple[str, str]]) -> str:
    rows = (f"<tr><td>{_text(name)}</td><td>{_text(value)}</td></tr>" for name, value in facts)
    return f"<table><tbody>{''.join(rows)}</tbody></table>"


def _html_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    header = "".join(f"<th>{_text(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(cells)}</tr>" for cells in rows)
    return f'<div class="wide"><table><thead><tr>{header}</tr></thead><tbody>{body}</tbody></table></div>'


def _text(value: str) -> str:
    return html.escape(value)
