"""How much the seams between windows show in embeddings, for several contexts.

    python -m benchmarks.seams [--checkpoint=random:configs/music2vec.py ...] [--tracks=2] [--window_seconds=30]

Tracks of musicbox, twice as long as a window, are encoded in one pass and in two windows that meet in the middle, each
with c seconds of context beyond the seam, all by the whole track's mean and standard deviation. Per context and hidden
layer, over all tracks:

    seam     largest difference from one pass within half a second of the seam, relative to the layer's largest value
    inside   the same, but from 5 to 10 seconds away from the seam: what one pass sees and a window does not
    cosine   the smallest cosine between a frame of one pass and of the windows, within half a second of the seam
    jump     distance between the two frames at the seam, divided by that of the same frames in one pass (median)

A seam does not show if `seam` is no larger than `inside` and `jump` is near 1.
"""

import argparse
import sys
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from benchmarks.machine import machine
from data_pipelines.musicbox import render_track
from musicssl_jax.command import ArgumentParser, run_command
from musicssl_jax.encoder_io import load_encoder
from musicssl_jax.frozen_encoder import FrozenEncoder

CONTEXTS = (0.0, 0.5, 1.0, 2.5, 5.0)
RANDOM = ("random:configs/music2vec.py", "random:configs/musichubert.py:k500")
NEAR, INSIDE = (0.0, 0.5), (5.0, 10.0)  # seconds from the seam


class Seam(NamedTuple):
    """Figures of one context, by layer."""

    seam: np.ndarray
    inside: np.ndarray
    cosine: np.ndarray
    jump: np.ndarray


def main(argv: list[str]) -> None:
    options = _parse(argv)
    jax.config.update("jax_platforms", "cpu")
    print(f"{machine(['jax'])}\n{options.tracks} tracks, windows of {options.window_seconds:g} s")
    for checkpoint in options.checkpoint or RANDOM:
        encoder = load_encoder(checkpoint)
        found = [measure(encoder, track, options.window_seconds) for track in tqdm(tracks(options), disable=None)]
        print(f"\n`{checkpoint}`\n\n{table(encoder, found)}", flush=True)


def tracks(options: argparse.Namespace) -> Iterator[np.ndarray]:
    """Audio that makes a whole number of frames, so that one pass needs no padding."""
    for number in range(options.tracks):
        yield render_track([7, number], "plucked", seconds=2 * options.window_seconds + 0.005)[0]


def measure(encoder: FrozenEncoder, waveform: np.ndarray, window_seconds: float) -> list[Seam]:
    """Figures of each of CONTEXTS."""
    statistics = {"mean": float(waveform.mean()), "std": float(waveform.std())}
    rate = encoder.sample_rate // encoder.hop
    size = round(window_seconds * rate)  # and the seam's frame

    def encode(first: int, frames: int) -> np.ndarray:
        samples = (frames - 1) * encoder.hop + encoder.receptive_field
        audio = waveform[first * encoder.hop :][:samples]
        return encoder(audio, **statistics, window_seconds=frames / rate)["hidden"]

    one_pass = encode(0, 2 * size)
    seams = []
    for context in (round(seconds * rate) for seconds in CONTEXTS):
        before = encode(context, size)[:, : size - context]
        after = encode(size - context, size)[:, context:]
        windowed = np.concatenate([before, after], axis=1)
        seams.append(compare(one_pass[:, context : 2 * size - context], windowed, size - context, rate))
    return seams


def compare(one_pass: np.ndarray, windowed: np.ndarray, seam: int, rate: int) -> Seam:
    """Figures of two (layers, T, width) that are to be the same; `seam`: number of the first frame behind it."""

    def at(seconds: tuple[float, float]) -> np.ndarray:
        near, far = (round(second * rate) for second in seconds)
        return np.r_[seam - far : seam - near, seam + near : seam + far]

    def error(frames: np.ndarray) -> np.ndarray:
        return np.abs(windowed - one_pass)[:, frames].max((1, 2)) / np.abs(one_pass).max((1, 2))

    a, b = one_pass[:, at(NEAR)], windowed[:, at(NEAR)]
    cosine = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    steps = [np.linalg.norm(x[:, seam] - x[:, seam - 1], axis=-1) for x in (windowed, one_pass)]
    return Seam(error(at(NEAR)), error(at(INSIDE)), cosine.min(1), steps[0] / steps[1])


def table(encoder: FrozenEncoder, found: list[list[Seam]]) -> str:
    """One row for each context and some layers: first, middle, last."""
    lines = ["| context | layer | seam | inside | cosine | jump |", "|---|---|---|---|---|---|"]
    for context, seams in zip(CONTEXTS, zip(*found, strict=True), strict=True):
        for layer in (0, encoder.layers // 2, encoder.layers):
            seam, inside = (max(getattr(s, name)[layer] for s in seams) for name in ("seam", "inside"))
            cosine, jump = min(s.cosine[layer] for s in seams), np.median([s.jump[layer] for s in seams])
            lines.append(f"| {context:g} s | {layer} | {seam:.2g} | {inside:.2g} | {cosine:.5f} | {jump:.2f} |")
    return "\n".join(lines)


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = ArgumentParser(
        prog="benchmarks.seams", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", action="append", help="may be given several times (default: base, random)")
    parser.add_argument("--tracks", type=int, default=2)
    parser.add_argument("--window_seconds", type=float, default=30.0)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(run_command(main))
