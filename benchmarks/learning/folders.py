"""Folders of music: audio files, and .jsonl files with a line for each."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.learning.labels import Labels, Reader, group_numbers, read_labels, shown
from musicssl_jax.errors import UserError, shortened
from musicssl_jax.shapes import Float

Track = tuple[Float[np.ndarray, " samples"], Labels]
"""Waveform, and what is known of it."""


class Line(NamedTuple):
    """where: the .jsonl and the number of the line, for messages. file: its absolute path, links followed."""

    where: str
    file: Path
    labels: dict[str, Any]


def lists(folder: Path) -> list[Path]:
    """Its .jsonl files, without those that are hidden (macOS writes some that are no text)."""
    return sorted(path for path in folder.glob("*.jsonl") if not path.name.startswith("."))


def listed(folder: Path, readers: Mapping[str, Reader]) -> list[Line]:
    """All lines of a folder's .jsonl files, with the labels that there are readers for.

    UserError, with all that is wrong: no .jsonl, no line in it, one that is no JSON object with a "file", a label that
    its reader refuses, audio that is not there, or is named twice (its copies would be in several parts of a split).
    """
    if not lists(folder):
        why = "" if folder.is_dir() else " (it is no folder)"
        raise UserError(f"{folder} holds no .jsonl file{why}: want lines such as " + '{"file": "a.wav", "key": "C"}')
    lines: list[Line] = []
    faults: list[str] = []
    seen: dict[Path, str] = {}
    for path in lists(folder):
        for number, text in enumerate(_text(path).split("\n"), 1):
            where = f"{path}, line {number}"
            if not text.strip():
                continue
            try:
                row = _row(text)
                file = _file(folder, row["file"])
                if file in seen:
                    raise ValueError(f"{row['file']} has been named before ({seen[file]})")
            except ValueError as error:
                faults.append(f"{where}: {error}")
                continue
            seen[file] = where
            labels, wrong = read_labels(row, readers)
            faults += [f"{where}: {fault}" for fault in wrong]
            lines.append(Line(where, file, labels))
    if faults:
        raise UserError(shortened(faults))
    if not lines:
        raise UserError(f"{folder}: its .jsonl files name no audio")
    return lines


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None


def _row(text: str) -> dict[str, Any]:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"this is not JSON ({error})") from None
    if not isinstance(row, dict) or not isinstance(row.get("file"), str):
        raise ValueError(f'want an object with a "file", its name; found {shown(row)}')
    return row


def _file(folder: Path, name: str) -> Path:
    try:
        file = (folder / name).resolve()
        there = file.is_file()
    except (OSError, ValueError):
        raise ValueError(f"file is {shown(name)}, which no file can be called") from None
    if not there:
        raise ValueError(f"cannot read {folder / name}: there is no such file")
    return file


def drawn(lines: Sequence[Line], most: int) -> list[Line]:
    """At most so many lines, always the same: whole groups as they come by lot, as long as they fit."""
    numbers = np.array(group_numbers([line.labels for line in lines]))
    sizes = np.bincount(numbers)
    taken = np.zeros(len(sizes), bool)
    left = most
    for group in np.random.default_rng(0).permutation(len(sizes)):
        if sizes[group] <= left:
            taken[group] = True
            left -= sizes[group]
    return [line for line, number in zip(lines, numbers, strict=True) if taken[number]]


def read(lines: Sequence[Line], sample_rate: int, seconds: float) -> Iterator[Track]:
    """The first `seconds` of every file, one channel at `sample_rate`, and its labels.

    UserError after the last one, with all that is wrong: audio that cannot be read, is not finite, or shorter than a
    tenth of a second.
    """
    faults = []
    for line in lines:
        try:
            waveform = _audio(line.file, sample_rate, seconds)
        except ValueError as error:
            faults.append(f"{line.where}: {error}")
            continue
        if not faults:
            yield waveform, line.labels
    if faults:
        raise UserError(shortened(faults))


def _audio(path: Path, sample_rate: int, seconds: float) -> Float[np.ndarray, " samples"]:
    import soundfile
    import soxr

    try:
        with soundfile.SoundFile(path) as file:
            rate = file.samplerate
            frames = -1 if seconds == np.inf else round(seconds * rate)
            waveform = file.read(frames, dtype="float32", always_2d=True).mean(axis=1)
    except (OSError, soundfile.LibsndfileError) as error:
        raise ValueError(f"cannot read {path}: {error}") from None
    if len(waveform) < rate / 10:
        raise ValueError(f"{path} is shorter than a tenth of a second")
    if not np.isfinite(waveform).all():
        raise ValueError(f"{path} holds values that are no numbers")
    return soxr.resample(waveform, rate, sample_rate, quality="HQ") if rate != sample_rate else waveform
