"""A collection of musicbox tracks, copies of parts of them as files, and music by one sequencer."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
import soxr
from audio_fixtures import write_audio

from data_pipelines.build import ensure_collection
from data_pipelines.musicbox import render_track
from data_pipelines.musicbox.instruments import MAKERS, Timbre, drum

RATE = 16000
MP3 = {"format": "MP3", "subtype": "MPEG_LAYER_III", "bitrate_mode": "CONSTANT"}
CODECS = {  # at 44.1 kHz in stereo
    "mp3 at 64 kbit/s": (".mp3", MP3 | {"compression_level": 0.889}),
    "mp3 at 128 kbit/s": (".mp3", MP3 | {"compression_level": 0.667}),
    "ogg at 60 kbit/s": (".ogg", {"format": "OGG", "subtype": "VORBIS", "compression_level": 0.95}),
}


def build_music(folder: Path, tracks: dict[str, np.ndarray]) -> Path:
    """The collection of these waveforms at 16 kHz, by name."""
    for name, waveform in tracks.items():
        write_audio(folder / "audio" / f"{name}.wav", waveform[:, None], RATE)
    return Path(ensure_collection(str(folder / "audio"), folder / "cache", RATE, progress=False))


def musicbox(seeds: Sequence[int], seconds: float) -> dict[str, np.ndarray]:
    """A track of each family for each seed."""
    families = ("additive", "plucked")
    return {f"{f}-{s}": render_track(s, f, seconds=seconds, sample_rate=RATE)[0] for f in families for s in seeds}


def write_copy(path: Path, waveform: np.ndarray, codec: str, level: float = 0.5) -> Path:
    """The waveform as that codec has it, from two channels of unlike loudness."""
    suffix, options = CODECS[codec]
    wide = soxr.resample(waveform.astype(np.float32), RATE, 44100)
    stereo = np.stack([1.3 * wide, 0.7 * wide], axis=1) * level
    return write_audio(path.with_suffix(suffix), stereo, 44100, **options)


def kbit_per_second(path: Path) -> float:
    return path.stat().st_size * 8 / 1000 / soundfile.info(path).duration


def sequenced(seed: int, family: str, seconds: float) -> np.ndarray:
    """A piece of a sequencer: presets, tempo, key and drums are the same in all its pieces, the notes are not."""
    rng = np.random.default_rng([99, seed])
    out = np.zeros(round((seconds + 4) * RATE), np.float32)
    kit = {name: drum(name, family, np.random.default_rng(5), RATE) for name in ("kick", "snare", "hat")}
    scale = np.array([0, 2, 3, 5, 7, 8, 10])
    beat = 0.5

    def add(at: float, sound: np.ndarray, level: float) -> None:
        begin = round(at * RATE)
        out[begin : begin + len(sound)] += np.float32(level) * sound[: len(out) - begin]

    def note(at: float, instrument: str, pitch: int, duration: float, level: float) -> None:
        frequency = 440 * 2 ** ((pitch - 69) / 12)
        sound = MAKERS[family][instrument](frequency, duration, Timbre(0.5, 0.5, 0.3, 1), RATE)
        add(at, sound / np.sqrt((sound[: RATE // 4] ** 2).mean()), level)

    kicks, snares = (np.flatnonzero(rng.random(8) < 0.4) for _ in range(2))
    for start in np.arange(0, seconds - 0.01, 4 * beat):
        triad = scale[(int(rng.integers(7)) + np.array([0, 2, 4])) % 7]
        for pitch in triad:
            note(start, "organ", 48 + pitch, 1.9, 0.07)
        for eighth in np.flatnonzero(rng.random(8) < 0.7):
            note(start + eighth * beat / 2, "plucked", 60 + rng.choice(scale) + 12 * rng.integers(2), 0.24, 0.15)
        for quarter in range(4):
            note(start + quarter * beat, "bowed", 36 + (rng.choice(triad) if quarter % 2 else triad[0]), 0.45, 0.15)
        for name, level, eighths in (("kick", 0.4, kicks), ("snare", 0.2, snares), ("hat", 0.1, range(8))):
            for eighth in eighths:
                add(start + eighth * beat / 2, kit[name], level)
    out = out[: round(seconds * RATE)]
    return 0.8 * out / np.abs(out).max()
