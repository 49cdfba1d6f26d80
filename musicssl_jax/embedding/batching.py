"""Windows of many tracks, in batches of one shape, through the encoder and back to their tracks."""

import collections
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from musicssl_jax.embedding.pooling import Features, Pool
from musicssl_jax.embedding.windows import Window, plan_windows
from musicssl_jax.shapes import Float, Int, Int16
from musicssl_jax.targets.filter_bank import FrameGrid

Waveform = Float[np.ndarray, " samples"] | Int16[np.ndarray, " samples"]


class Track(NamedTuple):
    """Audio of at least one frame. mean, std: of the whole track in [-1, 1]. pool: what is made of its frames."""

    name: Hashable
    waveform: Waveform
    mean: float
    std: float
    pool: Pool


class Batch(NamedTuple):
    """What the encoder gets, a window a row. lengths: samples that are audio. segments: which of the row's sums each
    frame belongs to (-1: none)."""

    audio: Float[np.ndarray, "B N"] | Int16[np.ndarray, "B N"]
    mean: Float[np.ndarray, " B"]
    std: Float[np.ndarray, " B"]
    lengths: Int[np.ndarray, " B"]
    segments: Int[np.ndarray, "B T"]


States = Callable[[Batch, int], jax.Array]
"""(batch, sums a row or 0) -> (layers, B, sums or frames, width), not waited for."""

Row = tuple[Track, Window]


def encode_windows(
    states: States, grid: FrameGrid, tracks: Iterable[Track], *, size: int, context: int, rows: int
) -> Iterator[tuple[Track, Window, Features]]:
    """The features of each track, window by window and in order; windows of other tracks may come in between.

    size, context: of a window, in frames. rows: windows in a batch; the last one of each size is filled up. While a
    batch is computed, the one before it is handed out and the next one is read.
    """
    running: collections.deque[tuple[list[Row], jax.Array]] = collections.deque()
    for batch in _batches(grid, tracks, size, context, rows):
        running.append((batch, states(_stacked(batch, grid, rows), batch[0][0].pool.segments_per_window)))
        if len(running) > 1:
            yield from _handed_out(*running.popleft())
    for batch, result in running:
        yield from _handed_out(batch, result)


def _batches(grid: FrameGrid, tracks: Iterable[Track], size: int, context: int, rows: int) -> Iterator[list[Row]]:
    """Up to `rows` windows of one size, which may be of several tracks."""
    waiting: dict[int, list[Row]] = collections.defaultdict(list)
    for track in tracks:
        for window in plan_windows(grid.count(len(track.waveform)), size, context):
            waiting[window.size].append((track, window))
            if len(waiting[window.size]) == rows:
                yield waiting.pop(window.size)
    yield from waiting.values()


def _stacked(batch: Sequence[Row], grid: FrameGrid, rows: int) -> Batch:
    filled = [*batch, *[batch[0]] * (rows - len(batch))]
    samples = (batch[0][1].size - 1) * grid.hop + grid.receptive_field
    audio = np.zeros((rows, samples), batch[0][0].waveform.dtype)
    lengths = np.zeros(rows, np.int32)
    for row, (track, window) in enumerate(filled):
        piece = track.waveform[window.start * grid.hop :][:samples]
        audio[row, : len(piece)] = piece
        lengths[row] = len(piece)
    return Batch(
        audio=audio,
        mean=np.array([track.mean for track, _ in filled], np.float32),
        std=np.array([track.std for track, _ in filled], np.float32),
        lengths=lengths,
        segments=np.stack([track.pool.segments(window) for track, window in filled]),
    )


def _handed_out(batch: Sequence[Row], result: jax.Array) -> Iterator[tuple[Track, Window, Features]]:
    states = np.asarray(result)
    for row, (track, window) in enumerate(batch):
        yield track, window, track.pool.add(window, states[:, row])
