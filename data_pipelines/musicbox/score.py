"""What a track plays: key, tempo, chords, notes and drum hits on a beat grid, drawn from a random generator."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from data_pipelines.musicbox.instruments import CLASSES

PITCH_NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
BEATS_PER_BAR = 4
TEMPI = (70.0, 160.0)  # beats per minute
TUNING = 50.0  # cents, either way

_SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
# Degrees of the scale, one chord a bar. All begin with the tonic, so that the key is heard.
_PROGRESSIONS = {
    "major": ((0, 4, 5, 3), (0, 5, 3, 4), (0, 3, 4, 0), (0, 1, 4, 0), (0, 3, 0, 4), (0, 2, 3, 4)),
    "minor": ((0, 5, 2, 6), (0, 3, 4, 0), (0, 6, 5, 4), (0, 3, 6, 2), (0, 5, 3, 4), (0, 4, 0, 3)),
}
_QUALITIES = {(4, 7): "maj", (3, 7): "min", (3, 6): "dim"}
_Rhythms = tuple[tuple[int | float, ...], ...]  # lengths in beats; each fills a bar
_MELODY_RHYTHMS = ((1, 1, 1, 1), (2, 1, 1), (1, 1, 2), (0.5, 0.5, 1, 1, 1), (1, 0.5, 0.5, 2), (1.5, 0.5, 1, 1))
_SOLO_RHYTHMS = ((1, 1, 1, 1), (2, 1, 1), (1, 1, 2), (2, 2))
_CHORD_RHYTHMS = ((4,), (2, 2), (1, 1, 1, 1), (3, 1))
_BASS_RHYTHMS = ((2, 2), (1, 1, 1, 1), (3, 1), (1.5, 0.5, 2))
_DRUM_PATTERNS = (  # (beat of the bar, drum)
    ((0, "kick"), (2, "kick"), (1, "snare"), (3, "snare"), *((n / 2, "hat") for n in range(8))),
    ((0, "kick"), (1, "kick"), (2, "kick"), (3, "kick"), *((n + 0.5, "hat") for n in range(4)), (3, "snare")),
    ((0, "kick"), (2.5, "kick"), (1, "snare"), (3, "snare"), *((n, "hat") for n in range(4))),
    ((0, "kick"), (2, "snare"), *((n, "hat") for n in range(4))),
)


class Note(NamedTuple):
    """Seconds; `pitch` is a MIDI number, to which the track's tuning adds."""

    onset: float
    duration: float
    pitch: int
    instrument: str
    role: str  # melody, chords, bass or solo


class Chord(NamedTuple):
    start: float
    end: float
    root: str
    quality: str  # maj, min or dim


class Solo(NamedTuple):
    """A bar in which one instrument plays one note at a time, and nothing else sounds but the room."""

    start: float
    end: float
    instrument: str


class Hit(NamedTuple):
    onset: float
    drum: str  # kick, snare or hat


class Score(NamedTuple):
    """Times in seconds. `key` is the tonic's name, `beats` the whole grid, `instruments` role -> class."""

    key: str
    mode: str
    bpm: float
    tuning_cents: float
    beats: list[float]
    downbeats: list[float]
    instruments: dict[str, str]
    chords: list[Chord]
    notes: list[Note]
    hits: list[Hit]
    solos: list[Solo]


def compose(rng: np.random.Generator, seconds: float) -> Score:
    """A piece of as many whole 4/4 bars as fit; a run of bars in its middle are solos, one for every class."""
    tonic, mode = int(rng.integers(12)), str(rng.choice(list(_SCALES)))
    bpm = float(rng.uniform(*TEMPI))
    beat = 60 / bpm
    first = float(rng.uniform(0, beat))
    bars = max(1, int((seconds - first) / (BEATS_PER_BAR * beat)))
    downbeats = [first + bar * BEATS_PER_BAR * beat for bar in range(bars)]
    degrees = _degrees(rng, mode, bars)
    harmony = [_triad(tonic, mode, degree) for degree in degrees]
    classes = {role: str(rng.choice(CLASSES)) for role in ("melody", "chords", "bass")}
    solo_bars = _solo_bars(rng, bars)
    pattern = _DRUM_PATTERNS[int(rng.integers(len(_DRUM_PATTERNS)))]
    scale = [(tonic + step) % 12 for step in _SCALES[mode]]
    notes: list[Note] = []
    hits: list[Hit] = []
    for bar, (start, triad) in enumerate(zip(downbeats, harmony, strict=True)):
        if bar in solo_bars:
            notes += _melody(rng, start, beat, triad, scale, solo_bars[bar], "solo", _SOLO_RHYTHMS)
            continue
        notes += _melody(rng, start, beat, triad, scale, classes["melody"], "melody", _MELODY_RHYTHMS)
        notes += _accompaniment(rng, start, beat, triad, classes)
        hits += [Hit(start + at * beat, drum) for at, drum in pattern]
    bar_seconds = BEATS_PER_BAR * beat
    return Score(
        key=PITCH_NAMES[tonic],
        mode=mode,
        bpm=bpm,
        tuning_cents=float(rng.uniform(-TUNING, TUNING)),
        beats=[first + n * beat for n in range(bars * BEATS_PER_BAR)],
        downbeats=downbeats,
        instruments=classes,
        chords=[_chord(at, at + bar_seconds, triad) for at, triad in zip(downbeats, harmony, strict=True)],
        notes=notes,
        hits=hits,
        solos=[Solo(downbeats[bar], downbeats[bar] + bar_seconds, name) for bar, name in solo_bars.items()],
    )


