"""Seconds of audio embedded per second on the CPU, beside transformers' PyTorch models.

    python -m benchmarks.embed [--model=music2vec|musichubert] [--size=base|demo] [--files=6] [--seconds=60]
                               [--peer_batch=1,2] [--peer_threads=1,2] [--peer=torch|none] [--repeats=5]

The same PCM16 files on both sides, the same windows (30 s that overlap by twice 2.5 s of context), the same output: the
mean over each file of all hidden states. Ours is `embed_files`, the inside of `musicssl embed`, which also decodes in
other processes, keeps the books and writes an .npz for each file. The peer is transformers' model of the same sizes, in
eager mode with its default attention, in inference mode; reading its files with soundfile is timed as well. It runs
with every number of threads and every batch size that is named, and the best of them by its median is what counts.
One process runs all sides in turns after a warm-up of each, so that other load on the machine falls on all; ratios are
taken between neighbours, and their median counts. CPU seconds, of all threads and of decoding processes, are shown
too: they hang less on what else runs.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import soundfile

from benchmarks.machine import machine
from data_pipelines.musicbox import render_track
from data_pipelines.sources import walk_folder
from musicssl_jax import config as configs
from musicssl_jax.command import ArgumentParser, run_command
from musicssl_jax.embedding.embed_files import Options, embed_files, open_writer
from musicssl_jax.embedding.shared_folder import SharedFolder
from musicssl_jax.embedding.windows import plan_windows
from musicssl_jax.errors import UserError
from musicssl_jax.frozen_encoder import FrozenEncoder, frozen_encoder
from musicssl_jax.models.objective import make_objective

WINDOW_SECONDS, CONTEXT_SECONDS = 30.0, 2.5
VARIANTS = {"music2vec": {"base": "base", "demo": "demo"}, "musichubert": {"base": "k500", "demo": "demo"}}
PACKAGES = ("jax", "torch", "transformers")


class Side(NamedTuple):
    """One of those that are compared; `embed()` does all files."""

    name: str
    embed: Callable[[], Any]


def main(argv: list[str]) -> None:
    options = parse(argv)
    jax.config.update("jax_platforms", "cpu")
    variant = VARIANTS[options.model][options.size]
    config = configs.load([f"--config=configs/{options.model}.py:{variant}", "--config.precision=float32"])[0]
    params = jax.jit(make_objective(config).init)(jax.random.key(0))["encoder"]
    encoder = frozen_encoder(config, params, name=options.model)
    with tempfile.TemporaryDirectory(prefix="musicssl-benchmark-") as folder:
        write_files(Path(folder, "audio"), options, config.data.sample_rate)
        sides = [Side("ours", lambda: ours(encoder, Path(folder)))]
        if options.peer == "torch":
            sides += peers(config, encoder, Path(folder, "audio"), options)
        print(f"{machine(PACKAGES)}\n{options.model} {options.size}, {options.files} files of {options.seconds:g} s")
        times, cpu = measure(sides, options.repeats)
    print("\n" + table(sides, times, cpu, options.files * options.seconds))
    if options.peer == "torch":
        best = 1 + int(np.argmin(np.median(times[:, 1:], axis=0)))
        ratio, of_cpu = (np.median(spent[:, best] / spent[:, 0]) for spent in (times, cpu))
        print(f"\nCPU seconds, peer/ours: {of_cpu:.2f}")
        print(f"ratio {ratio:.2f} (ours/peer throughput, median of {options.repeats})")


def write_files(folder: Path, options: argparse.Namespace, sample_rate: int) -> None:
    folder.mkdir()
    for number in range(options.files):
        audio, _ = render_track([11, number], "plucked", seconds=options.seconds, sample_rate=sample_rate)
        soundfile.write(folder / f"{number:03}.wav", audio, sample_rate, subtype="PCM_16")


def ours(encoder: FrozenEncoder, folder: Path) -> None:
    """What the command does once it has its encoder."""
    options = Options(layers=range(encoder.layers + 1), window_seconds=WINDOW_SECONDS, context_seconds=CONTEXT_SECONDS)
    with SharedFolder(folder / "features", {}, skip_existing=False) as shared:
        summary = embed_files(
            encoder, walk_folder(str(folder / "audio")), shared, open_writer("npz", shared, encoder, options), options
        )
    assert not summary.rejects


def peers(config: Any, encoder: FrozenEncoder, folder: Path, options: argparse.Namespace) -> list[Side]:
    """The same in PyTorch, in all ways that are asked for. UserError: PyTorch or transformers is missing."""
    # Threads that spin at PyTorch's barriers take the cores from whatever else runs.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        from benchmarks.embed_torch import Peer
    except ImportError as error:
        raise UserError(f"--peer=torch: {error}; install torch and transformers, or take --peer=none") from None
    size, context = encoder.window_frames(WINDOW_SECONDS, CONTEXT_SECONDS)
    peer = Peer(config, encoder.grid, lambda frames: plan_windows(frames, size, context))
    return [
        Side(f"PyTorch, {threads} threads, batch {batch}", lambda t=threads, b=batch: peer.embed(folder, t, b))
        for threads in options.peer_threads
        for batch in options.peer_batch
    ]


def measure(sides: Sequence[Side], repeats: int) -> tuple[np.ndarray, np.ndarray]:
    """(seconds, CPU seconds), (repeats, sides) each. The order changes from turn to turn; the first turn warms up."""
    times, cpu = np.zeros((2, repeats + 1, len(sides)))
    for turn in range(repeats + 1):
        for place in range(len(sides))[:: 1 if turn % 2 else -1]:
            began, spent = time.perf_counter(), sum(os.times()[:4])
            sides[place].embed()
            times[turn, place], cpu[turn, place] = time.perf_counter() - began, sum(os.times()[:4]) - spent
    return times[1:], cpu[1:]


def table(sides: Sequence[Side], times: np.ndarray, cpu: np.ndarray, audio_seconds: float) -> str:
    lines = ["| | seconds | median | audio seconds per second | CPU seconds, median |", "|---|---|---|---|---|"]
    for side, column, spent in zip(sides, times.T, cpu.T, strict=True):
        each = ", ".join(f"{seconds:.1f}" for seconds in column)
        median = np.median(column)
        lines.append(f"| {side.name} | {each} | {median:.1f} | {audio_seconds / median:.2f} | {np.median(spent):.1f} |")
    return "\n".join(lines)


def parse(argv: list[str]) -> argparse.Namespace:
    parser = ArgumentParser(
        prog="benchmarks.embed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=tuple(VARIANTS), default="music2vec")
    parser.add_argument("--size", choices=("base", "demo"), default="base")
    parser.add_argument("--files", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=60.0, help="length of a file")
    parser.add_argument("--peer", choices=("torch", "none"), default="torch")
    parser.add_argument("--peer_threads", type=_numbers, default=[1, 2], help="default 1,2")
    parser.add_argument("--peer_batch", type=_numbers, default=[1, 2], help="windows at once (default 1,2)")
    parser.add_argument("--repeats", type=int, default=5, help="rounds that are timed")
    options = parser.parse_args(argv)
    if min(options.repeats, options.files) < 1:
        raise UserError("--repeats and --files: want at least 1")
    if options.seconds < WINDOW_SECONDS:
        raise UserError(f"--seconds={options.seconds:g}: the peer pads nothing, so want at least {WINDOW_SECONDS:g}")
    return options


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


if __name__ == "__main__":
    sys.exit(run_command(main))
