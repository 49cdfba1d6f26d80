"""From a score to a waveform and a file, and its truth beside it."""

import json
import tempfile
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from scipy.signal import oaconvolve

from data_pipelines.musicbox.instruments import CLASSES, MAKERS, Timbre, drum
from data_pipelines.musicbox.score import Score, compose
from musicssl_jax.shapes import Float

Family = Literal["additive", "plucked"]
FAMILIES: tuple[Family, ...] = get_args(Family)
_VERSION = 1  # of the sound: a new one is rendered anew in every cache
TRUTH_FILE = "musicbox.jsonl"

# Root mean square of a note's first quarter of a second, and peak of a hit.
_LEVELS = {"melody": 0.15, "solo": 0.20, "chords": 0.07, "bass": 0.15}
_DRUM_LEVELS = {"kick": 0.5, "snare": 0.25, "hat": 0.12}


def render_track(
    seed: int | Sequence[int], family: Family, *, seconds: float = 60.0, sample_rate: int = 16000
) -> tuple[Float[np.ndarray, " n"], dict[str, Any]]:
    """Waveform (float32 in (-1, 1), round(seconds * sample_rate) samples) and truth of the track of this seed.

    The truth: seconds, family, key (tonic), mode, bpm, tuning_cents, beats, downbeats, chords (start, end, root,
    quality), notes (onset, duration, MIDI pitch, instrument, role), instruments (role -> class), and solos (start,
    end, instrument: bars in which one instrument plays alone). Times in seconds. A note's frequency is
    440 * 2 ** ((pitch - 69 + tuning_cents / 100) / 12) Hz.
    """
    score = compose(np.random.default_rng(seed), seconds)
    rng = np.random.default_rng([*np.atleast_1d(seed), FAMILIES.index(family) + 1])
    size = round(seconds * sample_rate)
    dry = _notes(score, family, rng, size, sample_rate) + _drums(score, family, rng, size, sample_rate)
    waveform = _room(dry, rng, sample_rate)
    waveform *= rng.uniform(0.4, 0.9) / np.abs(waveform).max()
    return waveform, {"seconds": seconds, "family": family} | _truth(score)


def write_musicbox(
    folder: str | Path, *, seed: int, tracks: int, family: Family, seconds: float = 60.0, sample_rate: int = 16000
) -> list[dict[str, Any]]:
    """Writes `tracks` WAV files (PCM16, mono) and their truth, a line of musicbox.jsonl each; returns the truth.

    Track n follows from (seed, n). A folder holds one such set.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    truths = []
    for number in range(tracks):
        waveform, truth = render_track([seed, number], family, seconds=seconds, sample_rate=sample_rate)
        file = f"{family}-{seed}-{number:04d}.wav"
        _write_wav(folder / file, waveform, sample_rate)
        truths.append({"file": file} | truth)
    (folder / TRUTH_FILE).write_text("".join(json.dumps(truth) + "\n" for truth in truths))
    return truths


def _notes(score: Score, family: Family, rng: np.random.Generator, size: int, rate: int) -> Float[np.ndarray, " n"]:
    timbres = {name: _timbre(rng) for name in CLASSES}
    sounds: dict[tuple[str, int, float], np.ndarray] = {}  # a beat grid repeats most notes
    out = np.zeros(size, np.float32)
    for note in score.notes:
        key = note.instrument, note.pitch, round(note.duration, 4)
        if key not in sounds:
            frequency = 440 * 2 ** ((note.pitch - 69 + score.tuning_cents / 100) / 12)
            sound = MAKERS[family][note.instrument](frequency, note.duration, timbres[note.instrument], rate)
            sounds[key] = sound / np.sqrt((sound[: rate // 4] ** 2).mean())  # classes equally loud at first
        _add(out, sounds[key], note.onset, _LEVELS[note.role] * rng.uniform(0.7, 1.0), rate)
    return out


def ensure_musicbox(cache: str | Path, sample_rate: int) -> Path:
    """The folder of the embedded demo set, 32 tracks of the additive family of seed 0; written once (some 6 s)."""
    folder = Path(cache) / f"musicbox-{_VERSION}-{sample_rate}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as partial:
            write_musicbox(Path(partial) / "set", seed=0, tracks=32, family="additive", sample_rate=sample_rate)
            try:
                (Path(partial) / "set").rename(folder)
            except OSError:
                if not folder.exists():  # else another process was faster
                    raise
    return folder


def _timbre(rng: np.random.Generator) -> Timbre:
    brightness, attack, vibrato = rng.uniform(size=3).tolist()
    return Timbre(brightness, attack, vibrato, seed=int(rng.integers(2**31)))


def _drums(score: Score, family: Family, rng: np.random.Generator, size: int, rate: int) -> Float[np.ndarray, " n"]:
    kit = {name: drum(name, family, rng, rate) for name in _DRUM_LEVELS}
    level = rng.uniform(0.4, 1.0)
    out = np.zeros(size, np.float32)
    for onset, name in score.hits:
        _add(out, kit[name], onset, _DRUM_LEVELS[name] * level * rng.uniform(0.8, 1.0), rate)
    return out


def _add(out: np.ndarray, sound: np.ndarray, onset: float, level: float, rate: int) -> None:
    begin = round(onset * rate)
    end = max(begin, min(begin + len(sound), len(out)))  # in a piece of less than a bar some begin behind the end
    out[begin:end] += np.float32(level) * sound[: end - begin]


def _room(dry: np.ndarray, rng: np.random.Generator, rate: int) -> np.ndarray:
    """The room's response is decaying noise (60 dB in .2 to .8 s); white noise lies 35 to 55 dB under it all."""
    decay = rng.uniform(0.2, 0.8)
    t = np.arange(round(decay * rate)) / rate
    response = rng.standard_normal(len(t)) * 10 ** (-3 * t / decay)
    response *= rng.uniform(0.1, 0.3) / np.sqrt((response**2).sum())
    wet = dry + oaconvolve(dry, response.astype(np.float32))[: len(dry)]
    spread = wet.std() * 10 ** (-rng.uniform(35, 55) / 20)
    return wet + np.float32(spread) * rng.standard_normal(len(wet), dtype=np.float32)


def _truth(score: Score) -> dict[str, Any]:
    lists = {name: [item._asdict() for item in getattr(score, name)] for name in ("chords", "notes", "solos")}
    truth = score._asdict() | lists
    del truth["hits"]
    return truth


def _write_wav(path: Path, waveform: Float[np.ndarray, " n"], sample_rate: int) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(np.round(waveform * 32768).astype("<i2").tobytes())
