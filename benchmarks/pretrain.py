"""Seconds per update of music2vec and musicHuBERT, beside the same update in PyTorch.

    python -m benchmarks.pretrain [--model=music2vec|musichubert] [--size=base|large|demo] [--seconds=5] [--batch=2]
                                  [--precision=float32|bfloat16] [--attention_dropout=0] [--device=cpu|gpu]
                                  [--peer=torch|none] [--compile] [--repeats=5]

Ours is the jitted step of training: int16 crops in; normalised, masked, student, teacher, loss, gradients, AdamW,
teacher's average, logged figures. The peer does the same with transformers' modules (`benchmarks.pretrain_torch`): same
parameters, crops, masks and labels, scaled-dot-product attention, autocast for bfloat16, fused AdamW, foreach average.
Before anything is timed, both losses of the first batch, without dropout, have to agree within 1e-4 in float32 and
within 1e-2 in the precision and with the attention that are timed. Each side has a process of its own; they take turns.
On a CPU the peer first tries 1, 2 and all threads, and with --compile torch.compile in the best of them, each in a
process of its own; its best setting is timed, the others are listed.

What differs: ours draws its masks in the step, the peer is given them. Ours also logs positional share and swap gap or
accuracy by distance, and keeps the old state if the gradient is not finite. Each draws its own dropout. Layer drop is
off for both, since its draws would decide the time; `large` normalises after its blocks, as transformers' class does.

A row with machine, versions and all times is appended to --results.
"""

import argparse
import math
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.comparison import ALLOCATOR, best_of, need, ratio, rounds, setting_line, thread_counts
from benchmarks.flags import seconds, whole
from benchmarks.machine import cores, machine
from benchmarks.rows import append, origin
from benchmarks.turns import Side
from musicssl_jax.command import ArgumentParser, run_command
from musicssl_jax.errors import UserError

AGREEMENT = {"float32": 1e-4, "bfloat16": 1e-2}
"""Relative, of the losses. float32: sums of some 100,000 terms in another order. bfloat16 has 8 bits, and the sides
round in other places; a wrong mask or target is a difference of a tenth and more."""
PACKAGES = ("jax", "jaxlib", "flax", "torch", "transformers")
OURS, PEER = "benchmarks.pretrain_ours", "benchmarks.pretrain_torch"
VARIANTS = {
    ("music2vec", "base"): "base",
    ("music2vec", "large"): "large",
    ("music2vec", "demo"): "demo",
    ("musichubert", "base"): "k500",
}


def main(argv: list[str]) -> None:
    options = parse(argv)
    print(f"{machine(PACKAGES)}\n{described(options)}\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        row = compare(options, folder)
    print(table(row))
    if options.results:
        append(row, Path(options.results))


def parse(argv: list[str], results: str = "benchmarks/results/pretrain.jsonl") -> argparse.Namespace:
    """results: where rows go if no flag says it. UserError: a flag is unknown or makes no sense."""
    parser = ArgumentParser(
        prog="benchmarks.pretrain", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=("music2vec", "musichubert"), default="music2vec")
    parser.add_argument("--size", choices=("base", "large", "demo"), default="base")
    parser.add_argument("--seconds", type=seconds(0.1, 3600), default=5.0, help="length of a crop")
    parser.add_argument("--batch", type=whole(), default=2, help="crops in an update")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--attention_dropout", type=float, default=0.1, help="on both sides (paper: .1)")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--peer", choices=("torch", "none"), default="torch")
    parser.add_argument("--compile", action="store_true", help="the peer tries torch.compile as well")
    parser.add_argument("--repeats", type=whole(), default=5, help="updates that are timed")
    parser.add_argument("--results", default=results, help="empty: nowhere")
    options = parser.parse_args(argv)
    if not 0 <= options.attention_dropout < 1:
        raise UserError(f"--attention_dropout={options.attention_dropout}: want from 0 to below 1")
    if options.peer == "torch":
        need("torch", ("torch", "transformers"))
    if (options.model, options.size) not in VARIANTS:
        raise UserError(f"--size={options.size}: {options.model} has no such size")
    return options


def config_flags(options: argparse.Namespace) -> list[str]:
    fields = {
        "data.crop_seconds": options.seconds,
        "batch.clips": options.batch,
        "batch.per_device": options.batch,
        "mask.trim_group": options.batch,
        "precision": options.precision,
        "model.layer_drop": 0.0,
        "model.attention_dropout": options.attention_dropout,
        "model.norm_first": False,
        "optimizer.name": "adamw",  # PyTorch's form of Adam
    }
    flags = [f"--config.{name}={value}" for name, value in fields.items()]
    return [f"--config=configs/{options.model}.py:{VARIANTS[options.model, options.size]}", *flags]


