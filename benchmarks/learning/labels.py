"""What a line of a labelled folder says of its file: each field in one spelling, so that no class has two names."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from reprlib import repr as shown
from typing import Any

from data_pipelines.musicbox.score import PITCH_NAMES

Labels = Mapping[str, Any]
Reader = Callable[[Any], Any]
"""Of a field's value: what it says; None: nothing that is asked for. ValueError: what is wrong with it."""

_LETTERS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_SPELLING = re.compile(r"([A-Ga-g])([#♯b♭]*)[\s:_-]*(.*)")
"""Letter, accidentals, and what is said of the mode: C, d♭, F#m, C major, C:min."""
_WANTED_TONIC = "C, C# or Db, and so on up to B, or a number from 0 (C) to 11 (B)"
_UNKNOWN = "leave out what is not known"


def read_labels(row: Mapping[str, Any], readers: Mapping[str, Reader]) -> tuple[dict[str, Any], list[str]]:
    """Labels by field, and all that is wrong with the line. null is as no field; other fields are passed over."""
    labels: dict[str, Any] = {}
    faults = []
    for name, read in readers.items():
        if row.get(name) is None:
            continue
        try:
            label = read(row[name])
        except ValueError as error:
            faults.append(f"{name} {error}")
        else:
            labels |= {} if label is None else {name: label}
    if "key" in labels:
        labels["key"], mode = labels["key"]
        if mode and labels.setdefault("mode", mode) != mode:
            faults.append(f"key is {shown(row['key'])}, and mode {shown(row['mode'])}: want one of the two")
    return labels, faults


def _number(value: Any) -> float | None:
    """None: it is none, or not a finite one."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _whole(value: Any, lowest: int, highest: int) -> int | None:
    number = _number(value)
    return int(number) if number is not None and number.is_integer() and lowest <= number <= highest else None


def _spelling(value: Any) -> tuple[str, str] | None:
    """One name for each of the twelve tonics, and what follows it."""
    if (number := _whole(value, 0, 11)) is not None:
        return PITCH_NAMES[number], ""
    found = _SPELLING.fullmatch(value.strip()) if isinstance(value, str) else None
    if not found:
        return None
    letter, accidentals, rest = found.groups()
    sharps = sum(1 if accidental in "#♯" else -1 for accidental in accidentals)
    return PITCH_NAMES[(_LETTERS[letter.upper()] + sharps) % 12], rest


def _mode_of(text: str) -> str | None:
    if text in ("M", "m"):
        return "major" if text == "M" else "minor"
    return {"major": "major", "maj": "major", "minor": "minor", "min": "minor"}.get(text.lower())


def _key(value: Any) -> tuple[str, str | None]:
    """Tonic, and the mode where it stands beside it."""
    tonic, rest = _spelling(value) or ("", "")
    if not tonic or (rest and not _mode_of(rest)):
        raise ValueError(
            f"is {shown(value)}: want {_WANTED_TONIC}, with or without major or minor behind it; {_UNKNOWN}"
        )
    return tonic, _mode_of(rest)


def _mode(value: Any) -> str:
    mode = _mode_of(value.strip()) if isinstance(value, str) else None
    if not mode:
        raise ValueError(f"is {shown(value)}: want major or minor; {_UNKNOWN}")
    return mode


def _bpm(value: Any) -> float:
    bpm = _number(value)
    if bpm is None or bpm <= 0:
        raise ValueError(f"is {shown(value)}: want beats a minute, a number above 0; {_UNKNOWN}")
    return bpm


def _pitch(value: Any) -> int:
    pitch = _whole(value, 0, 127)
    if pitch is None:
        raise ValueError(f"is {shown(value)}: want a MIDI number, a whole one from 0 to 127; {_UNKNOWN}")
    return pitch


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"is {shown(value)}: want a name; {_UNKNOWN}")
    return value.strip()


def _group(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _text(value)


def _beats(value: Any) -> list[float]:
    wanted = "want a list of seconds from 0, each later than the one before"
    if not isinstance(value, list):
        raise ValueError(f"is {shown(value)}: {wanted}")
    beats: list[float] = []
    for entry in value:
        beat = _number(entry)
        if beat is None or beat < 0:
            raise ValueError(f"holds {shown(entry)}: {wanted}")
        if beats and beat <= beats[-1]:
            raise ValueError(f"holds {beat:g} behind {beats[-1]:g}: {wanted}")
        beats.append(beat)
    return beats


def _chords(value: Any) -> list[dict[str, Any]]:
    wanted = "want a list of objects with start, end, root and quality"
    if not isinstance(value, list):
        raise ValueError(f"is {shown(value)}: {wanted}")
    if strange := [entry for entry in value if not _has(entry, "start", "end", "root", "quality")]:
        raise ValueError(f"holds {shown(strange[0])}: {wanted}")
    return [_chord(entry) for entry in value if entry["root"] not in (None, "N", "X")]  # silence, and what is unclear


def _chord(entry: dict[str, Any]) -> dict[str, Any]:
    start, end, quality = _number(entry["start"]), _number(entry["end"]), entry["quality"]
    if start is None or end is None or not 0 <= start < end:
        raise ValueError(f"holds {shown(entry)}: want seconds, and an end behind the start")
    root, rest = _spelling(entry["root"]) or ("", "")
    if not root or rest:
        raise ValueError(f"holds the root {shown(entry['root'])}: want {_WANTED_TONIC}")
    if not isinstance(quality, str):
        raise ValueError(f"holds the quality {shown(quality)}: want a name, of which maj and min are asked")
    short = {"major": "maj", "minor": "min"}
    return {"start": start, "end": end, "root": root, "quality": short.get(_mode_of(quality.strip()) or "", quality)}


def _notes(value: Any) -> list[dict[str, Any]] | None:
    """As `write_musicbox` lists them. Under so common a name others keep other things, which are passed over."""
    names = "onset", "duration", "pitch", "instrument", "role"
    if not isinstance(value, list) or not value or not all(_has(entry, *names) for entry in value):
        return None
    for entry in value:
        times = _number(entry["onset"]), _number(entry["duration"])
        texts = entry["instrument"], entry["role"]
        if None in times or _whole(entry["pitch"], 0, 127) is None or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"holds {shown(entry)}: want seconds, a MIDI number, an instrument and a role")
    return [{name: entry[name] for name in names} | {"pitch": int(entry["pitch"])} for entry in value]


def _solos(value: Any) -> list[dict[str, float]] | None:
    if not isinstance(value, list) or not all(_has(e, "start") and _number(e["start"]) is not None for e in value):
        return None
    return [{"start": float(entry["start"])} for entry in value]


def _has(entry: Any, *names: str) -> bool:
    return isinstance(entry, dict) and entry.keys() >= set(names)


OF_TRAINING: dict[str, Reader] = {"group": _group}
"""No label is read of music that is trained on."""

OF_PROBING: dict[str, Reader] = OF_TRAINING | {
    "key": _key,
    "mode": _mode,
    "bpm": _bpm,
    "beats": _beats,
    "pitch": _pitch,
    "family": _text,
    "chords": _chords,
    "notes": _notes,
    "solos": _solos,
}


def group_numbers(tracks: Sequence[Labels]) -> list[int]:
    """Of each track the number of its group, from 0. A track without one is a group of its own."""
    numbers: dict[str | int, int] = {}
    return [numbers.setdefault(labels.get("group", at), len(numbers)) for at, labels in enumerate(tracks)]
