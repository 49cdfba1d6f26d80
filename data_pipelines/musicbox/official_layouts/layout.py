"""What a written data set holds, and how much of everything there is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Size(NamedTuple):
    """How much is written. `clips`: clips of a class, or of a part, as the data set has it: a plain factor.

    seconds: of a clip whose official length is some 30 s; other lengths are in proportion.
    """

    clips: int
    seconds: float


SIZES = {"tiny": Size(clips=1, seconds=6.0), "demo": Size(clips=3, seconds=12.0)}


class Row(NamedTuple):
    """A file that a task should find: `part` is train, valid or test; `label` as the official files spell it.

    file: relative to the data set's folder. group: the official name of what it is part of (a song, an artist).
    """

    task: str
    part: str
    file: str
    label: Any
    group: str


@dataclass
class Layout:
    """What was written into a data set's folder.

    rows: every file that is sound and used. defects: file or line -> what is wrong with it, as in the official set.
    """

    folder: Path
    rows: list[Row] = field(default_factory=list)
    defects: dict[str, str] = field(default_factory=dict)

    def description(self) -> dict[str, Any]:
        """{"counts": {task: {part: n}}, "labels": {task: {file: label}}, "defects": {file: what}}."""
        counts: dict[str, dict[str, int]] = {}
        labels: dict[str, dict[str, Any]] = {}
        for row in self.rows:
            parts = counts.setdefault(row.task, {})
            parts[row.part] = parts.get(row.part, 0) + 1
            labels.setdefault(row.task, {})[row.file] = row.label
        return {"counts": counts, "labels": labels, "defects": dict(self.defects)}


def generator(seed: int, *path: object) -> np.random.Generator:
    """Randomness that follows from the seed and a name (file, class), whatever else is written."""
    return np.random.default_rng([seed, *"/".join(map(str, path)).encode()])


def write_text(folder: Path, files: Mapping[str, str]) -> None:
    """Writes the text as it is given: line ends are not changed."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode())
