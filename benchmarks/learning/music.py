"""The music: what is trained on, in memory, and what questions are asked of."""

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.musicbox import Family, render_track
from musicssl_jax.errors import UserError
from musicssl_jax.shapes import Float, Int16

HEARD: Family = "additive"
UNHEARD: Family = "plucked"
"""The instruments that training music is played on, and those of the music that is probed."""

TRAINING_SEED, VALIDATION_SEED = 1, 2
PROBED_SEEDS = {"tuning": 101, "reporting": 303}
"""Settings are chosen by what probes find on the tracks of one, and reported of the other. (202 was the reporting seed
of earlier runs, whose reports have been read.)"""

Track = tuple[Float[np.ndarray, " samples"], Mapping[str, Any]]
"""Waveform, and what is known of it."""

_NUMBER = (int, float)
FIELDS = {"file": str, "key": str, "mode": str, "bpm": _NUMBER, "pitch": int, "family": str}
"""Of a line of a labelled folder's .jsonl, and their types; other fields are passed over."""
LISTS: dict[str, dict[str, Any]] = {
    "beats": {},
    "chords": {"start": _NUMBER, "end": _NUMBER, "root": str, "quality": str},
    "notes": {"onset": _NUMBER, "duration": _NUMBER, "pitch": int, "instrument": str, "role": str},
    "solos": {"start": _NUMBER},
}
"""Fields that are lists: of numbers, or of objects with at least these fields."""


def training_tracks(
    seed: int, count: int, seconds: float, sample_rate: int, family: Family = HEARD
) -> Int16[np.ndarray, "tracks samples"]:
    """PCM16 of so many tracks; track n follows from (seed, n)."""
    render = partial(_pcm, seed, family, seconds, sample_rate)
    return np.stack(list(_on_all_cores(render, count)))


def rendered(seed: int, count: int, seconds: float, sample_rate: int, family: Family) -> Iterator[Track]:
    """Musicbox tracks and their truth, rendered by all cores."""
    yield from _on_all_cores(partial(_render, seed, family, seconds, sample_rate), count)


def _on_all_cores(render: Callable[[int], Any], count: int) -> Iterator[Any]:
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), get_context("spawn")) as pool:
        yield from pool.map(render, range(count), chunksize=4)


def _render(seed: int, family: Family, seconds: float, sample_rate: int, number: int) -> Track:
    return render_track([seed, number], family, seconds=seconds, sample_rate=sample_rate)


def _pcm(seed: int, family: Family, seconds: float, sample_rate: int, number: int) -> Int16[np.ndarray, " samples"]:
    waveform, _ = _render(seed, family, seconds, sample_rate, number)
    return _as_pcm(waveform)


def _as_pcm(waveform: Float[np.ndarray, " samples"]) -> Int16[np.ndarray, " samples"]:
    return np.round(np.clip(waveform, -1, 1) * 32767).astype(np.int16)


