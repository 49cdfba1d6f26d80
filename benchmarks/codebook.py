"""Fitting a codebook: our k-means beside scikit-learn's MiniBatchKMeans, on the same frames.

    python -m benchmarks.codebook [--clusters=100,500,2000] [--seeds=5] [--tracks=50]

Frames are 39-dimensional MFCCs with deltas (librosa, 100 a second) of synthetic music. Both have the reference's
options: batches of 10,000 frames drawn with replacement, a greedy k-means++ start from 30,000 frames of which the best
of 20 is taken, no reassignment, and an end after 100 batches without improvement of the smoothed inertia, smoothed with
scikit-learn's constant. Both get float32 frames that lie in memory and all cores that the process may use; they take
turns, seed by seed. Inertia is that of the finished centroids on all frames. A ratio is taken for each seed, and its
median counts; our first seed includes the compilation.

What differs: scikit-learn draws other 30,000 frames for every restart and one more sample to compare them on, ours
draws one sample for all of it.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.machine import machine
from data_pipelines.musicbox import FAMILIES, render_track
from musicssl_jax.command import ArgumentParser, run_command
from musicssl_jax.errors import UserError
from musicssl_jax.parallel import make_mesh
from musicssl_jax.shapes import Float
from musicssl_jax.targets.fitting import FitOptions
from musicssl_jax.targets.kmeans import assign, initial_state, make_update, starts

PACKAGES = ("jax", "scikit-learn", "numpy", "librosa")
RATE, HOP, WINDOW = 16000, 160, 400
REFERENCE = FitOptions()


class Fitted(NamedTuple):
    """Seconds that a fit took, batches it had, and its inertia on all frames."""

    seconds: float
    batches: int
    inertia: float


def main(argv: list[str]) -> None:
    options = parse(argv)
    jax.config.update("jax_platforms", "cpu")
    frames = mfccs(options.tracks)
    print(f"{machine(PACKAGES)}\n{len(frames):,} frames of {frames.shape[1]} dimensions\n\n{HEADER}", flush=True)
    for clusters in options.clusters:
        pairs = [[fit(frames, clusters, seed) for fit in (ours, theirs)] for seed in range(options.seeds)]
        print(row(clusters, pairs), flush=True)
    ratio = np.median([peer.seconds / own.seconds for own, peer in pairs])
    print(f"\nratio {ratio:.2f} (ours/peer throughput, median of {len(pairs)})")


def parse(argv: list[str]) -> argparse.Namespace:
    parser = ArgumentParser(
        prog="benchmarks.codebook", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clusters", type=numbers, default=(100, 500, 2000), help="the last is that of the last line")
    parser.add_argument("--seeds", type=int, default=5, help="fits of each")
    parser.add_argument("--tracks", type=int, default=50, help="minutes of music")
    options = parser.parse_args(argv)
    if options.seeds < 1 or options.tracks * 6000 < REFERENCE.initial_frames:
        raise UserError("at least one seed and 5 tracks are needed")
    return options


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


def mfccs(tracks: int) -> Float[np.ndarray, "N 39"]:
    """Frames of one-minute tracks, in both families of sound by turns."""
    import librosa

    def frames(number):
        audio, _ = render_track([77, number], FAMILIES[number % len(FAMILIES)], sample_rate=RATE)
        cepstra = librosa.feature.mfcc(y=audio, sr=RATE, n_mfcc=13, n_fft=512, win_length=WINDOW, hop_length=HOP)
        return np.concatenate([cepstra, *(librosa.feature.delta(cepstra, width=5, order=n) for n in (1, 2))]).T

    return np.concatenate([frames(number) for number in range(tracks)]).astype(np.float32)


def ours(frames: Float[np.ndarray, "N W"], clusters: int, seed: int) -> Fitted:
    began = time.perf_counter()
    rng = np.random.default_rng(seed)
    size = REFERENCE.batch_frames

    def drawn(count):
        return jnp.asarray(frames[rng.integers(0, len(frames), count)])

    update = make_update(make_mesh(1, 1), smoothing=min(1.0, 2 * size / (len(frames) + 1)))
    sample = drawn(REFERENCE.initial_frames)
    start, _ = starts(jax.random.key(seed), sample, clusters=clusters, restarts=REFERENCE.restarts)
    state, valid = initial_state(start), jnp.ones(size, bool)
    while state.stale < REFERENCE.patience:
        state, _ = update(state, drawn(size), valid)
    seconds = time.perf_counter() - began
    return Fitted(seconds, int(state.step), inertia(frames, state.centroids))


def theirs(frames: Float[np.ndarray, "N W"], clusters: int, seed: int) -> Fitted:
    from sklearn.cluster import MiniBatchKMeans

    model = MiniBatchKMeans(
        n_clusters=clusters,
        n_init=REFERENCE.restarts,
        batch_size=REFERENCE.batch_frames,
        init_size=REFERENCE.initial_frames,
        max_no_improvement=REFERENCE.patience,
        max_iter=10_000,  # passes; as many as patience takes
        tol=0.0,
        reassignment_ratio=REFERENCE.reassignment_ratio,
        compute_labels=False,
        random_state=seed,
    )
    began = time.perf_counter()
    model.fit(frames)
    seconds = time.perf_counter() - began
    return Fitted(seconds, model.n_steps_, inertia(frames, jnp.asarray(model.cluster_centers_)))


def inertia(frames: Float[np.ndarray, "N W"], centroids: jax.Array) -> float:
    """Mean squared distance to the nearest centroid, summed in float64."""
    nearest = jax.jit(lambda part: ((part - centroids[assign(centroids, part)]) ** 2).sum(-1))
    parts = np.array_split(frames, -(-len(frames) // REFERENCE.batch_frames))
    return float(np.concatenate([nearest(jnp.asarray(part)) for part in parts]).mean(dtype=np.float64))


HEADER = "| clusters | | seconds | median | batches | inertia | median |\n|---|---|---|---|---|---|---|"


def row(clusters: int, pairs: Sequence[Sequence[Fitted]]) -> str:
    """Two lines of the table, and the two ratios."""
    lines = []
    for name, column in zip(("ours", "scikit-learn"), zip(*pairs, strict=True), strict=True):
        seconds, batches, values = (np.array(values) for values in zip(*column, strict=True))
        lines.append(
            f"| {clusters} | {name} | {listed(seconds, '.1f')} | {np.median(seconds):.1f} | {listed(batches, 'd')} "
            f"| {listed(values, '.1f')} | {np.median(values):.1f} |"
        )
    faster = np.median([peer.seconds / own.seconds for own, peer in pairs])
    own, peer = (np.median([fitted.inertia for fitted in column]) for column in zip(*pairs, strict=True))
    lines.append(f"| {clusters} | ratio | | {faster:.2f} times faster | | | {own / peer:.4f} |")
    return "\n".join(lines)


def listed(values: np.ndarray, form: str) -> str:
    return ", ".join(format(value, form) for value in values)


if __name__ == "__main__":
    sys.exit(run_command(main))
