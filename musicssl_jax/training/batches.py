"""From the crops of a data set to the arrays of a step, on every device that needs them."""

from collections.abc import Callable, Sequence

import jax
import numpy as np

from musicssl_jax.training.step import STOP, Batch, micro_batches


class BatchPlan:
    """Which rows of the global batch stand where: (micro-batch, row) over the devices of a sharding.

    The batch is filled up with rows of weight zero to a multiple of devices times `per_device`.
    """

    def __init__(self, clips: int, per_device: int, sharding: jax.sharding.NamedSharding):
        devices = sharding.mesh.size
        self.clips = clips
        self.shape = (micro_batches(clips, per_device, devices), per_device * devices)
        self.sharding = sharding
        self.filled = self.shape[0] * self.shape[1] - clips
        numbers = np.arange(self.shape[0] * self.shape[1], dtype=np.int32).reshape(self.shape)
        blocks = sharding.addressable_devices_indices_map(self.shape).values()
        needed = np.unique(np.concatenate([numbers[block].ravel() for block in blocks]))
        self.rows: Sequence[int] = needed[needed < clips].tolist()
        """Rows of the global batch that this process has to build."""

    def arrays(self, crops: dict[str, np.ndarray], *, stop: bool | None = None) -> Batch:
        """The global arrays of one batch from this process's rows, in the order of `rows`.

        stop: whether this process asks all to stop; None: the batch is without that column.
        """
        place = {row: i for i, row in enumerate(self.rows)}

        def audio(name):
            return lambda rows: _take(crops[name], [place.get(row) for row in rows.tolist()])

        columns = {name: audio(name) for name in crops}
        columns["row"] = lambda rows: rows
        columns["weight"] = lambda rows: (rows < self.clips).astype(np.float32)
        if stop is not None:
            columns[STOP] = lambda rows: np.full(len(rows), stop, np.float32)
        return {name: self._place(column) for name, column in columns.items()}

    def _place(self, column: Callable[[np.ndarray], np.ndarray]) -> jax.Array:
        """The global array whose rows are `column` of their numbers."""
        number = np.arange(self.shape[0] * self.shape[1], dtype=np.int32).reshape(self.shape)
        tail = column(number[:0, 0]).shape[1:]

        def block(index):
            rows = number[index[:2]]
            return column(rows.ravel()).reshape(*rows.shape, *tail)

        return jax.make_array_from_callback((*self.shape, *tail), self.sharding, block)


def _take(values: np.ndarray, places: list[int | None]) -> np.ndarray:
    """Rows of `values`; zeros where there is no place (a row that only fills up)."""
    out = np.zeros((len(places), *values.shape[1:]), values.dtype)
    for i, place in enumerate(places):
        if place is not None:
            out[i] = values[place]
    return out
