"""Our side of `benchmarks.codebook`."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.codebook_inertia import inertia
from benchmarks.turns import memory, serve
from musicssl_jax.parallel import make_mesh
from musicssl_jax.shapes import Float
from musicssl_jax.targets.fitting import FitOptions
from musicssl_jax.targets.kmeans import KMeansState, initial_state, make_update, starts


class Ours:
    """Fits of so many clusters; `prepare` first."""

    def prepare(self, frames: str, clusters: int, options: dict[str, Any]) -> None:
        """frames: a .npy file of them, (N, W) float32. options: fields of FitOptions."""
        self.frames, self.clusters, self.options = np.load(frames), clusters, FitOptions(**options)

    def work(self, number: int) -> dict[str, float]:
        """A fit whose seed is the number."""
        began = time.perf_counter()
        state = fit(self.frames, self.clusters, number, self.options)
        seconds = time.perf_counter() - began
        return {
            "seconds": round(seconds, 4),
            "batches": int(state.step),
            "inertia": inertia(self.frames, np.asarray(state.centroids)),
        }


def fit(frames: Float[np.ndarray, "N W"], clusters: int, seed: int, options: FitOptions) -> KMeansState:
    rng = np.random.default_rng(seed)
    size = options.batch_frames

    def drawn(count):
        return jnp.asarray(frames[rng.integers(0, len(frames), count)])

    update = make_update(make_mesh(1, 1), smoothing=min(1.0, 2 * size / (len(frames) + 1)))
    sample = drawn(options.initial_frames)
    start, _ = starts(jax.random.key(seed), sample, clusters=clusters, restarts=options.restarts)
    state, valid = initial_state(start), jnp.ones(size, bool)
    while state.stale < options.patience:
        state, _ = update(state, drawn(size), valid)
    return jax.block_until_ready(state)


if __name__ == "__main__":
    side = Ours()
    serve({"prepare": side.prepare, "work": side.work, "memory": memory})
