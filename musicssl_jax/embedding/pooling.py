"""What is made of a track's frames: all of them, or means over spans of them. Sums are formed on the device."""

from typing import NamedTuple

import numpy as np

from musicssl_jax.embedding.windows import Window
from musicssl_jax.shapes import Float, Int
from musicssl_jax.targets.filter_bank import FrameGrid


class Features(NamedTuple):
    """Rows `first`, `first` + 1, ... of a track's features: values (layers, rows, width)."""

    first: int
    values: Float[np.ndarray, "layers rows width"]


class EveryFrame:
    """One row a frame."""

    segments_per_window = 0

    def __init__(self, frames: int):
        self.rows = frames

    def bounds(self) -> Int[np.ndarray, "rows 2"]:
        """First frame of each row, and the first behind it."""
        first = np.arange(self.rows)
        return np.stack([first, first + 1], axis=1)

    def segments(self, window: Window) -> Int[np.ndarray, " T"]:
        """Frames are not summed: -1 for each."""
        return np.full(window.size, -1, np.int32)

    def add(self, window: Window, states: Float[np.ndarray, "layers T width"]) -> Features:
        """The features that `states` of this window complete."""
        return Features(window.begin, states[:, window.kept])


class MeanOfSpans:
    """One row for every `length` frames, their mean; the last span may be shorter. Windows must come in order."""

    def __init__(self, frames: int, length: int, segments_per_window: int):
        self._frames, self._length = frames, length
        self.segments_per_window = segments_per_window
        self.rows = -(-frames // length)
        self._carried: Float[np.ndarray, "layers width"] | float = 0.0  # of a span that goes on in the next window

    def bounds(self) -> Int[np.ndarray, "rows 2"]:
        """First frame of each row, and the first behind it."""
        first = np.arange(self.rows) * self._length
        return np.stack([first, np.minimum(first + self._length, self._frames)], axis=1)

    def segments(self, window: Window) -> Int[np.ndarray, " T"]:
        """For each encoded frame the span that it is summed into, from 0 in each window; -1: none."""
        numbers = np.arange(window.start, window.start + window.size)
        kept = (numbers >= window.begin) & (numbers < window.end)
        spans = numbers // self._length - window.begin // self._length
        return np.where(kept, spans, -1).astype(np.int32)

    def add(self, window: Window, states: Float[np.ndarray, "layers S width"]) -> Features:
        """The features that `states`, the sums over this window's segments, complete."""
        first, last = window.begin // self._length, (window.end - 1) // self._length
        sums = states[:, : last - first + 1].astype(np.float64)
        sums[:, 0] += self._carried
        goes_on = window.end < self._frames and window.end % self._length > 0
        self._carried = sums[:, -1] if goes_on else 0.0
        done = sums[:, :-1] if goes_on else sums
        counts = np.diff(self.bounds()[first : first + done.shape[1]], axis=1)
        return Features(first, (done / counts).astype(np.float32))


Pool = EveryFrame | MeanOfSpans


def make_pool(pool: str, frames: int, span: int, window: int) -> Pool:
    """The pool of a track of `frames` by its name: "none", "mean" of the track, or "window": of every `span` frames.

    `window`: frames of the longest window, which bounds how many spans one can touch.
    """
    if pool == "none":
        return EveryFrame(frames)
    if pool == "mean":
        return MeanOfSpans(frames, frames, segments_per_window=1)
    return MeanOfSpans(frames, span, segments_per_window=(window - 1) // span + 2)


def bounds_in_seconds(bounds: Int[np.ndarray, "rows 2"], grid: FrameGrid) -> Float[np.ndarray, "rows 2"]:
    """Begin of a row's first frame and end of its last; their mean is the row's centre."""
    samples = np.stack([bounds[:, 0] * grid.hop, (bounds[:, 1] - 1) * grid.hop + grid.receptive_field], axis=1)
    return samples / grid.sample_rate
