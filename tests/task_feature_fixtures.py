"""Recordings on the disk, and what their windows should become."""

from pathlib import Path

import numpy as np
import soundfile
from audio_fixtures import sound, write_audio

from musicssl_jax.mir.tasks.task import Recording


def write_recordings(folder: Path, seconds: list[float], *, suffix: str = ".wav", rate: int = 16000) -> list[Recording]:
    """One file for each length, named by its number; mono."""
    return [
        Recording(f"song/{n:03d}", str(write_audio(folder / f"{n:03d}{suffix}", sound(n, length, rate), rate)))
        for n, length in enumerate(seconds)
    ]


def pcm_of(recording: Recording) -> np.ndarray:
    return soundfile.read(recording.path, dtype="int16")[0]
