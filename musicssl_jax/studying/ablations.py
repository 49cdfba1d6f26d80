"""What each change of a config is worth: tables of one changed field, with the paired difference to a reference."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from musicssl_jax.mir.report.comparison import Compared, compare_pairs
from musicssl_jax.mir.report.results import TaskResult
from musicssl_jax.mir.report.tables import NOT_A_NUMBER, heading, percent
from musicssl_jax.mir.tasks.catalogue import TASKS

SIGNIFICANT_MARK = "*"


class Ablation(NamedTuple):
    """field: of the config, that changes. reference: the run that others are compared with. runs: in the order of the
    table, the reference among them."""

    title: str
    field: str
    reference: str
    runs: tuple[str, ...]


ABLATIONS = (
    Ablation(
        "music2vec: share masked",
        "mask.prob",
        "music2vec_base",
        ("music2vec_prob50", "music2vec_base", "music2vec_prob80"),
    ),
    Ablation(
        "music2vec: length of a masked span, frames",
        "mask.length",
        "music2vec_base",
        ("music2vec_span5", "music2vec_base", "music2vec_span15"),
    ),
    Ablation(
        "music2vec: blocks whose outputs are the target",
        "target.top_k",
        "music2vec_base",
        ("music2vec_base", "music2vec_target12"),
    ),
    Ablation("music2vec: updates", "steps", "music2vec_base", ("music2vec_base", "music2vec_800k")),
    Ablation(
        "music2vec: seconds of a crop", "data.crop_seconds", "music2vec_base", ("music2vec_crop5s", "music2vec_base")
    ),
    Ablation("musicHuBERT: clusters", "clusters", "musichubert_k500", ("musichubert_k500", "musichubert_k2000_iter1")),
    Ablation(
        "musicHuBERT: dimensions of MFCC",
        "targets",
        "musichubert_k500",
        ("musichubert_k500", "musichubert_k500_mfcc60"),
    ),
    Ablation(
        "musicHuBERT: iteration (the second also has more updates)",
        "targets",
        "musichubert_k2000_iter1",
        ("musichubert_k2000_iter1", "musichubert_k2000_iter2"),
    ),
    Ablation(
        "musicHuBERT: what is predicted (not the paper's)",
        "targets",
        "musichubert_k500",
        ("musichubert_k500", "musichubert_chroma", "musichubert_logmel_chroma", "musichubert_ensemble"),
    ),
)

Results = Mapping[str, Mapping[str, TaskResult]]
"""By run, then by task."""


def ablation_tables(results: Results, configs: Mapping[str, ConfigDict]) -> list[dict[str, Any]]:
    """Those whose reference has results, and another run too, as JSON.

    A row: {"run", "value" of the field, "tasks": task -> {"score", and, but for the reference, "gain", "low", "high",
    "p_holm", "significant", or "refused": why they cannot be compared}}. Scores are fractions of the main metric.
    """
    tables = []
    for ablation in ABLATIONS:
        runs = [name for name in ablation.runs if name in results]
        if ablation.reference in runs and len(runs) > 1:
            rows = [_row(name, ablation, results, configs[name]) for name in runs]
            tables.append({"title": ablation.title, "reference": ablation.reference, "rows": rows})
    return tables


def markdown(tables: Sequence[Mapping[str, Any]]) -> str:
    """Score × 100 and, in brackets, its difference to the reference's."""
    return "\n".join(line for table in tables for line in _markdown_lines(table))


def _row(name: str, ablation: Ablation, results: Results, config: ConfigDict) -> dict[str, Any]:
    tasks = {task: {"score": _finite(float(result.main_scores.mean()))} for task, result in results[name].items()}
    if name != ablation.reference:
        pairs = compare_pairs({ablation.reference: results[ablation.reference], name: results[name]})
        for compared in pairs[0].tasks:
            tasks[compared.task] |= _difference(compared)
    return {"run": name, "value": _value(config, ablation.field), "tasks": tasks}


def _difference(compared: Compared) -> dict[str, Any]:
    if compared.difference is None:
        return {"refused": compared.refused}
    gain, low, high, _ = map(_finite, compared.difference)
    known = {"gain": gain, "low": low, "high": high, "p_holm": _finite(compared.p_holm)}
    return known | {"significant": compared.significant}


def _value(config: ConfigDict, field: str) -> str:
    value: Any = config
    for name in field.split("."):
        value = value[name]
    # Of a layer's target, the folder of its run says nothing.
    return ", ".join(str(v).partition("@")[0] for v in value) if isinstance(value, tuple) else f"{value:g}"


def _markdown_lines(table: Mapping[str, Any]) -> Iterator[str]:
    tasks = [task for task in TASKS if any(task in row["tasks"] for row in table["rows"])]
    yield f"### {table['title']}\n"
    yield f"| run | value | {' | '.join(map(heading, tasks))} |"
    yield f"| --- | --- |{' --- |' * len(tasks)}"
    for row in table["rows"]:
        cells = [_cell(row["tasks"].get(task)) for task in tasks]
        yield f"| {row['run']} | {row['value']} | {' | '.join(cells)} |"
    yield ""


def _cell(entry: Mapping[str, Any] | None) -> str:
    if entry is None or entry["score"] is None:
        return NOT_A_NUMBER
    score = percent(entry["score"])
    if entry.get("gain") is None:
        return f"{score} (not comparable)" if "refused" in entry else score
    return f"{score} ({100 * entry['gain']:+.1f}{SIGNIFICANT_MARK * entry['significant']})"


def _finite(value: float) -> float | None:
    return value if value == value else None
