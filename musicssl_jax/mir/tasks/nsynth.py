"""NSynth: pitch and instrument family of single notes.

As published: `nsynth-{train,valid,test}/examples.json` and `.../audio/<note>.wav` in `nsynth/`; or a data set prepared
by TFDS. The published parts share no instrument between train and the others.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from musicssl_jax.errors import UserError
from musicssl_jax.mir.tasks.assembly import Listed, assemble
from musicssl_jax.mir.tasks.listing import audio_below, by_key, data_set_folder, read_text
from musicssl_jax.mir.tasks.prepared import find_prepared, prepared_names
from musicssl_jax.mir.tasks.task import PARTS, WHOLE, Part, ProtocolName, Recording, Task, TaskData

FAMILIES = (
    *("bass", "brass", "flute", "guitar", "keyboard", "mallet", "organ", "reed", "string", "synth_lead", "vocal"),
)
PITCHES = tuple(str(pitch) for pitch in range(128))
"""MIDI numbers; 9 to 120 occur. MARBLE v1 numbers them from 1, which changes no score."""

_NOTE = re.compile(rf"(?P<instrument>(?P<family>{'|'.join(FAMILIES)})_[a-z]+_\d+)-(?P<pitch>\d+)-\d+")


class Note(NamedTuple):
    pitch: int
    family: int
    instrument: str


def read_pitch(data_dir: Path, protocol: ProtocolName) -> TaskData:
    """Label: MIDI number. Group: the instrument. Both protocols have one split."""
    return _read(data_dir, lambda note: note.pitch)


def read_instrument(data_dir: Path, protocol: ProtocolName) -> TaskData:
    """Label: number of the family. Group: the instrument. Both protocols have one split."""
    return _read(data_dir, lambda note: note.family)


def _read(data_dir: Path, label: Callable[[Note], int]) -> TaskData:
    folder = data_set_folder(data_dir, "nsynth")
    listed: list[Listed] = []
    recordings: dict[str, Recording] = {}
    published = any((folder / f"nsynth-{part}").is_dir() for part in PARTS)
    prepared = None if published else find_prepared(folder)
    for part in PARTS:
        notes = _prepared(prepared, part, recordings) if prepared else _published(folder, part, recordings)
        listed += [Listed(id, part, label(note), note.instrument) for id, note in notes]
    return assemble(listed, recordings, folder)


def _published(folder: Path, part: Part, recordings: dict[str, Recording]) -> Iterator[tuple[str, Note]]:
    """Notes of examples.json; adds to `recordings` what audio there is."""
    path = folder / f"nsynth-{part}" / "examples.json"
    if not path.is_file():
        raise UserError(f"{path} is missing; unpack nsynth-{part}.jsonwav.tar.gz in {folder}")
    try:
        content = json.loads(read_text(path))
        entries = [(id, _note(entry)) for id, entry in content.items()]
    except (ValueError, AttributeError) as error:
        raise UserError(f"{path}: not a note by every name ({error}); unpack it anew") from None
    audio = by_key(audio_below(path.parent), lambda file: file.rpartition("/")[2].rpartition(".")[0])
    recordings.update({id: Recording(id, str(path.parent / file)) for id, file in audio.items()})
    yield from entries


def _note(entry: Any) -> Note:
    """Raises ValueError: not a note."""
    try:
        pitch, family = int(entry["pitch"]), FAMILIES.index(entry["instrument_family_str"])
        if 0 <= pitch < len(PITCHES):
            return Note(pitch, family, str(entry["instrument_str"]))
    except (KeyError, TypeError, ValueError):
        pass
    raise ValueError(f"{str(entry)[:80]!r} lacks a pitch of 0 to 127, a known instrument_family_str or instrument_str")


def _prepared(folder: Path, part: Part, recordings: dict[str, Recording]) -> Iterator[tuple[str, Note]]:
    """Notes of a prepared data set, whose ids say all: instrument, pitch and velocity."""
    for number, id in enumerate(prepared_names(folder, part, "id")):
        note = _NOTE.fullmatch(id)
        if note is None or int(note["pitch"]) >= len(PITCHES):
            raise UserError(f"{folder}: record {number} of {part} is named {id!r}, not <instrument>-<pitch>-<velocity>")
        recordings[id] = Recording(id, str(folder), (part, number))
        yield id, Note(int(note["pitch"]), FAMILIES.index(note["family"]), note["instrument"])


TASKS = (
    Task("nsynth_pitch", "NSynth: pitch", "nsynth", "class", PITCHES, "accuracy", WHOLE, read_pitch),
    Task("nsynth_instrument", "NSynth: instrument", "nsynth", "class", FAMILIES, "accuracy", WHOLE, read_instrument),
)
