"""Manifests of MARBLE v2: `<TASK>.{train,val,test}.jsonl`, one JSON object with `audio_path` and `label` a line.

They are taken wherever in a data set's folder they lie, and where they do, they are the split. `audio_path` is from
MARBLE's own root; the audio is found by its name below the folder.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from musicssl_jax.errors import UserError
from musicssl_jax.mir.tasks.assembly import Listed, assemble, recordings_of
from musicssl_jax.mir.tasks.listing import audio_below, by_key, find_file, read_lines
from musicssl_jax.mir.tasks.task import Part, TaskData

_PARTS: dict[str, Part] = {"train": "train", "val": "valid", "test": "test"}


def read_manifests(
    folder: Path,
    name: str,
    *,
    key: Callable[[str], str | None],
    label: Callable[[Any], Any],
    group: Callable[[str], str],
    note: str = "",
) -> TaskData | None:
    """A task by its manifests; None if there are none.

    key: id of a recording by the path of its audio. label: from the manifest's; KeyError, TypeError and ValueError mean
    that it is not one. group: by id. Raises UserError: one of the three is missing, or a line is not as it should be.
    """
    found = {part: find_file(folder, f"{name}.{word}.jsonl") for word, part in _PARTS.items()}
    if not any(found.values()):
        return None
    listed: list[Listed] = []
    for part, path in found.items():
        if path is None:
            raise UserError(f"{folder}: of MARBLE's manifests {name}.*.jsonl the one of the {part} part is missing")
        listed += _listed(path, part, key, label, group)
    notes = (f"the split is that of MARBLE's manifests {name}.*.jsonl", note)
    recordings = recordings_of(folder, by_key(audio_below(folder), key))
    return assemble(listed, recordings, folder, tuple(filter(None, notes)))


def _listed(
    path: Path, part: Part, key: Callable[[str], str | None], label: Callable[[Any], Any], group: Callable[[str], str]
) -> Iterator[Listed]:
    for where, line in read_lines(path):
        try:
            entry = json.loads(line)
            audio, truth = str(entry["audio_path"]), entry["label"]
        except (ValueError, TypeError, KeyError):
            raise UserError(f"{where}: not a JSON object with audio_path and label; get the manifest anew") from None
        if (id := key(audio)) is None:
            raise UserError(f"{where}: audio_path {audio!r} is not named as this data set's audio is")
        try:
            yield Listed(id, part, label(truth), group(id))
        except (KeyError, TypeError, ValueError):
            raise UserError(f"{where}: label {str(truth)[:80]!r} is not one of this task") from None
