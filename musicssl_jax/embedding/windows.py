"""How a track is cut into windows that overlap, so that every frame is encoded with music on both sides of it."""

from typing import NamedTuple

SMALLEST_WINDOW = 50
"""Frames; what is shorter is padded to it, so that few window sizes are ever compiled."""

CONTEXT_SECONDS = 2.5
"""On each side of what a window gives; docs/embed.md has the measurements behind it."""


class Window(NamedTuple):
    """What goes through the encoder at once, in frames of the track.

    start, size: the frames that are encoded (a track that is shorter is padded with silence). begin, end: those of them
    that are kept; the others are context.
    """

    start: int
    size: int
    begin: int
    end: int

    @property
    def kept(self) -> slice:
        """The kept frames, counted from the window's start."""
        return slice(self.begin - self.start, self.end - self.start)


def plan_windows(frames: int, size: int, context: int) -> list[Window]:
    """The windows of a track of `frames`; what they keep follows on each other and is all of it.

    Between two windows each has `context` frames behind what it keeps; the last one reaches back so far that it is as
    long as the others. A track that fits into one window gets one, and of its halves the smallest that it fits into.
    """
    if frames <= size:
        while frames <= size // 2 >= SMALLEST_WINDOW:
            size //= 2
        return [Window(0, size, 0, frames)]
    starts = [*range(0, frames - size, size - 2 * context), frames - size]
    ends = [start + size - context for start in starts[:-1]] + [frames]
    return [Window(*window) for window in zip(starts, [size] * len(starts), [0, *ends[:-1]], ends, strict=True)]


def default_context(window_seconds: float) -> float:
    """Seconds of context on each side: CONTEXT_SECONDS, or a sixth of a shorter window."""
    return min(CONTEXT_SECONDS, window_seconds / 6)
