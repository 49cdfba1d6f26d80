"""A label set at work: a front end's filters and a codebook on the device, and the labels that they give a batch."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from musicssl_jax.shapes import Array, Float, Int
from musicssl_jax.targets.features import Features
from musicssl_jax.targets.kmeans import assign


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TargetSet:
    """One of a step's `frozen` arguments: neither donated nor differentiated.

    kernels: of the front end `apply`. centroids: (K, W) of the codebook; None where features are regressed.
    """

    kernels: Any
    centroids: Any
    apply: Callable = dataclasses.field(metadata={"static": True})

    def features(self, batch: dict[str, Array]) -> Float[Array, "B T W"]:
        """Frames of the front end, which the encoder's frames are aligned with."""
        return self.apply(self.kernels, batch)

    def labels(self, batch: dict[str, Array]) -> Int[Array, "B T"]:
        """Number of the nearest centroid of every frame."""
        return assign(self.centroids, self.features(batch))


def target_sets(fronts: Sequence[Features], centroids: Sequence[Any], mesh: Mesh) -> tuple[TargetSet, ...]:
    """Front ends and the centroids of their codebooks, None for what is regressed, on all devices."""
    sets = tuple(TargetSet(f.kernels, c, f.apply) for f, c in zip(fronts, centroids, strict=True))
    return jax.device_put(sets, NamedSharding(mesh, P()))
