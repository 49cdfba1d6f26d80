"""GTZAN genres (`genres/<genre>/<genre>.000NN.wav`, 22.05 kHz mono) and the beats of GTZAN-Rhythm v2.

The split is by published lists of file names (Sturm's fault-filtered ones, coreyker/dnn-mgr at bdad579), which are
no part of the data set, so the numbers below were looked up there, and some that stand in no list.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_pipelines.musicbox.official_layouts.layout import Layout, Row, Size, generator, write_text
from data_pipelines.musicbox.official_layouts.sounds import (
    Hit,
    Note,
    Wave,
    beat_grid,
    chord,
    mix,
    write_unreadable,
    write_wav,
)

RATE = 22050


def _run(first: int, end: int) -> tuple[int, ...]:
    return tuple(range(first, end))


# Numbers that the lists have, in the order in which a larger set takes them; OTHERS: in none.
NUMBERS: dict[str, dict[str, tuple[int, ...]]] = {
    "blues": {"train": _run(29, 50), "valid": _run(0, 12), "test": _run(12, 29)},
    "classical": {"train": _run(50, 68), "valid": _run(0, 11), "test": _run(11, 30)},
    "country": {"train": _run(65, 90), "valid": (*_run(0, 8), 9, 10, 11), "test": _run(53, 65)},
    "disco": {"train": _run(22, 38), "valid": (0, *_run(6, 15)), "test": _run(76, 89)},
    "hiphop": {"train": _run(2, 26), "valid": _run(81, 99), "test": _run(62, 76)},
    "jazz": {"train": (14, 18, 20, 54, *_run(55, 72)), "valid": (3, 9, 10, *_run(25, 33)), "test": _run(73, 100)},
    "metal": {"train": _run(46, 58), "valid": _run(6, 12), "test": _run(25, 34)},
    "pop": {"train": (*_run(2, 10), *_run(23, 30)), "valid": (10, *_run(58, 63)), "test": _run(69, 80)},
    "reggae": {"train": (2, *_run(14, 33)), "valid": _run(92, 100), "test": _run(34, 41)},
    "rock": {"train": (*_run(0, 10), *_run(16, 27)), "valid": _run(49, 57), "test": _run(27, 38)},
}
OTHERS = {"pop": (15,), "reggae": (86,)}
UNREADABLE = ("jazz", 54)
NO_BEATS = ("reggae", 86)
NO_DOWNBEATS = {("jazz", number) for number in (3, 9, 10, 14, 18, 20)}
BEATS_BEYOND_THE_END = ("reggae", 2)


class Recipe(NamedTuple):
    """How a genre sounds: slowest tempo (the fastest is a tenth faster), voices, chord, drums by beats of a bar."""

    bpm: float
    melody: int
    chords: int
    steps: tuple[int, ...]
    kick: tuple[float, ...]
    snare: tuple[float, ...]
    hat: tuple[float, ...]
    root: int = 48


RECIPES = {
    "blues": Recipe(72, 4, 6, (0, 4, 10), (0, 2), (1, 3), (0, 0.66, 1, 1.66, 2, 2.66, 3, 3.66), 45),
    "classical": Recipe(66, 4, 7, (0, 4, 7), (), (), (), 48),
    "country": Recipe(100, 10, 4, (0, 4, 7), (0, 2), (1, 3), (), 43),
    "disco": Recipe(118, 8, 1, (0, 3, 7), (0, 1, 2, 3), (1, 3), (0.5, 1.5, 2.5, 3.5), 53),
    "hiphop": Recipe(88, 6, 11, (0, 3), (0, 0.75, 2.5), (1, 3), tuple(n / 4 for n in range(16)), 41),
    "jazz": Recipe(136, 2, 0, (0, 4, 11, 14), (), (), (0, 1, 1.66, 2, 3, 3.66), 55),
    "metal": Recipe(164, 8, 8, (0, 7), tuple(n / 2 for n in range(8)), (1, 3), (0, 1, 2, 3), 40),
    "pop": Recipe(108, 3, 5, (0, 4, 7), (0, 2, 2.5), (1, 3), tuple(n / 2 for n in range(8)), 60),
    "reggae": Recipe(78, 9, 6, (0, 3, 7), (2,), (2,), (0.5, 1.5, 2.5, 3.5), 50),
    "rock": Recipe(126, 10, 8, (0, 4, 7), (0, 2), (1, 3), tuple(n / 2 for n in range(8)), 45),
}


def write_gtzan(folder: Path, seed: int, size: Size, *, beats: str = "jams") -> Layout:
    """Tasks gtzan_genre and gtzan_beats; beats: "jams" (the authors' files) or "mirror" (`.beats`, as in mirdata)."""
    layout = Layout(folder)
    for genre, parts in NUMBERS.items():
        picked = [("train", n) for n in parts["train"][: 4 * size.clips]]
        picked += [(part, n) for part in ("valid", "test") for n in parts[part][: 2 * size.clips]]
        for part, number in picked + [("", number) for number in OTHERS.get(genre, ())]:
            _write_clip(layout, seed, size, genre, number, part, beats)
    return layout


def _write_clip(layout: Layout, seed: int, size: Size, genre: str, number: int, part: str, beats: str) -> None:
    name = f"{genre}.{number:05d}"
    file = f"genres/{genre}/{name}.wav"
    waveform, times, tempo = _clip(genre, generator(seed, name), size.seconds)
    if (genre, number) == BEATS_BEYOND_THE_END:
        times = [*times, times[-1] + 60 / tempo, times[-1] + 120 / tempo]
        layout.defects[file] = "the last beats are annotated after the end of the audio"
    if (genre, number) == UNREADABLE:
        write_unreadable(layout.folder / file, generator(seed, name).bytes(4096))
        layout.defects[file] = "unreadable"
    else:
        write_wav(layout.folder / file, waveform, RATE)
    if not part:
        layout.defects[file] = "in no list of the fault-filtered split"
    if (genre, number) == NO_BEATS:
        layout.defects[file] += "; has no beat annotation"
    else:
        downbeats = [] if (genre, number) in NO_DOWNBEATS else times[::4]
        _write_beats(layout.folder, genre, number, times, downbeats, tempo, size.seconds, beats)
    if (genre, number) in NO_DOWNBEATS:
        layout.defects[file] = "has beats, no downbeats"
    if part and (genre, number) != UNREADABLE:
        layout.rows.append(Row("gtzan_genre", part, file, genre, name))
        label = {"beat": times, "downbeat": downbeats, "tempo": tempo, "meter": "4/4"}
        layout.rows.append(Row("gtzan_beats", part, file, label, name))


def _clip(genre: str, rng: np.random.Generator, seconds: float) -> tuple[Wave, list[float], float]:
    """Waveform, times of the beats (the first is a downbeat), beats per minute."""
    recipe = RECIPES[genre]
    bpm = round(float(recipe.bpm * rng.uniform(1.0, 1.1)), 2)
    beat, first = 60 / bpm, float(rng.uniform(0.02, 0.3))
    times = [round(time, 6) for time in beat_grid(first, beat, seconds - 0.01)]
    root = recipe.root + int(rng.integers(-3, 4))
    notes: list[Note] = []
    hits: list[Hit] = []
    for bar, start in enumerate(times[::4]):
        shift = (0, 5, 7, 0)[bar % 4]
        notes += chord(root + shift, recipe.steps, start, 3.6 * beat, recipe.chords, 0.05)
        for step in range(4):  # a note on every beat: the beat is heard without drums as well
            pitch = root + shift + 12 + int(rng.choice(recipe.steps))
            notes.append(Note(start + step * beat, 0.8 * beat, pitch, recipe.melody, 0.09 if step else 0.13))
        for name, places, level in (
            ("kick", recipe.kick, 0.45),
            ("snare", recipe.snare, 0.2),
            ("hat", recipe.hat, 0.1),
        ):
            hits += [Hit(start + at * beat, name, level) for at in places]
    return mix(notes, hits, seconds, RATE, rng), times, bpm


def _write_beats(
    folder: Path,
    genre: str,
    number: int,
    times: list[float],
    downbeats: list[float],
    tempo: float,
    seconds: float,
    form: str,
) -> None:
    if form == "jams":
        content = _jams(f"{genre}.{number:05d}.wav", times, downbeats, tempo, seconds)
        file = f"GTZAN-Rhythm_v2_ismir2015_lbd/jams/{genre}.{number:05d}.wav.jams"
        write_text(folder, {file: json.dumps(content, indent=2)})
        return
    lines = [f"{time}\t{n % 4 + 1}\n" if downbeats else f"{time}\n" for n, time in enumerate(times)]
    name = f"gtzan_{genre}_{number:05d}"
    files = {f"beats/{name}.beats": "".join(lines), f"tempo/{name}.bpm": f"{tempo:.18e}\n"}
    write_text(folder / "gtzan_tempo_beat", files)


def _jams(title: str, times: list[float], downbeats: list[float], tempo: float, seconds: float) -> dict[str, Any]:
    """Three annotations of the namespace "beat" (beats, downbeats, and with the eighth notes between) and the tempo."""
    eighths = [round(time + half, 6) for time in times for half in (0.0, 30 / tempo)]
    beats = {"beat": times, "downbeat": downbeats, "8th-note": eighths}
    annotations = [
        _annotation("beat", kind, [(time, 0.0, n % 4 + 1.0) for n, time in enumerate(at)]) for kind, at in beats.items()
    ]
    annotations.append(_annotation("tempo", "tempo mean", [(0.0, seconds, tempo)]))
    metadata = {"title": title, "artist": "", "release": "", "duration": seconds, "jams_version": "0.2.0"}
    return {"annotations": annotations, "file_metadata": metadata, "sandbox": {"swing": "no_swing"}}


def _annotation(namespace: str, kind: str, values: list[tuple[float, float, float]]) -> dict[str, Any]:
    """values: (time, duration, value)."""
    keys = ("time", "duration", "value")
    return {
        "namespace": namespace,
        "sandbox": {"annotation_type": kind},
        "time": 0,
        "duration": None,
        "annotation_metadata": {"corpus": "GTZAN", "version": "2.0", "annotator": {}, "curator": {"name": ""}},
        "data": [dict(zip(keys, value, strict=True)) | {"confidence": None} for value in values],
    }