def _degrees(rng: np.random.Generator, mode: str, bars: int) -> list[int]:
    """Two progressions in turns: twice the one, twice the other."""
    choices = rng.choice(len(_PROGRESSIONS[mode]), 2, replace=False)
    form = [_PROGRESSIONS[mode][int(choice)] for choice in choices for _ in range(2)]
    loop = [degree for progression in form for degree in progression]
    return [loop[bar % len(loop)] for bar in range(bars)]


def _triad(tonic: int, mode: str, degree: int) -> tuple[int, int, int]:
    """Root, third and fifth as MIDI pitches from 48 on; the minor key's dominant is major, as usual."""
    scale = _SCALES[mode]
    root, third, fifth = (tonic + scale[(degree + n) % 7] for n in (0, 2, 4))
    if mode == "minor" and degree == 4:
        third += 1
    root = 48 + root % 12
    return root, root + (third - root) % 12, root + (fifth - root) % 12


def _chord(start: float, end: float, triad: tuple[int, int, int]) -> Chord:
    root, third, fifth = triad
    return Chord(start, end, PITCH_NAMES[root % 12], _QUALITIES[third - root, fifth - root])


def _solo_bars(rng: np.random.Generator, bars: int) -> dict[int, str]:
    """Bar -> class: a run around the middle, every class once; fewer in pieces of under 12 bars."""
    count = min(len(CLASSES), bars // 2)
    first = (bars - count) // 2
    return {first + n: str(name) for n, name in enumerate(rng.permutation(CLASSES)[:count])}


def _melody(
    rng: np.random.Generator,
    start: float,
    beat: float,
    triad: tuple[int, int, int],
    scale: list[int],
    instrument: str,
    role: str,
    rhythms: _Rhythms,
) -> Iterator[Note]:
    """Chord tones on whole beats and steps of the scale between them, between MIDI 60 and 84."""
    tones = {pitch % 12 for pitch in triad}
    pitch = int(rng.integers(62, 80))
    for at, length in _rhythm(rng, rhythms):
        allowed = tones if at % 1 == 0 else set(scale)
        near = [p for p in range(60, 85) if p % 12 in allowed and 0 < abs(p - pitch) <= 7]
        pitch = int(rng.choice(near))
        yield Note(start + at * beat, length * beat * 0.95, pitch, instrument, role)


def _accompaniment(
    rng: np.random.Generator, start: float, beat: float, triad: tuple[int, int, int], classes: dict[str, str]
) -> Iterator[Note]:
    for at, length in _rhythm(rng, _CHORD_RHYTHMS):
        for pitch in triad:
            yield Note(start + at * beat, length * beat * 0.95, pitch, classes["chords"], "chords")
    for at, length in _rhythm(rng, _BASS_RHYTHMS):
        pitch = triad[0] if at == 0 else triad[int(rng.choice(3, p=(0.6, 0.1, 0.3)))]
        yield Note(start + at * beat, length * beat * 0.9, 36 + (pitch - 36) % 12, classes["bass"], "bass")


def _rhythm(rng: np.random.Generator, rhythms: _Rhythms) -> Iterator[tuple[float, float]]:
    """(beat of the bar, length in beats) of every note of one of the rhythms."""
    at = 0.0
    for length in rhythms[int(rng.integers(len(rhythms)))]:
        yield at, length
        at += length
