"""Seconds per update of music2vec and musicHuBERT, beside the same update in PyTorch.

    python -m benchmarks.pretrain [--model=music2vec|musichubert] [--size=base|large|demo] [--seconds=5] [--batch=2]
                                  [--precision=float32|bfloat16] [--attention_dropout=0] [--device=cpu|gpu]
                                  [--peer=torch|none] [--compile] [--repeats=5]

Ours is the jitted step of training: int16 crops in; normalised, masked, student, teacher, loss, gradients, AdamW,
teacher's average, logged figures. The peer does the same with transformers' modules (`benchmarks.pretrain_torch`): same
parameters, crops, masks and labels, scaled-dot-product attention, autocast for bfloat16, fused AdamW, foreach average.
Before anything is timed, both losses of the first batch have to agree within 1e-4 without dropout in float32. Each side
has a process of its own; they take turns. On a CPU the peer first tries 1, 2 and all threads, and with --compile
torch.compile too; its best setting is timed, the others are listed.

What differs: ours draws its masks in the step, the peer is given them. Ours also logs positional share and swap gap or
accuracy by distance, and keeps the old state if the gradient is not finite. Each draws its own dropout. Layer drop is
off for both, since its draws would decide the time; `large` normalises after its blocks, as transformers' class does.

A row with machine, versions and all times is appended to --results.
"""

import argparse
import datetime
import platform
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import cores, machine, processor, versions
from benchmarks.rows import append
from benchmarks.turns import Side, in_turns
from musicssl_jax.command import ArgumentParser, run_command
from musicssl_jax.errors import UserError

AGREEMENT = 1e-4  # relative, of the losses in float32: sums of some 100,000 terms in another order
PACKAGES = ("jax", "jaxlib", "flax", "torch", "transformers")
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


def parse(argv: list[str]) -> argparse.Namespace:
    parser = ArgumentParser(
        prog="benchmarks.pretrain", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=("music2vec", "musichubert"), default="music2vec")
    parser.add_argument("--size", choices=("base", "large", "demo"), default="base")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a crop")
    parser.add_argument("--batch", type=int, default=2, help="crops in an update")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--attention_dropout", type=float, default=0.1, help="on both sides (paper: .1)")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--peer", choices=("torch", "none"), default="torch")
    parser.add_argument("--compile", action="store_true", help="the peer tries torch.compile as well")
    parser.add_argument("--repeats", type=int, default=5, help="updates that are timed")
    parser.add_argument("--results", default="benchmarks/results/pretrain.jsonl", help="empty: nowhere")
    options = parser.parse_args(argv)
    if options.repeats < 1:
        raise UserError(f"--repeats={options.repeats}: at least one update has to be timed")
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


def compare(options: argparse.Namespace, folder: str) -> dict[str, Any]:
    """The row of results."""
    flags = config_flags(options)
    environment = {"JAX_PLATFORMS": "cpu"} if options.device == "cpu" else {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    # What our training asks of the allocator itself, for the peer as well: it is the faster for it.
    environment |= {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "-1"}
    sides = {"ours": Side("benchmarks.pretrain_ours", **environment)}
    if options.peer == "torch":
        sides["PyTorch"] = Side("benchmarks.pretrain_torch", **environment)
    ours = sides["ours"].ask("prepare", flags=flags, folder=folder, updates=options.repeats + 1)
    row: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "machine": {"processor": processor(), "cores": cores(), "device": ours["device"]},
        "versions": {"python": platform.python_version(), **versions(PACKAGES)},
        "options": {name: value for name, value in vars(options).items() if name != "results"},
        **{name: ours[name] for name in ("parameters", "flops", "peak", "attention")},
    }
    if options.peer == "torch":
        row |= prepared_peer(sides["PyTorch"], options, flags, folder, ours)
    sides["ours"].ask("update", number=0)
    times = in_turns([lambda n, s=s: s.ask("update", number=n)["seconds"] for s in sides.values()], options.repeats)
    row["seconds"] = {name: column.round(4).tolist() for name, column in zip(sides, times.T, strict=True)}
    row["memory"] = {name: side.ask("memory") for name, side in sides.items()}
    for side in sides.values():
        side.close()
    return row


def prepared_peer(
    peer: Side, options: argparse.Namespace, flags: list[str], folder: str, ours: Mapping[str, Any]
) -> dict[str, Any]:
    """Checks that both do the same, and leaves the peer in its best setting. UserError: they do not."""
    theirs = peer.ask("prepare", flags=flags, folder=folder)
    difference = abs(theirs["loss"] / ours["loss"] - 1)
    if theirs["parameters"] != ours["parameters"] or not difference < AGREEMENT:
        raise UserError(
            f"the sides differ: {ours['parameters']} and {theirs['parameters']} parameters, losses {ours['loss']} and "
            f"{theirs['loss']} ({difference:.1e} apart)"
        )
    threads = sorted({1, min(2, cores()), cores()}) if options.device == "cpu" else [cores()]
    tried: list[dict[str, Any]] = []
    for compiled in (False, True) if options.compile else (False,):
        tried += [tried_setting(peer, count, compiled) for count in threads]
    best = min((setting for setting in tried if "seconds" in setting), key=lambda setting: setting["seconds"])
    peer.ask("configure", threads=best["threads"], compiled=best["compiled"])
    peer.ask("update", number=0)
    return {"losses": [ours["loss"], theirs["loss"]], "tried": tried, "best": best}


def tried_setting(peer: Side, threads: int, compiled: bool) -> dict[str, Any]:
    """What an update takes after one to warm up; or why it takes none."""
    setting: dict[str, Any] = {"threads": threads, "compiled": compiled}
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
        ratios = np.array(row["seconds"]["PyTorch"]) / np.array(row["seconds"]["ours"])
        low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
        lines += [
            f"\nratio {middle:.2f} (ours/peer throughput, median of {len(ratios)}, quartiles {low:.2f} and {high:.2f})",
            f"losses for equal parameters, float32: {row['losses'][0]:.6f} and {row['losses'][1]:.6f}",
            *(f"peer, {setting_line(setting)}" for setting in row["tried"]),
        ]
    return "\n".join(lines)


def setting_line(setting: Mapping[str, Any]) -> str:
    how = "torch.compile" if setting["compiled"] else "eager"
    result = f"{setting['seconds']:.3g} s" if "seconds" in setting else f"failed: {setting['failed']}"
    return f"{setting['threads']} threads, {how}: {result}"


if __name__ == "__main__":
    sys.exit(run_command(main))
