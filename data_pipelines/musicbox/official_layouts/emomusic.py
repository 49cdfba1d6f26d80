"""EmoMusic (1000 songs): `clips_45seconds/<song_id>.mp3` (44.1 kHz stereo) and the annotations' CSV files.

Cells have blanks and tabs around them, and times are minutes and seconds with a point between: 0.3 is half a minute.
"""

import csv
import hashlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_pipelines.musicbox.official_layouts.layout import Layout, Row, Size, generator, write_text
from data_pipelines.musicbox.official_layouts.sounds import Hit, Note, Wave, beat_grid, chord, mix, write_mp3

RATE = 44100
_GENRES = ("Blues", "Classical", "Country", "Electronic", "Folk", "Jazz", "Pop", "Rock")
_COLUMNS = (
    *("song_id", "file_name", "Artist", "Song title"),
    *("start of the segment (min.sec)", "end of the segment (min.sec)", "Genre", "Mediaeval 2013 set"),
)
_STARTS = ((0, 0), (0, 30), (1, 2), (2, 15), (0, 5), (3, 50))  # minutes and seconds; two end with a nought
_TIMES = tuple(range(15000, 45001, 500))  # milliseconds of the continuous annotations
_CONTINUOUS_COLUMNS = ("song_id", *(f"sample_{time}ms" for time in _TIMES))
_FIRST = ("Ada", "Ben", "Cleo", "Dov", "Enno", "Freya", "Gus", "Hana")
_LAST = ("Quist", "Rowe", "Sandoval", "Thule", "Ueda", "Voss", "Wren")
_PARTS = {"train": 30, "valid": 12, "test": 16}


class EmoSong(NamedTuple):
    """arousal and valence on the scale from 1 to 9, as a person's mean rating."""

    number: int
    part: str
    artist: str
    arousal: float
    valence: float


def part_of(artist: str) -> str:
    """Train or valid of a song of the development set: sha1 of the letters and single blanks, lower case, modulo 10."""
    letters = "".join(c for c in artist.lower() if c.isascii() and (c.isalpha() or c.isspace()))
    digest = hashlib.sha1(" ".join(letters.split()).encode()).hexdigest()
    return "valid" if int(digest, 16) % 10 >= 8 else "train"


def songs(seed: int, size: Size) -> Iterator[EmoSong]:
    """Numbers rise, with gaps; the parts are mixed. Artists are written with accents, digits and odd blanks."""
    names = (f"{first} {last}{mark}" for last in _LAST for first in _FIRST for mark in ("", "  & Café 9", " Jr."))
    artists: dict[str, list[str]] = {"train": [], "valid": []}
    for name in names:
        artists[part_of(name)].append(name)
    rng = generator(seed, "emomusic")
    order = rng.permutation([part for part, count in _PARTS.items() for _ in range(count * size.clips)])
    for n, part in enumerate(order.tolist()):
        pool = artists["train" if part == "test" else part]
        arousal, valence = np.round(rng.uniform(1.5, 8.5, 2), 1).tolist()
        yield EmoSong(2 + n + n // 7, part, pool[n % len(pool)], arousal, valence)


def write_emomusic(folder: Path, seed: int, size: Size) -> Layout:
    """Task emomusic; labels are (arousal, valence) as annotated."""
    layout = Layout(folder)
    info: list[Sequence[object]] = [_COLUMNS]
    static: list[Sequence[object]] = [("song_id", "mean_arousal", "std_arousal", "mean_valence", "std_valence")]
    continuous: dict[str, list[Sequence[object]]] = {}
    for song in songs(seed, size):
        file = f"clips_45seconds/{song.number}.mp3"
        write_mp3(folder / file, _stereo(_piece(song, size.seconds / 2, generator(seed, file))), RATE)
        info.append(_info(song))
        static.append((song.number, song.arousal, 1.25, song.valence, 1.5))
        for name, value in (("arousal", song.arousal), ("valence", song.valence)):
            for kind, level in (("average", round((value - 5) / 4, 4)), ("std", 0.25)):
                rows = continuous.setdefault(f"{name}_cont_{kind}.csv", [_CONTINUOUS_COLUMNS])
                rows.append((song.number, *(level for _ in _TIMES)))
        layout.rows.append(Row("emomusic", song.part, file, (song.arousal, song.valence), str(song.number)))
    tables = {"songs_info.csv": info, "static_annotations.csv": static} | continuous
    write_text(folder, {name: _csv(rows) for name, rows in tables.items()})
    return layout


def _info(song: EmoSong) -> tuple[object, ...]:
    minutes, seconds = _STARTS[song.number % len(_STARTS)]
    start = 60 * minutes + seconds
    return (
        song.number,
        f"{song.number}.mp3\t",
        f" {song.artist}\t",
        f"\tPiece {song.number} ",
        _minutes(start),
        _minutes(start + 45),
        f" {_GENRES[song.number % len(_GENRES)]}\t",
        "evaluation " if song.part == "test" else "development",
    )


def _minutes(seconds: int) -> str:
    """1.05 for 65 s; a last nought is lost, as in any table of numbers: 0.3 for 30 s."""
    return f"{seconds // 60}.{seconds % 60:02d}".removesuffix("0")


def _csv(rows: Sequence[Sequence[object]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()


def _piece(song: EmoSong, seconds: float, rng: np.random.Generator) -> Wave:
    """Arousal is tempo, level and drums; valence is the mode (minor under 5) and the register."""
    force = (song.arousal - 1) / 8
    beat = 60 / (60 + 110 * force)
    steps = (0, 4, 7) if song.valence >= 5 else (0, 3, 7)
    root = 40 + round(3 * song.valence)
    voice = int(rng.integers(12))
    notes: list[Note] = []
    beats = beat_grid(float(rng.uniform(0, 0.1)), beat, seconds)
    for n, time in enumerate(beats):
        notes += chord(root + (0, 5, 7, 0)[n // 4 % 4], steps, time, 0.9 * beat, voice, 0.02 + 0.08 * force)
    return mix(notes, [Hit(time, "snare", 0.4 * force**2) for time in beats], seconds, RATE, rng)


def _stereo(wave: Wave) -> np.ndarray:
    return np.stack([wave, 0.8 * wave], axis=1)
