"""GiantSteps key: clones of giantsteps-key-dataset (test) and giantsteps-mtg-key-dataset (train, valid), with audio/.

The two spell their annotations differently: flats and no end of line in one, sharps, confidences and several keys in
the other. Train and valid follow from a hash of the artists' names, collaborators of valid artists being valid.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_pipelines.musicbox.official_layouts.layout import Layout, Row, Size, generator, write_text
from data_pipelines.musicbox.official_layouts.sounds import Hit, Note, Wave, beat_grid, chord, mix, write_mp3

RATE = 44100
TEST, TRAIN = "giantsteps-key-dataset", "giantsteps-mtg-key-dataset"
_FLATS = ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")
_SHARPS = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
_SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
_GENRES = ("trance", "house", "techno", "breaks", "dubstep")
_FIRST = ("Nova", "Kilo", "Vega", "Juno", "Orin", "Tess", "Milo", "Zara", "Remy", "Lux", "Ada", "Finn")
_SECOND = ("Arden", "Blume", "Castor", "Dorado", "Eklund", "Farrow", "Galt", "Hexx", "Imre", "Jonas", "Kade", "Lowe")
SHORT = {1224698: 45, 1442809: 62, 3424038: 77, 4452003: 59}  # seconds, where the others have 120
_FORMAT = "#@format: key\ttimestamp(float)\tkey(string)\t[confidence(int)]\t[comment(string)]"
SKIPPED = ("-\t0", "C minor / F# minor\t2", "E minor / G minor\t2", "G minor/major\t1", "A-A# minor\t0", "D minor\t1")


class Song(NamedTuple):
    """A song of the training set: pitch class of the tonic, mode, artists as the metadata has them."""

    number: int
    tonic: int
    mode: str
    artists: str


def in_valid(artist: str) -> bool:
    """Whether the artist's own name says valid: sha1(lower case) modulo 116 is at least 100."""
    return int(hashlib.sha1(artist.lower().encode()).hexdigest(), 16) % 116 >= 100


