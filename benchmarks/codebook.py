"""Fitting a codebook: our k-means beside scikit-learn's MiniBatchKMeans, on the same frames.

    python -m benchmarks.codebook [--clusters=100,500,2000] [--repeats=5] [--tracks=50] [--peer_threads=1,2]

Frames are 39-dimensional MFCCs with deltas (librosa, 100 a second) of synthetic music. Both have the reference's
options: batches of 10,000 frames drawn with replacement, a greedy k-means++ start from 30,000 frames of which the best
of 20 is taken, no reassignment, and an end after 100 batches without improvement of the smoothed inertia, smoothed with
scikit-learn's constant. Both get float32 frames that lie in memory. Inertia is that of the finished centroids on all
frames, in float64. No fit is repeated: each has a seed of its own. Ours includes compilation, as it does in a run: of
its update in every fit, of its start in the first.

For every number of clusters both sides have a new process each, and one stands still while the other is timed.
scikit-learn first tries every number of threads that is named (by default 1, 2 and all), a fit each; the best is timed,
the others are listed. It has the allocator's settings that training has, ours has none. A row for every number of
clusters, with machine, versions and all times, is appended to --results.

What differs: scikit-learn draws other 30,000 frames for every restart and one more sample to compare them on, ours
draws one sample for all of it.
"""

import argparse
import dataclasses
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.comparison import (
    ALLOCATOR,
    Columns,
    Row,
    beside,
    each,
    median,
    memory,
    table,
    thread_counts,
    verdict,
)
from benchmarks.flags import listed, whole
from benchmarks.machine import machine
from benchmarks.rows import append, origin
from benchmarks.turns import Side
from data_pipelines.musicbox import FAMILIES, render_track
from musicssl_jax.command import ArgumentParser, run_command
from musicssl_jax.errors import UserError
from musicssl_jax.shapes import Float
from musicssl_jax.targets.fitting import FitOptions

PACKAGES = ("jax", "jaxlib", "scikit-learn", "numpy", "librosa")
PEER = "scikit-learn"
RATE, HOP, WINDOW = 16000, 160, 400
TRACK_FRAMES = 6000  # of a minute
REFERENCE = FitOptions()


def main(argv: list[str]) -> None:
    options = parse(argv)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "frames.npy"
        np.save(file, frames := mfccs(options.tracks))
        print(f"{machine(PACKAGES)}\n{len(frames):,} frames of {frames.shape[1]} dimensions\n", flush=True)
        for clusters in options.clusters:
            began = time.monotonic()
            rows.append(compare(options, clusters, file))
            if options.results:
                append(rows[-1], Path(options.results))
            print(f"{clusters} clusters: {time.monotonic() - began:.0f} s", flush=True)
    print(shown(rows))


def compare(options: argparse.Namespace, clusters: int, frames: Path) -> dict[str, Any]:
    """The row of results for so many clusters. frames: their file."""
    fit = {"frames": str(frames), "clusters": clusters, "options": dataclasses.asdict(REFERENCE)}

    ours = Side("benchmarks.codebook_ours", JAX_PLATFORMS="cpu")
    ours.ask("prepare", **fit)

    def peer() -> Side:
        side = Side("benchmarks.codebook_sklearn", **ALLOCATOR)
        side.ask("prepare", **fit)
        return side

    row = origin(PACKAGES, "cpu")
    kept = {name: getattr(options, name) for name in ("tracks", "repeats", "peer_threads")}
    row["options"] = {"clusters": clusters, **kept}
    settings = [{"threads": threads} for threads in options.peer_threads]
    return row | beside(ours, PEER, peer, settings, options.repeats, warm=False)


def mfccs(tracks: int) -> Float[np.ndarray, "N 39"]:
    """Frames of one-minute tracks, in both families of sound by turns."""
    import librosa

    def frames(number):
        audio, _ = render_track([77, number], FAMILIES[number % len(FAMILIES)], sample_rate=RATE)
        cepstra = librosa.feature.mfcc(y=audio, sr=RATE, n_mfcc=13, n_fft=512, win_length=WINDOW, hop_length=HOP)
        return np.concatenate([cepstra, *(librosa.feature.delta(cepstra, width=5, order=n) for n in (1, 2))]).T

    return np.concatenate([frames(number) for number in range(tracks)]).astype(np.float32)


COLUMNS: Columns = {
    "clusters": lambda row, name: str(row["options"]["clusters"]),
    "": lambda row, name: name,
    "seconds": each("seconds", ".1f"),
    "median": median("seconds", ".1f"),
    "batches": each("batches", "d"),
    "inertia": each("inertia", ".1f"),
    "median inertia": median("inertia", ".1f"),
    "GiB": memory,
}


def shown(rows: list[Row]) -> str:
    """The table, and how the sides compare for each number of clusters."""
    lines = ["", table(rows, COLUMNS), ""]
    for row in rows:
        inertia = np.median(row["inertia"]["ours"]) / np.median(row["inertia"][PEER])
        lines.append(f"{row['options']['clusters']} clusters, inertia ours/peer {inertia:.4f}; {verdict(row, PEER)}")
    return "\n".join(lines)


def parse(argv: list[str]) -> argparse.Namespace:
    parser = ArgumentParser(
        prog="benchmarks.codebook", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clusters", type=listed(whole(2)), default=[100, 500, 2000], help="default 100,500,2000")
    parser.add_argument("--repeats", type=whole(), default=5, help="fits of each side")
    parser.add_argument(
        "--tracks", type=whole(-(-REFERENCE.initial_frames // TRACK_FRAMES)), default=50, help="minutes"
    )
    parser.add_argument("--peer_threads", type=listed(whole()), default=thread_counts(), help="default 1, 2 and all")
    parser.add_argument("--results", default="benchmarks/results/codebook.jsonl", help="empty: nowhere")
    options = parser.parse_args(argv)
    if max(options.clusters) > REFERENCE.initial_frames:
        raise UserError(f"--clusters={max(options.clusters)}: they start from {REFERENCE.initial_frames} frames")
    return options


if __name__ == "__main__":
    sys.exit(run_command(main))
