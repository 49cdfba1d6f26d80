"""From frames to one vector a window."""

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
    pooled = []
    for begin, end in np.searchsorted(times, spans):
        begin = min(begin, len(times) - 1)
        inside = frames[:, begin : max(end, begin + 1)]
        pooled.append(np.concatenate([inside.mean(axis=1), inside.std(axis=1)], axis=-1))
    empty = np.zeros((len(frames), 0, 2 * frames.shape[2]), frames.dtype)
    return np.stack(pooled, axis=1) if pooled else empty
