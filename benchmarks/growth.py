"""How an update's time and memory grow with clips, model, label sets and clusters: a table and a picture.

    python -m benchmarks.growth                       base model, two cores, a quarter of an hour
    python -m benchmarks.growth --size=demo           a minute or two

One thing at a time is changed in an update of one crop of 5 s. Each case has a process of its own, whose greatest
memory is that of the case. Rows are appended to --results, and a case that it holds already, of such a machine, these
versions and this very program, is not measured again.
"""

import argparse
import itertools
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.flags import whole
from benchmarks.machine import machine
from benchmarks.pretrain import OURS, on_device, start
from benchmarks.rows import append, is_from_here, origin, rows_of
from musicssl_jax.command import ArgumentParser, run_command
from musicssl_jax.errors import UserError

PACKAGES = ("jax", "jaxlib", "flax")
CONV_STACK, ATTENTION = "conv stack", "attention"


class Axis(NamedTuple):
    """name: what is changed. values: that are measured; of them one is as in all other axes. flags: value -> the
    config's fields."""

    name: str
    model: str
    values: tuple[float, ...]
    flags: Any


def axes(size: str) -> list[Axis]:
    """In the order of the table."""
    small = size == "demo"
    lengths = (1, 2, 5, 10) if small else (5, 10, 20, 30, 60)
    return [
        Axis("seconds of a crop", "music2vec", lengths, lambda v: {"data.crop_seconds": float(v)}),
        Axis("crops in a batch", "music2vec", (1, 2, 4), lambda v: _batch(int(v))),
        Axis("blocks", "music2vec", (2, 4) if small else (6, 12, 24), _blocks),
        Axis("width", "music2vec", (64, 128) if small else (384, 768, 1152), _width),
        Axis("label sets", "musichubert", (1, 2, 4), lambda v: _labels(int(v), 500)),
        Axis("clusters", "musichubert", (100, 500, 2000), lambda v: _labels(1, int(v))),
    ]


def _batch(clips: int) -> dict[str, Any]:
    return {"batch.clips": clips, "batch.per_device": clips, "mask.trim_group": clips}


def _blocks(value: float) -> dict[str, Any]:
    return {"model.layers": int(value), "target.top_k": min(8, int(value))}


