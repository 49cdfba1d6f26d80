"""What an update sends along `data` by design: one reduction of gradients, loss and statistics.

This follows from the shapes of the parameters and the partition rules alone; the compiled program is held to it.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from jax.sharding import PartitionSpec as P

from musicssl_jax.parallel import PARTITION_RULES, partition_specs
from musicssl_jax.training.step import STOP


class Reduction(NamedTuple):
    """Of a device in an update: bytes of gradients, bytes of statistics, and the number of scalars beside them."""

    gradients: int
    statistics: int
    scalars: int

    @property
    def bytes(self) -> int:
        """Of all arrays; scalars are left out."""
        return self.gradients + self.statistics


def gradient_bytes(params: Any, axis_sizes: Mapping[str, int]) -> int:
    """Bytes of the gradients that a device adds up with those of the others along `data`; 0 if it is alone.

    `params`: arrays or their shapes. `axis_sizes`: of the mesh. `fsdp` leaves a device a part of the gradients.
    """
    if axis_sizes["data"] == 1:
        return 0
    specs = partition_specs(params, PARTITION_RULES, axis_sizes)
    parts = jax.tree.map(lambda spec: _parts(spec, axis_sizes), specs, is_leaf=lambda x: isinstance(x, P))
    sizes = jax.tree.map(lambda leaf, parts: leaf.size * leaf.dtype.itemsize // parts, params, parts)
    return sum(jax.tree.leaves(sizes))


def _parts(spec: P, axis_sizes: Mapping[str, int]) -> int:
    axes = [axis for entry in spec if entry for axis in ((entry,) if isinstance(entry, str) else entry)]
    return math.prod(axis_sizes[axis] for axis in axes)


def reduction(
    objective: Any, state: Any, frozen: Any, batch: Mapping[str, Any], axis_sizes: Mapping[str, int]
) -> Reduction:
    """The `Reduction` of an update; `state`, `frozen` and `batch` (micro-batch, row, ...) may be shapes."""
    rows = {name: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype) for name, leaf in batch.items() if name != STOP}
    key = jax.eval_shape(lambda: jax.random.key(0))
    sums = jax.eval_shape(objective.loss, _bare(state.params), _bare(state.teacher), _bare(frozen), rows, key)
    arrays = jax.tree.leaves(sums)
    alone = axis_sizes["data"] == 1
    return Reduction(
        gradients=gradient_bytes(state.params, axis_sizes),
        statistics=0 if alone else sum(a.size * a.dtype.itemsize for a in arrays if a.shape),
        scalars=0 if alone else sum(not a.shape for a in arrays) + (STOP in batch),
    )


def _bare(tree: Any) -> Any:
    """Shapes without the devices that they lie on."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)
