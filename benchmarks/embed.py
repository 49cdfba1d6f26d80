"""Seconds of audio embedded per second on the CPU, beside transformers' PyTorch models.

    python -m benchmarks.embed [--model=music2vec|musichubert] [--size=base|demo] [--files=6] [--seconds=60]
                               [--peer_batch=1,2] [--peer_threads=1,2] [--peer=torch|none] [--repeats=5]

The same parameters and PCM16 files on both sides, the same windows (30 s that overlap by twice 2.5 s of context), the
same output: the mean over each file of all hidden states, which are compared first. Ours is `embed_files`, the inside
of `musicssl embed`, which also decodes in other processes, keeps the books and writes an .npz for each file. The peer
is transformers' model in eager mode with its default attention, in inference mode; reading its files with soundfile is
timed as well. It first tries every number of threads (by default 1, 2 and all) with every batch size, each in a process
of its own; the best is timed, the others are listed. It has the allocator's settings that training has, ours has what
its command has: none.

Each side has a process of its own, and stands still while the other is timed. Memory is the most that a side's process
held, without our decoding processes; CPU seconds are of all threads and decoding processes. A row with machine,
versions and all times is appended to --results.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

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
    ratio,
    table,
    thread_counts,
    verdict,
)
from benchmarks.flags import listed, seconds, whole
from benchmarks.machine import machine
from benchmarks.rows import append, origin
from benchmarks.turns import Side
from data_pipelines.musicbox import render_track
from musicssl_jax.command import ArgumentParser, run_command
from musicssl_jax.errors import UserError

WINDOWS = {"window_seconds": 30.0, "context_seconds": 2.5}
AGREEMENT = 1e-3  # of a layer's largest mean: sums in float32 through all blocks, in another order
RATE = 16000
VARIANTS = {"music2vec": {"base": "base", "demo": "demo"}, "musichubert": {"base": "k500", "demo": "demo"}}
PACKAGES = ("jax", "jaxlib", "torch", "transformers", "numpy")
PEER = "PyTorch"


def main(argv: list[str]) -> None:
    options = parse(argv)
    what = f"{options.model} {options.size}, {options.files} files of {options.seconds:g} s, float32"
    print(f"{machine(PACKAGES)}\n{what}\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="musicssl-benchmark-") as folder:
        row = compare(options, Path(folder))
    print(shown(row))
    if options.results:
        append(row, Path(options.results))


def compare(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The row of results. UserError: the sides give other means."""
    write_files(folder / "audio", options)
    ours = Side("benchmarks.embed_ours", JAX_PLATFORMS="cpu")
    flags = [f"--config=configs/{options.model}.py:{VARIANTS[options.model][options.size]}"]
    flags.append("--config.precision=float32")
    made = ours.ask("prepare", flags=flags, folder=str(folder), options=WINDOWS, seconds=options.seconds)
    row = origin(PACKAGES, made["device"])
    row["options"] = {name: value for name, value in vars(options).items() if name != "results"}
    row |= made["row"]

    def peer() -> Side:
        side = Side("benchmarks.embed_torch", **ALLOCATOR)
        side.ask("prepare", folder=str(folder), **made["model"])
        return side

    if options.peer == "none":
        return row | beside(ours, PEER, None, [], options.repeats)
    row["difference"] = difference(ours, peer(), folder)
    settings = [
        {"threads": threads, "batch": batch} for threads in options.peer_threads for batch in options.peer_batch
    ]
    return row | beside(ours, PEER, peer, settings, options.repeats)


def write_files(folder: Path, options: argparse.Namespace) -> None:
    folder.mkdir()
    for number in range(options.files):
        audio, _ = render_track([11, number], "plucked", seconds=options.seconds, sample_rate=RATE)
        soundfile.write(folder / f"{number:03}.wav", audio, RATE, subtype="PCM_16")


def difference(ours: Side, peer: Side, folder: Path) -> float:
    """Of the sides' means, at most, as a share of their layer's largest. Ends the peer. UserError: it is too large."""
    ours.ask("work", number=0)
    peer.ask("save", file=str(folder / "theirs.npy"))
    peer.close()
    mine = np.stack([np.load(file)["features"][:, 0] for file in sorted((folder / "features").glob("*.npz"))])
    theirs = np.load(folder / "theirs.npy")
    largest = np.abs(theirs).max(axis=(0, 2), keepdims=True)
    off = float(np.max(np.abs(mine - theirs) / largest))
    if not off < AGREEMENT:
        raise UserError(f"the sides differ: their means are {off:.1e} of a layer's largest apart")
    return off


def shown(row: Row) -> str:
    """The table, and how the sides compare."""
    audio = row["options"]["files"] * row["options"]["seconds"]
    columns = {
        "": lambda row, name: name,
        "seconds": each("seconds"),
        "median": median("seconds"),
        "audio seconds per second": lambda row, name: f"{audio / np.median(row['seconds'][name]):.2f}",
        "CPU seconds, median": median("cpu_seconds"),
        "GFLOP/s": gflops,
        "MFU": mfu,
        "GiB": memory,
    }
    lines = [table([row], columns)]
    if PEER in row["seconds"]:
        of_cpu = ratio(row["cpu_seconds"][PEER], row["cpu_seconds"]["ours"])
        lines += [
            f"\nmeans differ by {row['difference']:.0e} of their layer's largest at most",
            f"CPU seconds, peer/ours: {of_cpu}",
            verdict(row, PEER),
        ]
    return "\n".join(lines)


def parse(argv: list[str]) -> argparse.Namespace:
    parser = ArgumentParser(
        prog="benchmarks.embed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=tuple(VARIANTS), default="music2vec")
    parser.add_argument("--size", choices=("base", "demo"), default="base")
    parser.add_argument("--files", type=whole(), default=6)
    # A file is no shorter than a window, since the peer pads nothing.
    parser.add_argument("--seconds", type=seconds(30, 3600), default=60.0, help="length of a file")
    parser.add_argument("--peer", choices=("torch", "none"), default="torch")
    parser.add_argument("--peer_threads", type=listed(whole()), default=thread_counts(), help="default 1, 2 and all")
    parser.add_argument("--peer_batch", type=listed(whole()), default=[1, 2], help="windows at once (default 1,2)")
    parser.add_argument("--repeats", type=whole(), default=5, help="rounds that are timed")
    parser.add_argument("--results", default="benchmarks/results/embed.jsonl", help="empty: nowhere")
    options = parser.parse_args(argv)
    if options.peer == "torch":
        need("torch", ("torch", "transformers"))
    return options


if __name__ == "__main__":
    sys.exit(run_command(main))
