"""Features of one track while they are made: in a file without a name, so that an hour needs no more memory than a
minute, and nothing of it stays behind if the process is killed."""

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from musicssl_jax.shapes import Float

CHUNK_BYTES = 4 << 20


class Spool:
    """An array (layers, rows, width) of `dtype` in C order, on the disk of `folder`. OSError: the disk is full."""

    def __init__(self, folder: Path, layers: int, rows: int, width: int, dtype: str):
        self.shape = layers, rows, width
        self.dtype = np.dtype(dtype)
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115, closed by its owner

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def write(self, first: int, values: Float[np.ndarray, "layers n width"]) -> None:
        """Stores rows `first`, `first` + 1, ... float16 is clipped to its range."""
        for layer, rows in enumerate(as_dtype(values, self.dtype)):
            self._file.seek(self._offset(layer, first))
            left = memoryview(rows.tobytes())
            while left:
                left = left[self._file.write(left) :]

    def read(self, begin: int, end: int) -> Float[np.ndarray, "layers n width"]:
        """Rows `begin` to `end`."""
        layers, _, width = self.shape
        values = np.empty((layers, end - begin, width), self.dtype)
        for layer in range(layers):
            self._file.seek(self._offset(layer, begin))
            values[layer] = np.frombuffer(self._bytes(values[layer].nbytes), self.dtype).reshape(-1, width)
        return values

    def blocks(self, block_bytes: int = CHUNK_BYTES) -> Iterator[tuple[int, Float[np.ndarray, "layers n width"]]]:
        """(first row, values) in order; at most `block_bytes`, but at least one row."""
        layers, rows, width = self.shape
        step = max(1, block_bytes // (layers * width * self.dtype.itemsize))
        for first in range(0, rows, step):
            yield first, self.read(first, min(first + step, rows))

    def chunks(self) -> Iterator[bytes]:
        """All bytes in C order."""
        self._file.seek(0)
        while chunk := self._file.read(CHUNK_BYTES):
            yield chunk

    def mapped(self) -> Float[np.ndarray, "layers rows width"]:
        """The array as a read-only mapping, which stays valid when the spool is closed."""
        if self.nbytes == 0:  # an empty file cannot be mapped
            return np.empty(self.shape, self.dtype)
        return np.memmap(self._file, self.dtype, mode="r", shape=self.shape)

    def close(self) -> None:
        self._file.close()

    def _offset(self, layer: int, row: int) -> int:
        _, rows, width = self.shape
        return (layer * rows + row) * width * self.dtype.itemsize

    def _bytes(self, count: int) -> bytes:
        parts = []
        while count:
            parts.append(self._file.read(count))
            count -= len(parts[-1])
        return b"".join(parts)


def as_dtype(values: Float[np.ndarray, "*shape"], dtype: np.dtype) -> Float[np.ndarray, "*shape"]:
    """The values as `dtype`, clipped to its range."""
    if values.dtype == dtype:
        return values
    largest = np.finfo(dtype).max
    return np.clip(values, -largest, largest).astype(dtype)
