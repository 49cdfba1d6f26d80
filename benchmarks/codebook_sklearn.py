"""The peer of `benchmarks.codebook`: scikit-learn's MiniBatchKMeans as HuBERT calls it."""

import time
from typing import Any

import numpy as np
from sklearn.cluster import MiniBatchKMeans
from threadpoolctl import threadpool_limits

from benchmarks.codebook_inertia import inertia
from benchmarks.turns import memory, serve


class Peer:
    """Fits of so many clusters; `prepare` first."""

    def prepare(self, frames: str, clusters: int, options: dict[str, Any]) -> None:
        """As our side's."""
        self.frames = np.load(frames)
        self.arguments = dict(
            n_clusters=clusters,
            n_init=options["restarts"],
            batch_size=options["batch_frames"],
            init_size=options["initial_frames"],
            max_no_improvement=options["patience"],
            max_iter=10_000,  # passes; as many as patience takes
            tol=0.0,
            reassignment_ratio=options["reassignment_ratio"],
            compute_labels=False,
        )

    def work(self, number: int, threads: int) -> dict[str, float]:
        """A fit whose seed is the number."""
        model = MiniBatchKMeans(random_state=number, **self.arguments)
        with threadpool_limits(threads):
            began = time.perf_counter()
            model.fit(self.frames)
            seconds = time.perf_counter() - began
        return {
            "seconds": round(seconds, 4),
            "batches": int(model.n_steps_),
            "inertia": inertia(self.frames, model.cluster_centers_),
        }


if __name__ == "__main__":
    side = Peer()
    serve({"prepare": side.prepare, "work": side.work, "memory": memory})
