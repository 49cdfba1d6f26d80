"""Probes trained per second on the CPU, beside PyTorch.

    python -m benchmarks.probe [--train=443] [--valid=197] [--layers=13] [--width=768] [--outputs=10] [--epochs=3]
                               [--peer_threads=1,2] [--peer=torch|none] [--repeats=5] [--whole]

The grid of a task as large as GTZAN: an MLP of 512 units for each of 13 layers and 6 rates, and 6 on a weighted sum of
layers, batches of 64, Adam, dropout, the validation part answered after each epoch. Both sides train every probe for
the same epochs, with nothing stopped; training losses without dropout are compared first. Ours is `train_probes`, the
inside of `musicssl evaluate`. The peer has the same probes as PyTorch modules. It first tries one after the other with
fused Adam, and all layers of a rate at once as batched products with fused Adam, each with every number of threads that
is named (by default 1, 2 and all), in a process of its own; the best is timed, the others are listed. It has the
allocator's settings that training has, ours has what its command has: none.

Each side has a process of its own, and stands still while the other is timed; CPU seconds are of all its threads. A row
with machine, versions and all times is appended to --results. --whole also times the whole of ours once: the grid with
each probe's own end, then the choice with five seeds.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.comparison import (
    ALLOCATOR,
    Row,
    beside,
    each,
    gflops,
    median,
    memory,
    mfu,
    need,
    table,
    thread_counts,
    verdict,
)
from benchmarks.flags import listed, whole
from benchmarks.machine import machine
from benchmarks.probe_problem import Sizes
from benchmarks.rows import append, origin
from benchmarks.turns import Side
from musicssl_jax.command import ArgumentParser, run_command
from musicssl_jax.errors import UserError

AGREEMENT = 1e-3  # of the first epoch's loss, in float32
COMPARED_EPOCHS = 2
PACKAGES = ("jax", "jaxlib", "torch", "numpy")
PEER = "PyTorch"


def main(argv: list[str]) -> None:
    options = parse(argv)
    sizes = ", ".join(f"{value} {name}" for name, value in sizes_of(options)._asdict().items())
    print(f"{machine(PACKAGES)}\n{sizes}; {options.epochs} epochs\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        row = compare(options, folder)
    print(shown(row))
    if options.results:
        append(row, Path(options.results))


def compare(options: argparse.Namespace, folder: str) -> dict[str, Any]:
    """The row of results. UserError: the sides give other losses."""
    prepare = {"sizes": sizes_of(options), "epochs": options.epochs, "folder": folder}
    ours = Side("benchmarks.probe_ours", JAX_PLATFORMS="cpu")
    made = ours.ask("prepare", **prepare)
    row = origin(PACKAGES, made["device"])
    row["options"] = {name: value for name, value in vars(options).items() if name != "results"}
    row |= made["row"]

    def peer() -> Side:
        side = Side("benchmarks.probe_torch", **ALLOCATOR)
        side.ask("prepare", **prepare)
        return side

    if options.whole:
        row["whole"] = whole_task(prepare)
    if options.peer == "none":
        return row | beside(ours, PEER, None, [], options.repeats)
    row["difference"] = difference(ours, peer())
    settings = [
        {"threads": threads, "how": how} for how in ("one by one", "batched") for threads in options.peer_threads
    ]
    return row | beside(ours, PEER, peer, settings, options.repeats)


def whole_task(prepare: dict[str, Any]) -> dict[str, Any]:
    """Seconds of a whole task of ours, in a process of its own; its layer and validation score."""
    side = Side("benchmarks.probe_ours", JAX_PLATFORMS="cpu")
    side.ask("prepare", **prepare)
    told = side.ask("whole")
    side.close()
    return told


def difference(ours: Side, peer: Side) -> float:
    """Of the sides' losses, at most, as a share of their first epoch's: equal begin, equal batches, no dropout.

    Ends the peer. UserError: it is too large.
    """
    mine, theirs = (np.array(side.ask("losses", epochs=COMPARED_EPOCHS)) for side in (ours, peer))
    peer.close()
    off = float(np.max(np.abs(mine - theirs) / theirs[:, :1]))  # later losses go to nothing
    if not off < AGREEMENT:
        raise UserError(f"the sides differ: their losses are {off:.1e} of their first epoch's apart")
    return off


def shown(row: Row) -> str:
    """The table, and how the sides compare."""
    columns = {
        "": lambda row, name: name,
        "seconds": each("seconds"),
        "median": median("seconds"),
        "CPU seconds, median": median("cpu_seconds"),
        "GFLOP/s": gflops,
        "MFU": mfu,
        "GiB": memory,
    }
    lines = [table([row], columns), ""]
    if "whole" in row:
        lines.append("the whole task: {seconds:.0f} s (layer {layer}, validation {valid:.2f})".format(**row["whole"]))
    if PEER in row["seconds"]:
        lines.append(f"losses differ by {row['difference']:.0e} of their first epoch's at most")
        lines.append(verdict(row, PEER))
    return "\n".join(lines)


def sizes_of(options: argparse.Namespace) -> Sizes:
    return Sizes(*(getattr(options, name) for name in Sizes._fields))


def parse(argv: list[str]) -> argparse.Namespace:
    parser = ArgumentParser(
        prog="benchmarks.probe", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, value in Sizes(train=443, valid=197, test=290, layers=13, width=768, outputs=10)._asdict().items():
        parser.add_argument(f"--{name}", type=whole(LEAST.get(name, 1)), default=value)
    parser.add_argument("--epochs", type=whole(), default=3)
    parser.add_argument("--repeats", type=whole(), default=5, help="rounds that are timed")
    parser.add_argument("--peer", choices=("torch", "none"), default="torch")
    parser.add_argument("--peer_threads", type=listed(whole()), default=thread_counts(), help="default 1, 2 and all")
    parser.add_argument("--whole", action="store_true", help="time a whole task of ours as well")
    parser.add_argument("--results", default="benchmarks/results/probe.jsonl", help="empty: nowhere")
    options = parser.parse_args(argv)
    if options.peer == "torch":
        need("torch", ("torch",))
    return options


LEAST = {"layers": 3, "outputs": 2}
"""Of sizes that 1 is too small for."""


if __name__ == "__main__":
    sys.exit(run_command(main))
