"""From frames to one vector a window."""

from collections.abc import Iterator

import numpy as np

from musicssl_jax.shapes import Float


def pool_spans(
    frames: Float[np.ndarray, "layers T D"],
    times: Float[np.ndarray, " T"],
    spans: Float[np.ndarray, "windows 2"],
) -> Float[np.ndarray, "layers windows D2"]:
    """Mean and standard deviation over the frames of each span of time [begin, end) in seconds, D2 = 2 D.

    `times`: the frames' centres, rising. A span between two frames gets the one after it.
    """
    inside = _inside(frames, times, spans)
    pooled = [np.concatenate([some.mean(axis=1), some.std(axis=1)], axis=-1) for some in inside]
    return np.stack(pooled, axis=1) if pooled else _nothing(frames, 2)


def mean_of_spans(
    frames: Float[np.ndarray, "layers T D"],
    times: Float[np.ndarray, " T"],
    spans: Float[np.ndarray, "windows 2"],
) -> Float[np.ndarray, "layers windows D"]:
    """Mean alone, else as `pool_spans`."""
    pooled = [some.mean(axis=1) for some in _inside(frames, times, spans)]
    return np.stack(pooled, axis=1) if pooled else _nothing(frames, 1)


def _inside(frames: np.ndarray, times: np.ndarray, spans: np.ndarray) -> Iterator[np.ndarray]:
    for begin, end in np.searchsorted(times, spans):
        begin = min(begin, len(times) - 1)
        yield frames[:, begin : max(end, begin + 1)]


def _nothing(frames: np.ndarray, statistics: int) -> np.ndarray:
    return np.zeros((len(frames), 0, statistics * frames.shape[2]), frames.dtype)
