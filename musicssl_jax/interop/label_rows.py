"""How HuBERT's label embeddings lie in fairseq's files: one matrix for all sets, with rows that are no cluster.

Each set has a row for every entry of its dictionary: four special ones first (<s>, <pad>, </s>, <unk>), then the
clusters in the order of `dict.NAME.txt`, which need not be that of their numbers.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from musicssl_jax.errors import UserError
from musicssl_jax.shapes import Float

NAME = "label_embs_concat"
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")


@dataclasses.dataclass(frozen=True)
class Rows:
    """clusters: of each set. special: rows before each set's clusters. order: for each set, the place of each cluster
    among its rows; empty: in the order of their numbers. known: whether the file says how rows divide into sets."""

    clusters: tuple[int, ...]
    special: int
    order: tuple[tuple[int, ...], ...] = ()
    known: bool = True


def of_dictionaries(dictionaries: Sequence[Sequence[str]]) -> Rows:
    """The rows that fairseq makes of each set's dictionary, a list of symbols."""
    special = len([symbol for symbol in dictionaries[0][: len(SPECIAL)] if symbol in SPECIAL])
    symbols = [list(dictionary[special:]) for dictionary in dictionaries]
    order: list[tuple[int, ...]] = []
    for names in symbols:
        numbers = [int(name) if name.isdecimal() else -1 for name in names]
        if sorted(numbers) != list(range(len(names))):
            # Names that are no numbers, or clusters that no label was: the rows' order is all there is.
            numbers = list(range(len(names)))
        order.append(tuple(int(place) for place in np.argsort(numbers)))
    straight = all(places == tuple(range(len(places))) for places in order)
    return Rows(tuple(map(len, symbols)), special, () if straight else tuple(order))


def guessed(rows: int, sets: int, clusters: Sequence[int], special: int | None) -> Rows:
    """The rows of a file without dictionaries: what the user says of them, else all are clusters, equally many a set.

    UserError: what the user says does not add up to the `rows` there are.
    """
    if clusters:
        left = rows - sum(clusters)
        found = left // len(clusters) if special is None else special
        if len(clusters) != sets or left != found * len(clusters) or found < 0:
            raise UserError(
                f"--clusters={','.join(map(str, clusters))}: the file has {rows} label embeddings for {sets} sets, "
                f"which is not {sum(clusters)} and as many special rows for each set"
            )
        return Rows(tuple(clusters), found)
    found = special or 0
    left = rows - found * sets
    if left < 2 * sets:
        raise UserError(f"--dictionary_rows={found}: the file has {rows} label embeddings for {sets} sets")
    shares = tuple(left // sets + (i < left % sets) for i in range(sets))
    return Rows(shares, found, known=sets == 1)


def split(matrix: Float[np.ndarray, "R W"], rows: Rows) -> tuple[Float[np.ndarray, "K W"], Float[np.ndarray, "S W"]]:
    """(embeddings of all clusters, set after set; special rows of all sets)."""
    embeddings, special, first = [], [], 0
    for i, clusters in enumerate(rows.clusters):
        special.append(matrix[first : first + rows.special])
        of_set = matrix[first + rows.special : first + rows.special + clusters]
        embeddings.append(of_set[list(rows.order[i])] if rows.order else of_set)
        first += rows.special + clusters
    return np.concatenate(embeddings), np.concatenate(special)


def join(
    embeddings: Float[np.ndarray, "K W"], special: Float[np.ndarray, "S W"], rows: Rows
) -> Float[np.ndarray, "R W"]:
    """`split` undone."""
    parts, first = [], 0
    for i, clusters in enumerate(rows.clusters):
        of_set = embeddings[first : first + clusters]
        if rows.order:
            back = np.empty_like(of_set)
            back[list(rows.order[i])] = of_set
            of_set = back
        parts += [special[i * rows.special : (i + 1) * rows.special], of_set]
        first += clusters
    return np.concatenate(parts)


def new_special(sets: int, width: int) -> Float[np.ndarray, "S W"]:
    """Special rows for a model that has none, as fairseq begins them: uniform on [0, 1)."""
    return np.random.default_rng(0).uniform(size=(sets * len(SPECIAL), width)).astype(np.float32)


def from_json(content: Mapping[str, Any]) -> Rows:
    """The rows that `dataclasses.asdict` and JSON made a dict of."""
    return Rows(tuple(content["clusters"]), content["special"], tuple(map(tuple, content["order"])), content["known"])
