"""Rows from the disk to the device, a chunk at a time: memory does not grow with a task."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from musicssl_jax.mir.probing.problem import TRAIN, Problem
from musicssl_jax.shapes import Float, Int, Shaped

CHUNK_BYTES = 128 << 20
_BLOCK = 8192


class Chunk(NamedTuple):
    """Rows to train on, S batches in the order of each seed. features: as they are stored. weights: 0 of rows that
    fill up the last batch."""

    features: Shaped[np.ndarray, "seeds layers S B D"]
    labels: Shaped[np.ndarray, "seeds S B ..."]
    weights: Float[np.ndarray, "S B"]


class Piece(NamedTuple):
    """Rows to answer for, of the units from `first` on. unit: of each row, counted from `first`; `units` is no less
    than their number, and one of few. weights: 0 of rows that fill it up."""

    features: Shaped[np.ndarray, "layers N D"]
    unit: Int[np.ndarray, " N"]
    weights: Float[np.ndarray, " N"]
    first: int
    units: int


class Feed:
    """Some layers of a problem. standards: shift and scale of each layer's features, by the training rows if
    `standardise`. label_shift, label_scale: by which the losses see numbers, of the training units."""

    def __init__(self, problem: Problem, layers: list[int], *, standardise: bool):
        self.layers = [problem.layers.layer(index) for index in layers]
        self.labels, self.label_shift, self.label_scale = _row_labels(problem)
        self.standards = _standards(self.layers, problem.rows_of(TRAIN) if standardise else None)

    def chunks(self, orders: Int[np.ndarray, "seeds rows"], batch: int) -> Iterator[Chunk]:
        """The rows in batches, in chunks of nearly one size."""
        batch = min(batch, orders.shape[1])
        count = -(-orders.shape[1] // batch)
        most = max(1, self._rows_at_once(len(orders)) // batch)
        steps = -(-count // -(-count // most))
        for first in range(0, orders.shape[1], steps * batch):
            rows = orders[:, first : first + steps * batch]
            size = -(-rows.shape[1] // batch) * batch
            weights = (np.arange(size) < rows.shape[1]).astype(np.float32)
            rows = rows[:, np.arange(size) % rows.shape[1]]
            features = np.stack([[layer[of_seed] for layer in self.layers] for of_seed in rows])
            yield Chunk(
                features.reshape(*features.shape[:2], -1, batch, features.shape[-1]),
                self.labels[rows].reshape(len(rows), -1, batch, *self.labels.shape[1:]),
                weights.reshape(-1, batch),
            )

    def pieces(self, rows: Int[np.ndarray, " n"], unit: Int[np.ndarray, " n"]) -> Iterator[Piece]:
        """All rows once; unit: what each belongs to."""
        size = min(self._rows_at_once(1), len(rows))
        for start in range(0, len(rows), size):
            some, of_unit = rows[start : start + size], unit[start : start + size]
            fill = size - len(some)
            first, last = int(of_unit.min()), int(of_unit.max())
            padded = np.pad(some, (0, fill), mode="edge")
            yield Piece(
                np.stack([layer[padded] for layer in self.layers]),
                np.pad(of_unit - first, (0, fill)).astype(np.int32),
                (np.arange(size) < len(some)).astype(np.float32),
                first,
                1 << (last - first).bit_length(),
            )

    def _rows_at_once(self, seeds: int) -> int:
        row = self.layers[0].shape[1] * self.layers[0].dtype.itemsize
        return max(1, CHUNK_BYTES // (seeds * len(self.layers) * row))


def _row_labels(problem: Problem) -> tuple[np.ndarray, np.ndarray | float, np.ndarray | float]:
    """Labels of every row as the loss takes them; and by what numbers were shifted and scaled (training units')."""
    labels = problem.labels
    if problem.kind != "numbers":
        clean = labels.astype(np.int32) if problem.kind == "class" else np.nan_to_num(labels).astype(np.float32)
        return clean[problem.unit], 0.0, 1.0
    known = labels[problem.part == TRAIN]
    shift, scale = known.mean(axis=0), np.maximum(known.std(axis=0), 1e-8)
    return np.nan_to_num((labels - shift) / scale).astype(np.float32)[problem.unit], shift, scale


def _standards(
    layers: list[np.ndarray], rows: Int[np.ndarray, " some"] | None
) -> tuple[Float[np.ndarray, "layers D"], Float[np.ndarray, "layers D"]]:
    shape = len(layers), layers[0].shape[1]
    if rows is None:
        return np.zeros(shape, np.float32), np.ones(shape, np.float32)
    mean, deviation = zip(*(_moments(layer, rows) for layer in layers), strict=True)
    scale = 1 / np.maximum(np.stack(deviation), 1e-5)
    return np.stack(mean).astype(np.float32), scale.astype(np.float32)


def _moments(
    values: Shaped[np.ndarray, "rows D"], rows: Int[np.ndarray, " some"]
) -> tuple[Float[np.ndarray, " D"], Float[np.ndarray, " D"]]:
    """Mean and standard deviation, in float64, a block at a time."""
    total, squares = np.zeros((2, values.shape[1]))
    for start in range(0, len(rows), _BLOCK):
        block = values[rows[start : start + _BLOCK]].astype(np.float64)
        total += block.sum(axis=0)
        squares += np.square(block).sum(axis=0)
    mean = total / len(rows)
    return mean, np.sqrt(np.maximum(squares / len(rows) - np.square(mean), 0))
