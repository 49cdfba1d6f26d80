"""Short pieces of sound whose labels can be heard: notes and drum hits, mixed and written as WAV or MP3."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from scipy.signal import resample_poly

from data_pipelines.musicbox.instruments import MAKERS, Timbre, drum
from musicssl_jax.shapes import Float

Wave = Float[np.ndarray, " n"]

# The synthesiser's twelve voices: six instrument classes, each made in two ways.
VOICES = tuple((family, name) for family in ("additive", "plucked") for name in MAKERS[family])


class Note(NamedTuple):
    """onset and duration in seconds, MIDI pitch, an index into VOICES, level as root mean square."""

    onset: float
    duration: float
    pitch: float
    voice: int
    level: float = 0.1


class Hit(NamedTuple):
    """A drum (kick, snare or hat) at `onset` seconds, with the given peak."""

    onset: float
    drum: str
    level: float = 0.4


def timbre(rng: np.random.Generator) -> Timbre:
    """Of an instrument, a singer: what its notes have in common."""
    brightness, attack, vibrato = rng.uniform(size=3).tolist()
    return Timbre(brightness, attack, vibrato, seed=int(rng.integers(2**31)))


def tone(note: Note, instrument: Timbre, rate: int) -> Wave:
    """The note's sound from its onset on, at its level over the first quarter of a second."""
    family, name = VOICES[note.voice]
    sound = MAKERS[family][name](440 * 2 ** ((note.pitch - 69) / 12), note.duration, instrument, rate)
    return sound * np.float32(note.level / np.sqrt((sound[: rate // 4] ** 2).mean()))


def mix(notes: Iterable[Note], hits: Iterable[Hit], seconds: float, rate: int, rng: np.random.Generator) -> Wave:
    """round(seconds * rate) samples with some noise; what does not fit is cut; scaled down where it would clip.

    For 44.1 kHz it is made at half the rate: what there would be above 11 kHz is not worth the time.
    """
    if rate == 44100:
        return resample_poly(mix(notes, hits, seconds, rate // 2, rng), 2, 1)[: round(seconds * rate)]
    out = rng.standard_normal(round(seconds * rate), dtype=np.float32) * np.float32(0.001)
    instrument = timbre(rng)
    sounds: dict[Note, Wave] = {}  # a beat grid repeats most notes
    for note in notes:
        unit = note._replace(onset=0.0, duration=round(note.duration, 4), level=1.0)
        if unit not in sounds:
            sounds[unit] = tone(unit, instrument, rate)
        _add(out, np.float32(note.level) * sounds[unit], note.onset, rate)
    kit = {name: drum(name, "additive", rng, rate) for name in ("kick", "snare", "hat")}
    for hit in hits:
        _add(out, np.float32(hit.level) * kit[hit.drum], hit.onset, rate)
    return out * np.float32(min(1.0, 0.9 / np.abs(out).max()))


def _add(out: Wave, sound: Float[np.ndarray, " m"], onset: float, rate: int) -> None:
    begin = round(onset * rate)
    piece = sound[: max(0, len(out) - begin)]
    out[begin : begin + len(piece)] += piece


def beat_grid(first: float, beat: float, seconds: float) -> list[float]:
    """Times from `first` on, `beat` apart, until `seconds`."""
    return [first + n * beat for n in range(int((seconds - first) / beat + 1))]


def chord(root: int, steps: Sequence[int], onset: float, duration: float, voice: int, level: float) -> list[Note]:
    """One note for each step above the root, at the same time."""
    return [Note(onset, duration, root + step, voice, level) for step in steps]


def write_wav(path: Path, waveform: Wave, rate: int) -> None:
    """PCM16."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, waveform, rate, subtype="PCM_16")


def write_mp3(path: Path, waveform: Float[np.ndarray, " n"] | Float[np.ndarray, "n c"], rate: int) -> None:
    """MPEG layer III, variable bit rate."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, waveform, rate, format="MP3")


def write_unreadable(path: Path, content: bytes = b"") -> None:
    """A file with the name of a sound, and no sound in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