def compare(options: argparse.Namespace, folder: str, until: float = math.inf) -> dict[str, Any]:
    """The row of results. until: of `time.monotonic`, when it has to be there.

    UserError: a side failed, is not on the device, or does something else than the other. TrainingStopped: time is up.
    """
    flags = config_flags(options)
    with ExitStack() as opened:
        sides = {"ours": opened.enter_context(start(OURS, options.device, until))}
        device = on_device(sides["ours"], options.device)
        ours = sides["ours"].ask("prepare", flags=flags, folder=folder, updates=options.repeats + 1)
        row: dict[str, Any] = {
            **origin(PACKAGES, device),
            "options": {name: value for name, value in vars(options).items() if name != "results"},
            **{name: ours[name] for name in ("parameters", "flops", "peak", "attention")},
        }
        if options.peer == "torch":

            def prepared() -> Side:
                side = opened.enter_context(start(PEER, options.device, until))
                on_device(side, options.device)
                row["losses"] = same_losses(ours, side.ask("prepare", flags=flags, folder=folder))
                return side

            row["tried"] = tried(prepared, options)
            row["best"] = best_of(row["tried"])
            sides["PyTorch"] = prepared()
            sides["PyTorch"].ask("configure", **row["best"])
            sides["PyTorch"].ask("update", number=0)
        sides["ours"].ask("update", number=0)
        updates = {name: lambda turn, side=side: side.ask("update", number=turn + 1) for name, side in sides.items()}
        row["seconds"] = rounds(updates, options.repeats)["seconds"]
        row["memory"] = {name: side.ask("memory") for name, side in sides.items()}
    return row


def start(module: str, device: str, until: float = math.inf) -> Side:
    """A side, with the allocator's settings that our training asks for itself."""
    environment = {"JAX_PLATFORMS": "cpu"} if device == "cpu" else {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    return Side(module, until, **environment, **ALLOCATOR)


def on_device(side: Side, wanted: str) -> str:
    """The kind of the device that the side computes on. UserError: it is another than was asked for."""
    found = side.ask("device")
    if found["platform"] != wanted:
        raise UserError(
            f"--device={wanted}, and {side.module} computes on {found['kind']} ({found['platform']}): install the "
            "build of its framework that has this device, or ask for the other"
        )
    return found["kind"]


def tried(prepared: Callable[[], Side], options: argparse.Namespace) -> list[dict[str, Any]]:
    """The peer's settings, each with its seconds or why it failed. prepared: makes a peer."""
    threads = thread_counts() if options.device == "cpu" else [cores()]
    eager = [tried_setting(prepared, count, False) for count in threads]
    if not options.compile:
        return eager
    return [*eager, tried_setting(prepared, best_of(eager)["threads"], True)]


def same_losses(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, list[float]]:
    """Both losses by precision. UserError: the sides have other parameters or losses."""
    if theirs["parameters"] != ours["parameters"]:
        raise UserError(f"the sides differ: {ours['parameters']} and {theirs['parameters']} parameters")
    for precision, loss in ours["losses"].items():
        difference = abs(theirs["losses"][precision] / loss - 1)
        if not difference < AGREEMENT[precision]:
            raise UserError(
                f"the sides differ: losses {loss} and {theirs['losses'][precision]} in {precision} ({difference:.1e} "
                "apart)"
            )
    return {precision: [loss, theirs["losses"][precision]] for precision, loss in ours["losses"].items()}


def tried_setting(prepared: Callable[[], Side], threads: int, compiled: bool) -> dict[str, Any]:
    """What an update takes after one to warm up; or why it takes none."""
    setting: dict[str, Any] = {"threads": threads, "compiled": compiled}
    with prepared() as peer:
        try:
            peer.ask("configure", **setting)
            peer.ask("update", number=0)
            return setting | {"seconds": round(min(peer.ask("update", number=n)["seconds"] for n in (1, 2)), 4)}
        except UserError as error:
            return setting | {"failed": str(error)}


def described(options: argparse.Namespace) -> str:
    return (
        f"{options.model} {options.size}: {options.batch} crops of {options.seconds:g} s, {options.precision}, "
        f"attention dropout {options.attention_dropout:g}, {options.device}"
    )


def table(row: Mapping[str, Any]) -> str:
    """Both sides, the ratio with its spread, and what the peer tried."""
    audio = row["options"]["batch"] * row["options"]["seconds"]
    lines = [
        f"{row['parameters'] / 1e6:.2f}M parameters, {row['flops']:.3g} FLOP an update, attention {row['attention']}\n",
        "| | seconds per update | median | audio seconds per second | TFLOP/s | MFU | GiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, times in row["seconds"].items():
        median = float(np.median(times))
        rate = row["flops"] / median
        lines.append(
            f"| {name} | {', '.join(f'{seconds:.3g}' for seconds in times)} | {median:.3g} | {audio / median:.3g} "
            f"| {rate / 1e12:.3g} | {rate / row['peak']:.1%} | {row['memory'][name] / 2**30:.2f} |"
        )
    if "PyTorch" in row["seconds"]:
        ours, theirs = row["seconds"]["ours"], row["seconds"]["PyTorch"]
        lines += [
            f"\n{ratio(theirs, ours).line('ours/peer throughput')}",
            *(f"losses for equal parameters, {name}: {a:.6f} and {b:.6f}" for name, (a, b) in row["losses"].items()),
            *map(setting_line, row["tried"]),
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(run_command(main))
