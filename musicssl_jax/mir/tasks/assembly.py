"""From what a data set lists and what is on the disk to a task's data."""

from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from musicssl_jax.errors import UserError
from musicssl_jax.mir.tasks.task import Example, Missing, Part, Recording, TaskData


class Listed(NamedTuple):
    """A recording as a data set's lists have it.

    problem: why it cannot be used whatever is on the disk. known: that it cannot be used, or is not there, is known
    of the data set and no fault of this copy.
    """

    id: str
    part: Part
    label: Any
    group: str
    problem: str = ""
    known: bool = False


def assemble(
    listed: Iterable[Listed], recordings: Mapping[str, Recording], source: Path, notes: tuple[str, ...] = ()
) -> TaskData:
    """Examples for what is on the disk, `Missing` for the rest.

    source: what an error names. Raises UserError: a recording is listed twice.
    """
    used: dict[str, Recording] = {}
    examples, missing = [], []
    seen: set[str] = set()
    for item in listed:
        if item.id in seen:
            raise UserError(f"{source}: {item.id} is listed twice; get the file that lists it anew")
        seen.add(item.id)
        if item.problem or item.id not in recordings:
            missing.append(Missing(item.id, item.part, item.problem or "no such file", item.known))
            continue
        used[item.id] = recordings[item.id]
        examples.append(Example(item.id, item.part, item.label, item.group))
    return TaskData(used, tuple(examples), tuple(missing), notes)


def recordings_of(folder: Path, by_id: Mapping[str, str]) -> dict[str, Recording]:
    """Recordings of files given by id and path relative to `folder`."""
    return {id: Recording(id, str(folder / file)) for id, file in by_id.items()}


def shipped_lines(name: str) -> list[str]:
    """Lines of a file in `data/` that are neither empty nor comments."""
    text = (files(__package__) / "data" / name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]