def _width(value: float) -> dict[str, Any]:
    """Heads of 64, and four times the width in the feed-forward layers, as in the base model."""
    return {"model.width": int(value), "model.ffn": 4 * int(value), "model.heads": max(1, int(value) // 64)}


def _labels(sets: int, clusters: int) -> dict[str, Any]:
    """Labels are given: what front ends take is apart (`benchmarks.codebook`)."""
    targets = ("mfcc39", "chroma24", "cqt84", "mfcc60")[:sets]
    return {"targets": ",".join(targets), "clusters": ",".join([str(clusters)] * sets)}


def config_flags(axis: Axis, value: float, size: str, device: str) -> list[str]:
    variant = {"music2vec": size, "musichubert": "k500" if size == "base" else size}[axis.model]
    fields: dict[str, Any] = {
        "data.crop_seconds": 5.0,
        **_batch(1),
        "precision": "float32" if device == "cpu" else "bfloat16",
        "model.layer_drop": 0.0,
        **axis.flags(value),
    }
    return [f"--config=configs/{axis.model}.py:{variant}", *(f"--config.{name}={v}" for name, v in fields.items())]


def main(argv: list[str]) -> None:
    flags = _parser().parse_args(argv)
    file = Path(flags.results or f"benchmarks/results/growth_{flags.size}_{flags.device}.jsonl")
    with start(OURS, flags.device) as side:
        device = on_device(side, flags.device)
    print(f"{machine(PACKAGES)}, {device}", flush=True)
    for axis in axes(flags.size):
        for value in axis.values:
            if not any(_is_of(row, axis, value, device) for row in rows_of(file)):
                row = origin(PACKAGES, device) | measured(axis, value, flags.size, flags.device, flags.repeats)
                append(row, file)
                print(f"{axis.name} {value:g}: {np.median(row['seconds']):.3g} s", flush=True)
    rows = [row for row in rows_of(file) if is_from_here(row, PACKAGES, device)]
    print(table(rows))
    draw(rows, file.with_suffix(".png"))


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="benchmarks.growth", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=("base", "demo"), default="base")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--repeats", type=whole(), default=5, help="updates that are timed of each case")
    parser.add_argument("--results", help="a row a case (default benchmarks/results/growth_SIZE_DEVICE.jsonl)")
    return parser


def _is_of(row: Mapping[str, Any], axis: Axis, value: float, device: str) -> bool:
    return row["axis"] == axis.name and row["value"] == value and is_from_here(row, PACKAGES, device)


def measured(axis: Axis, value: float, size: str, device: str, repeats: int) -> dict[str, Any]:
    """A row: what an update costs, its seconds, memory, and the seconds of two of its parts where lengths change.

    UserError: the case failed; it says which.
    """
    case = config_flags(axis, value, size, device)
    parts = {}
    try:
        with start(OURS, device) as side:
            built = side.ask("build", flags=case)
            side.ask("update", number=0)
            seconds = [side.ask("update", number=n)["seconds"] for n in range(1, repeats + 1)]
            memory = side.ask("memory")
        if axis.name == "seconds of a crop":
            with start("benchmarks.growth_parts", device) as side:
                parts = side.ask("parts", flags=case, repeats=repeats)
    except UserError as error:
        raise UserError(f"{axis.name} {value:g}: {error}") from None
    return {
        "axis": axis.name,
        "value": value,
        "parameters": built["parameters"],
        "flops": built["flops"],
        "seconds": [round(one, 4) for one in seconds],
        "memory": memory,
        "parts": parts,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """A line a case, and where attention overtakes the conv stack."""
    lines = [
        "",
        "| | | parameters, M | GFLOP | s | GiB | GFLOP/s | conv stack, s | attention, s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        seconds = float(np.median(row["seconds"]))
        parts = [f"{row['parts'][name]:.3g}" if row["parts"] else "" for name in (CONV_STACK, ATTENTION)]
        cells = [
            row["axis"],
            f"{row['value']:g}",
            f"{row['parameters'] / 1e6:.1f}",
            f"{row['flops'] / 1e9:.0f}",
            f"{seconds:.3g}",
            f"{row['memory'] / 2**30:.1f}",
            f"{row['flops'] / seconds / 1e9:.0f}",
            *parts,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    crossing = overtaking(rows)
    found = f"from {crossing:.0f} s on" if math.isfinite(crossing) else "at no length that was measured"
    return "\n".join([*lines, "", f"Attention takes longer than the conv stack {found}."])


def overtaking(rows: list[dict[str, Any]]) -> float:
    """Seconds of a crop at which attention takes as long as the conv stack: on the line, in logarithms, between the two
    lengths where that changes; infinity: at none."""
    lengths = sorted((row["value"], row["parts"][ATTENTION] / row["parts"][CONV_STACK]) for row in rows if row["parts"])
    for (shorter, below), (longer, above) in itertools.pairwise(lengths):
        if below < 1 <= above:
            share = math.log(1 / below) / math.log(above / below)
            return shorter * (longer / shorter) ** share
    return math.inf


def draw(rows: list[dict[str, Any]], file: Path) -> None:
    """A panel an axis, time and memory; both scales logarithmic, so that what grows in proportion is parallel to the
    dotted line."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator, ScalarFormatter

    names = list(dict.fromkeys(row["axis"] for row in rows))
    figure, panels = pyplot.subplots(2, -(-len(names) // 2), figsize=(11, 6.5), layout="constrained", squeeze=False)
    for panel, name in zip(panels.ravel(), names, strict=False):
        of_axis = sorted((row for row in rows if row["axis"] == name), key=lambda row: row["value"])
        values = [row["value"] for row in of_axis]
        seconds = [float(np.median(row["seconds"])) for row in of_axis]
        panel.loglog(values, seconds, "o-", color="C0", label="update, s")
        panel.loglog(values, [row["memory"] / 2**30 for row in of_axis], "s-", color="C1", label="memory, GiB")
        for part, colour in ((CONV_STACK, "C2"), (ATTENTION, "C3")):
            if of_axis[0]["parts"]:
                panel.loglog(values, [row["parts"][part] for row in of_axis], ".-", color=colour, label=f"{part}, s")
        in_proportion = [seconds[0] * value / values[0] for value in values]
        panel.loglog(values, in_proportion, ":", color="grey", label="in proportion")
        panel.set_xlabel(name)
        panel.xaxis.set_major_locator(FixedLocator(values))
        panel.xaxis.set_major_formatter(ScalarFormatter())
        panel.xaxis.set_minor_locator(NullLocator())
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.legend(fontsize=7)
    for panel in panels.ravel()[len(names) :]:
        panel.set_axis_off()
    figure.savefig(file, dpi=110)
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(run_command(main))
