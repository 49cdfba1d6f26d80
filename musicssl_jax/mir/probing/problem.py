"""What a probe is asked: features of many rows, what is known of them, and how answers are judged."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from musicssl_jax.shapes import Float, Int, Shaped

Kind = Literal["class", "tags", "numbers"]

TRAIN, VALID, TEST = range(3)


@runtime_checkable
class Layers(Protocol):
    """Features of every row in `count` layers; a row is a window, or a frame."""

    @property
    def count(self) -> int: ...

    @property
    def rows(self) -> int: ...

    @property
    def width(self) -> int: ...

    def layer(self, index: int) -> Float[np.ndarray, "rows width"]: ...


@dataclass(frozen=True, eq=False)
class Problem:
    """unit: of each row the number of what it belongs to, 0 to n - 1: rows of a unit share its label, and their answers
    are averaged into one. part: of each unit TRAIN, VALID or TEST.

    labels: of "class" (n,) int; of "tags" (n, outputs), shares from 0 to 1; of "numbers" (n, outputs). Those of test
    units must be blank (-1 or NaN): whatever chooses among probes gets a Problem, and cannot look at them.
    score(truth, answers) of validation units, better when higher; answers (units, outputs) are probabilities of "class"
    and "tags", and numbers in the labels' own scale.
    Raises ValueError: labels of test units are not blank, or a part has no row.
    """

    layers: Layers
    unit: Int[np.ndarray, " rows"]
    part: Int[np.ndarray, " n"]
    labels: Shaped[np.ndarray, "n ..."]
    kind: Kind
    outputs: int
    score: Callable[[np.ndarray, np.ndarray], float]

    def __post_init__(self) -> None:
        test = self.labels[self.part == TEST]
        if not (np.all(test == -1) if self.kind == "class" else np.all(np.isnan(test))):
            raise ValueError("labels of test units have to be blank")
        for part in (TRAIN, VALID):
            if not np.any(self.part[self.unit] == part):
                raise ValueError(f"no row in part {part}")

    def rows_of(self, *parts: int) -> Int[np.ndarray, " some"]:
        """Numbers of the rows whose units are in these parts, rising."""
        return np.flatnonzero(np.isin(self.part[self.unit], parts))


def blank_test(labels: Shaped[np.ndarray, "n ..."], part: Int[np.ndarray, " n"], kind: Kind) -> np.ndarray:
    """The labels as a Problem takes them: without those of test units."""
    if kind == "class":
        return np.where(part == TEST, -1, labels)
    hidden = labels.astype(np.float32)
    hidden[part == TEST] = np.nan
    return hidden
