"""The judge of both sides of `benchmarks.codebook`. JAX is not imported: its memory is not the peer's."""

import numpy as np

from musicssl_jax.shapes import Float

AT_ONCE = 1000
"""Frames: few, since their distances are part of a side's memory."""


def inertia(frames: Float[np.ndarray, "N W"], centroids: Float[np.ndarray, "K W"]) -> float:
    """Mean squared distance to the nearest centroid, in float64."""
    centroids = centroids.astype(np.float64)
    norms = (centroids**2).sum(-1)
    total = 0.0
    for first in range(0, len(frames), AT_ONCE):
        part = frames[first : first + AT_ONCE].astype(np.float64)
        total += ((part**2).sum(-1) + (norms - 2 * part @ centroids.T).min(-1)).sum()
    return float(total / len(frames))
