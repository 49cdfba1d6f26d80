"""The music in memory: musicbox tracks, to train on and to probe, and pieces of one's own to train on."""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.learning.folders import Line, Track, read
from benchmarks.learning.labels import group_numbers
from data_pipelines.musicbox import Family, render_track
from musicssl_jax.errors import UserError
from musicssl_jax.shapes import Float, Int, Int16

HEARD: Family = "additive"
UNHEARD: Family = "plucked"
"""The instruments that training music is played on, and those of the music that is probed."""

TRAINING_SEED, VALIDATION_SEED = 1, 2
PROBED_SEEDS = {"tuning": 101, "reporting": 404}
"""Settings are chosen by what probes find on the tracks of one, and reported of the other. (202 and 303 were the
reporting seeds of earlier runs, whose reports have been read.)"""

LEAST_PIECES, LEAST_HELD_OUT = 4, 2
"""Of one's own music, to train on and for validation. Of two pieces, a control would always give the one the targets of
the other, which can be learned; a single held-out piece has no other."""


def training_tracks(
    seed: int, count: int, seconds: float, sample_rate: int, family: Family = HEARD
) -> Int16[np.ndarray, "tracks samples"]:
    """PCM16 of so many tracks; track n follows from (seed, n)."""
    render = partial(_pcm, seed, family, seconds, sample_rate)
    return np.stack(list(_on_all_cores(render, count)))


def rendered(seed: int, count: int, seconds: float, sample_rate: int, family: Family) -> Iterator[Track]:
    """Musicbox tracks and their truth, rendered by all cores."""
    yield from _on_all_cores(partial(_render, seed, family, seconds, sample_rate), count)


def _on_all_cores(render: Callable[[int], Any], count: int) -> Iterator[Any]:
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), get_context("spawn")) as pool:
        yield from pool.map(render, range(count), chunksize=4)


def _render(seed: int, family: Family, seconds: float, sample_rate: int, number: int) -> Track:
    return render_track([seed, number], family, seconds=seconds, sample_rate=sample_rate)


def _pcm(seed: int, family: Family, seconds: float, sample_rate: int, number: int) -> Int16[np.ndarray, " samples"]:
    waveform, _ = _render(seed, family, seconds, sample_rate, number)
    return _as_pcm(waveform)


def _as_pcm(waveform: Float[np.ndarray, " samples"]) -> Int16[np.ndarray, " samples"]:
    return np.round(np.clip(waveform, -1, 1) * 32767).astype(np.int16)


def folder_pieces(
    folder: Path,
    lines: Sequence[Line],
    sample_rate: int,
    track_seconds: float,
    crop_seconds: float,
    say: Callable[[str], None],
) -> dict[str, Int16[np.ndarray, "tracks samples"]]:
    """The files of a folder's lines as PCM16 pieces of one length to train on; every tenth group of files is for
    validation, and of fewer than twenty groups two. The length is the longest, up to `track_seconds`, of which three
    quarters of the music are whole pieces.

    `say` is told what is left out. UserError: audio that cannot be read; too few pieces as long as a crop.
    """
    files = [_as_pcm(waveform) for waveform, _ in read(lines, sample_rate, math.inf)]
    lengths = np.array([len(file) for file in files])
    if lengths.max() < crop_seconds * sample_rate:
        raise UserError(f"{folder}: none of its {len(files)} files has the {crop_seconds:g} s of a clip to train on")
    size, kept = _piece_size(lengths, crop_seconds * sample_rate, round(track_seconds * sample_rate))
    used = [number for number, length in enumerate(lengths) if length >= size]
    of_length = f"pieces of {size / sample_rate:.2f} s"
    say(f"{folder}: {len(used)} of {len(lengths)} files in {of_length}, {kept:.0%} of the music")
    groups = np.array(group_numbers([lines[number].labels for number in used]))
    every = max(2, min(10, (groups.max() + 1) // 2))

    def pieces(*, held_out: bool) -> list[np.ndarray]:
        chosen = [files[used[n]] for n in np.flatnonzero((groups % every == 1) == held_out)]
        return [file[at : at + size] for file in chosen for at in range(0, len(file) - size + 1, size)]

    training, validation = pieces(held_out=False), pieces(held_out=True)
    if len(training) < LEAST_PIECES or len(validation) < LEAST_HELD_OUT:
        raise UserError(
            f"{folder}: its music comes to {len(training)} {of_length} to train on and {len(validation)} to hold out, "
            f"and at least {LEAST_PIECES} and {LEAST_HELD_OUT} are needed: add files of {crop_seconds:g} s or more"
        )
    return {"training": np.stack(training), "validation": np.stack(validation)}


def _piece_size(lengths: Int[np.ndarray, " files"], shortest: float, longest: int) -> tuple[int, float]:
    """In samples, and the share of the music that is whole pieces."""
    candidates = np.unique(np.minimum(lengths[lengths >= shortest], longest))
    kept = np.array([(lengths // size * size).sum() for size in candidates]) / lengths.sum()
    enough = np.flatnonzero(kept >= min(0.75, kept.max()))[-1]
    return int(candidates[enough]), float(kept[enough])
