"""One table of names for each foreign format, used to read and to write.

A table maps our module or parameter to theirs, {} standing for a layer's number:

    "encoder/transformer/blocks/feed_in": "encoder.layers.{}.fc1"

Parameters that a table does not name themselves are `weight` and `bias` of their module's name there. PyTorch keeps
matrices and convolutions as (out, in[, taps]) and we as ([taps,] in, out), each the other's transpose; our blocks'
parameters are stacked on a leading axis.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from musicssl_jax.errors import UserError, shortened
from musicssl_jax.interop.pretrained import Tensors

Table = Mapping[str, str]
Shapes = Mapping[str, tuple[int, ...]]

LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}
AS_IT_IS = ("label_embeddings",)
"""Matrices that both sides keep in one layout."""


class Place(NamedTuple):
    """A tensor of a foreign file: its name and shape there, and where it lies among ours."""

    theirs: str
    shape: tuple[int, ...]
    ours: str
    block: int | None


def places(shapes: Shapes, table: Table) -> list[Place]:
    """Where each of our parameters lies in the other format; those that the table has no row for are left out."""
    found = []
    for ours, shape in shapes.items():
        stacked = "/blocks/" in ours
        one = shape[1:] if stacked else shape
        theirs = _their_name(ours, table)
        if theirs is None:
            continue
        shape = one if ours in AS_IT_IS else one[::-1]
        numbers = range(shapes[ours][0]) if stacked else [None]
        found += [Place(theirs.format(n) if stacked else theirs, shape, ours, n) for n in numbers]
    return found


def _their_name(ours: str, table: Table) -> str | None:
    pattern, number = re.subn(r"layer\d+", "layer{}", ours)
    theirs = table.get(pattern)
    if theirs is None:
        module, _, leaf = pattern.rpartition("/")
        if module not in table or leaf not in LEAVES:
            return None
        theirs = f"{table[module]}.{LEAVES[leaf]}"
    return theirs.format(re.findall(r"layer(\d+)", ours)[0]) if number else theirs


def read_tensors(found: Mapping[str, np.ndarray], wanted: Iterable[Place], what: str) -> Tensors:
    """Our parameters, in float32.

    UserError, naming the tensors: some are missing or have another shape. `what`: by which the message calls the file.
    """
    parts: dict[str, list[np.ndarray]] = {}
    wrong = []
    for place in wanted:
        tensor = found.get(place.theirs)
        if tensor is None:
            wrong.append(f"{place.theirs} is missing")
        elif tensor.shape != place.shape:
            wrong.append(f"{place.theirs} is {list(tensor.shape)} instead of {list(place.shape)}")
        else:
            value = tensor if place.ours in AS_IT_IS else tensor.transpose()
            parts.setdefault(place.ours, []).append(value.astype(np.float32))
    if wrong:
        raise UserError(f"{what} does not hold the model that its config describes: {shortened(wrong)}")
    return {name: np.stack(p) if "/blocks/" in name else np.ascontiguousarray(p[0]) for name, p in parts.items()}


def write_tensors(params: Tensors, table: Table, dtypes: Mapping[str, str]) -> Tensors:
    """Our parameters under their names and in their layout; `dtypes`: of those that are not float32."""
    written = {}
    for place in places({name: value.shape for name, value in params.items()}, table):
        value = params[place.ours] if place.block is None else params[place.ours][place.block]
        value = value if place.ours in AS_IT_IS else value.transpose()
        written[place.theirs] = np.ascontiguousarray(value, dtypes.get(place.ours, "float32"))
    return written


def dtypes_of(found: Mapping[str, np.ndarray], wanted: Iterable[Place]) -> dict[str, str]:
    """The types of those of our parameters that are not float32 in the file."""
    types = {place.ours: str(found[place.theirs].dtype) for place in wanted}
    return {name: dtype for name, dtype in types.items() if dtype != "float32"}