def songs(size: Size) -> Iterator[tuple[str, Song]]:
    """(part, song): every key once a part (twice for train), and a chain of collaborators that becomes valid."""
    names = [f"{first} {second}" for second in _SECOND for first in _FIRST]
    valid, train = [n for n in names if in_valid(n)], [n for n in names if not in_valid(n)]
    number = 5061
    for part, artists, rounds in (("train", train[3:], 2 * size.clips), ("valid", valid[1:], size.clips)):
        for n in range(24 * rounds):
            number += 5077
            tonic, mode = n % 12, ("minor", "major")[n // 12 % 2]
            yield part, Song(number, tonic, mode, artists[n % len(artists)])
    chain = (f"{valid[0]}, {train[0]}", f"{train[0]},{train[1]}", f" {train[1]} ")  # the last is two hops away
    yield from (("valid", Song(6000000 + n, n, "minor", artists)) for n, artists in enumerate(chain))


def write_giantsteps(folder: Path, seed: int, size: Size) -> Layout:
    """Task giantsteps_key; labels as in the test set ("Eb minor")."""
    layout = Layout(folder)
    numbers = [*SHORT, *(10089 + 40961 * n for n in range(24 * size.clips - len(SHORT)))]
    for n, number in enumerate(numbers):
        _write_test_song(layout, seed, number, n % 12, ("major", "minor")[n // 12 % 2], size)
    metadata = ["ID\tARTIST\tSONG TITLE\tMIX\tLABEL\tBP GENRE\tBP BPM\tBP KEY\n"]
    annotations = ["ID\tMANUAL KEY\tC\n"]
    for part, song in songs(size):
        key = f"{_SHARPS[song.tonic]} {song.mode}"
        _write_training_song(folder / TRAIN, seed, song, f"{key}\t2", size)
        metadata.append(_beatport(song.number, song.artists))
        annotations.append(f"{song.number}\t{key}\t2\n")
        label = f"{_FLATS[song.tonic]} {song.mode}"
        file = f"{TRAIN}/audio/{song.number}.LOFI.mp3"
        layout.rows.append(Row("giantsteps_key", part, file, label, str(song.number)))
    for n, line in enumerate(SKIPPED):
        song = Song(7000001 + n, n, "minor", "Nova Arden")
        _write_training_song(folder / TRAIN, seed, song, line, size)
        metadata.append(_beatport(song.number, song.artists))
        annotations.append(f"{song.number}\t{line}\n")
        layout.defects[f"{TRAIN}/audio/{song.number}.LOFI.mp3"] = f"left out: annotated {line!r}"
    files = {"annotations.txt": annotations, "beatport_metadata.txt": metadata}
    write_text(folder / TRAIN / "annotations", {name: "".join(lines) for name, lines in files.items()})
    return layout


def _write_test_song(layout: Layout, seed: int, number: int, tonic: int, mode: str, size: Size) -> None:
    folder, name = layout.folder / TEST, f"{number}.LOFI"
    seconds = SHORT.get(number, 120) / 120 * _seconds(size)
    if number in SHORT:
        layout.defects[f"{TEST}/audio/{name}.mp3"] = "shorter than the others"
    key, genre = f"{_FLATS[tonic]} {mode}", _GENRES[number % len(_GENRES)]
    md5 = _write_audio(folder / "audio" / f"{name}.mp3", tonic, mode, seconds, generator(seed, TEST, number))
    value = [{"duration": 120.0, "confidence": 1.0, "value": key.replace(" ", ":"), "time": 0.0}]
    annotation = {"namespace": "key_mode", "sandbox": {}, "time": 0, "duration": None, "data": value}
    files = {
        f"annotations/key/{name}.key": key,
        f"annotations/genre/{name}.genre": genre,
        f"annotations/giantsteps/{name}.key": f"#@format: key\ttimestamp(float)\tkey(string)\nkey 0 {key}\n",
        f"annotations/giantsteps/{name}.genre": f"#@format: tag\ttimestamp(float)\tname(str)\ntag 0 {genre}",
        f"annotations/jams/{name}.jams": json.dumps({"sandbox": {}, "annotations": [annotation]}, indent=2),
        f"md5/{name}.md5": f"{md5}\n",
    }
    write_text(folder, files)
    layout.rows.append(Row("giantsteps_key", "test", f"{TEST}/audio/{name}.mp3", key, str(number)))


def _write_training_song(folder: Path, seed: int, song: Song, key: str, size: Size) -> None:
    """key: as in annotations.txt, with the confidence after a tab."""
    name = f"{song.number}.LOFI"
    rng = generator(seed, TRAIN, song.number)
    md5 = _write_audio(folder / "audio" / f"{name}.mp3", song.tonic, song.mode, _seconds(size), rng)
    lower = key[:1].lower() + key[1:]
    genre = _GENRES[song.number % len(_GENRES)]
    files = {
        f"annotations/key/{name}.key": f"{lower}\t\n",
        f"annotations/genre/{name}.genre": f"{genre}\n",
        f"annotations/giantsteps/{name}.key": f"{_FORMAT}\nkey\t0\t{lower}\t\n",
        f"annotations/giantsteps/{name}.genre": f"#@format: tag\ttimestamp(float)\tname(str)\ntag\t0\t{genre}\n",
        f"md5/{name}.md5": f"{md5}\n",
    }
    write_text(folder, files)


def _seconds(size: Size) -> float:
    """Of most songs; 120 s in the official sets."""
    return size.seconds * 2 / 3


def _beatport(number: int, artists: str) -> str:
    return f"{number}\t{artists}\tPiece {number}\tOriginal Mix\tMusicbox Records\tTrance\t128\tC major\n"


def _write_audio(path: Path, tonic: int, mode: str, seconds: float, rng: np.random.Generator) -> str:
    """Writes a piece of dance music in the key; the MD5 of the file."""
    write_mp3(path, _piece(tonic, mode, seconds, rng), RATE)
    return hashlib.md5(path.read_bytes()).hexdigest()


def _piece(tonic: int, mode: str, seconds: float, rng: np.random.Generator) -> Wave:
    """Chords I, IV, I, V over a bass, a melody of the scale that leans on the tonic's triad."""
    scale = _SCALES[mode]
    beat = 60 / float(rng.uniform(120, 136))
    notes: list[Note] = []
    lead, pad = int(rng.integers(12)), int(rng.choice((0, 1, 6, 7)))
    beats = beat_grid(float(rng.uniform(0, 0.1)), beat, seconds)
    for n, time in enumerate(beats):
        degree = (0, 3, 0, 4)[n // 2 % 4]
        steps = tuple(scale[(degree + third) % 7] + 12 * ((degree + third) // 7) for third in (0, 2, 4))
        notes += chord(48 + tonic, steps, time, 0.9 * beat, pad, 0.06)
        notes.append(Note(time, 0.9 * beat, 36 + tonic + steps[0] % 12, 10, 0.1))
        for half in (0, 0.5):
            pitch = int(rng.choice([scale[0], scale[2], scale[4], *scale]))
            notes.append(Note(time + half * beat, 0.45 * beat, 60 + tonic + pitch, lead, 0.08))
    return mix(notes, [Hit(time, "kick", 0.3) for time in beats], seconds, RATE, rng)