def folder_pieces(
    folder: Path, sample_rate: int, track_seconds: float, crop_seconds: float, say: Callable[[str], None]
) -> dict[str, Int16[np.ndarray, "tracks samples"]]:
    """A folder's files, as `read_folder` finds them, as PCM16 pieces of one length to train on; every tenth file is for
    validation. The length is the longest, up to `track_seconds`, of which three quarters of the music are whole pieces.

    `say` is told what is left out. UserError: as `read_folder`; there are not two files as long as a crop.
    """
    files = [_as_pcm(waveform) for waveform, _ in read_folder(folder, sample_rate, math.inf)]
    lengths = np.array([len(file) for file in files])
    longest = round(track_seconds * sample_rate)
    candidates = np.unique(np.minimum(lengths[lengths >= crop_seconds * sample_rate], longest))
    if (lengths >= crop_seconds * sample_rate).sum() < 2:
        raise UserError(f"{folder}: want at least two files of {crop_seconds:g} s or more to train on")
    kept = np.array([(lengths // size * size).sum() for size in candidates]) / lengths.sum()
    enough = np.flatnonzero(kept >= min(0.75, kept.max()))[-1]
    size, files = int(candidates[enough]), [file for file in files if len(file) >= candidates[enough]]
    say(
        f"{folder}: {len(files)} of {len(lengths)} files in pieces of {size / sample_rate:.2f} s, "
        f"{kept[enough]:.0%} of the music"
    )

    def pieces(chosen: list[np.ndarray]) -> np.ndarray:
        return np.stack([file[at : at + size] for file in chosen for at in range(0, len(file) - size + 1, size)])

    if len(files) < 2:
        raise UserError(f"{folder}: want at least two files of {size / sample_rate:.2f} s or more to train on")
    return {
        "training": pieces([file for number, file in enumerate(files) if number % 10 != 1]),
        "validation": pieces(files[1::10]),
    }


def read_folder(folder: Path, sample_rate: int, seconds: float) -> Iterator[Track]:
    """The first `seconds` of every file that the folder's .jsonl files name, one channel at `sample_rate`; its line.

    UserError: no .jsonl, no line in it, one that is none, a field of another type, a file that is named twice (its
    copies would be in several parts of a split), audio that is missing, cannot be read or is not finite.
    """
    lists = sorted(folder.glob("*.jsonl"))
    if not lists:
        raise UserError(f"{folder} holds no .jsonl file: want lines such as " + '{"file": "a.wav", "key": "C"}')
    seen: dict[Path, str] = {}
    for path in lists:
        for number, line in enumerate(_text(path).split("\n"), 1):
            where = f"{path}, line {number}"
            if line.strip():
                row = _row(where, line)
                file = (folder / row["file"]).resolve()
                if file in seen:
                    raise UserError(f"{where}: {row['file']} has been named before ({seen[file]})")
                seen[file] = where
                yield _read(file, where, sample_rate, seconds), row
    if not seen:
        raise UserError(f"{folder}: its .jsonl files name no audio")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text") from None


def _row(where: str, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where}: this is not JSON ({error})") from None
    if not isinstance(row, dict) or "file" not in row:
        raise UserError(f'{where}: want an object with a "file"')
    _check_types(where, row, FIELDS)
    if not 0 < row.get("bpm", 1) < math.inf:
        raise UserError(f"{where}: bpm is {row['bpm']}, and has to be above 0")
    for name, fields in LISTS.items():
        entries = row.get(name, [])
        if not isinstance(entries, list):
            raise UserError(f"{where}: {name} is {entries!r}, which is no list")
        for entry in entries:
            if not fields:
                _check_types(where, {name: entry}, {name: _NUMBER})
            elif not isinstance(entry, dict) or not fields.keys() <= entry.keys():
                raise UserError(f"{where}: {name} holds {entry!r}: want objects with {', '.join(fields)}")
            else:
                _check_types(f"{where}, {name}", entry, fields)
    return row


def _check_types(where: str, row: dict[str, Any], fields: Mapping[str, Any]) -> None:
    for name, kind in fields.items():
        if name in row and (not isinstance(row[name], kind) or isinstance(row[name], bool)):
            raise UserError(f"{where}: {name} is {row[name]!r}, which is no {_called(kind)}")


def _called(kind: type | tuple) -> str:
    return {str: "text", int: "whole number"}.get(kind, "number")  # type: ignore[arg-type]


def _read(path: Path, where: str, sample_rate: int, seconds: float) -> Float[np.ndarray, " samples"]:
    import soundfile
    import soxr

    try:
        with soundfile.SoundFile(path) as file:
            rate = file.samplerate
            frames = -1 if seconds == math.inf else round(seconds * rate)
            waveform = file.read(frames, dtype="float32", always_2d=True).mean(axis=1)
    except (OSError, soundfile.LibsndfileError) as error:
        raise UserError(f"{where}: cannot read {path}: {error}") from None
    if len(waveform) < rate / 10:
        raise UserError(f"{where}: {path} is shorter than a tenth of a second")
    if not np.isfinite(waveform).all():
        raise UserError(f"{where}: {path} holds values that are no numbers")
    return soxr.resample(waveform, rate, sample_rate, quality="HQ") if rate != sample_rate else waveform
