"""Audio files for tests of the data building: short pieces of music-like sound, in any format."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile

ROOT = Path(__file__).parent.parent


def sound(seed: int, seconds: float = 2.0, rate: int = 16000, channels: int = 1) -> np.ndarray:
    """float32 (samples, channels): a chord of its own for each seed, with a beat and a little noise."""
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    waveform = np.zeros((len(time), channels))
    for frequency in random.uniform(100, 2000, 4):
        phase = random.uniform(0, 2 * np.pi, channels)
        waveform += np.sin(2 * np.pi * frequency * time[:, None] + phase)
    waveform *= 0.08 * (1 + np.sin(2 * np.pi * 2 * time))[:, None]
    return (waveform + 0.005 * random.standard_normal(waveform.shape)).astype(np.float32)


def write_audio(path: Path, waveform: np.ndarray, rate: int = 16000, **options: str) -> Path:
    """In pieces: libsndfile crashes on long Ogg files written in one call."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with soundfile.SoundFile(path, "w", rate, waveform.shape[1], **options) as file:
        for start in range(0, len(waveform), 1 << 16):
            file.write(waveform[start : start + (1 << 16)])
    return path


def write_music(folder: Path, tracks: int, seconds: float = 2.0) -> Path:
    for number in range(tracks):
        write_audio(folder / f"album{number % 3}" / f"song{number}.wav", sound(number, seconds))
    return folder


def start_build(*arguments: object, **options) -> subprocess.Popen:
    command = [sys.executable, "-m", "data_pipelines.build", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
    return subprocess.Popen(command, preexec_fn=hear_interrupts, **(pipes | options))


def hear_interrupts() -> None:
    """A process inherits from tests that run in the background that SIGINT is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def run_build(*arguments: object, **options) -> subprocess.CompletedProcess:
    process = start_build(*arguments, **options)
    stdout, stderr = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def build_ok(*arguments: object, **options) -> str:
    """What the command printed."""
    done = run_build(*arguments, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def read_tracks(folder: Path, split: str) -> dict[str, np.ndarray]:
    """Every track's int16 samples, in record order."""
    from data_pipelines.records import open_collection

    of_split = open_collection(folder).splits[split]
    tracks = {}
    for number, (name, length) in enumerate(zip(of_split.tracks.ids, of_split.tracks.lengths, strict=True)):
        tracks[name] = np.empty(length, np.int16)
        of_split.read(number, 0, tracks[name])
    return tracks
