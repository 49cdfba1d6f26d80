"""Seconds of audio built per CPU-second, from 44.1 kHz stereo MP3 to records, beside librosa's loading alone.

    python -m benchmarks.build [--tracks=24] [--seconds=180] [--workers=2] [--repeats=3]

Ours is the whole command with all its processes: start, decoding, resampling, statistics, hash, records and
report. The peer only decodes, mixes and resamples (`librosa.load(path, sr=16000)`), in one process, imports not
counted. CPU-seconds are user and system time.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

RATE = 44100


def write_tracks(folder: Path, tracks: int, seconds: float) -> None:
    """Chords over a beat with noise: about 140 kbit/s, as music takes at this encoder's default."""
    block = np.arange(RATE * 10) / RATE
    for number in range(tracks):
        random = np.random.default_rng(number)
        with soundfile.SoundFile(folder / f"{number:03d}.mp3", "w", RATE, 2) as file:
            for _ in range(round(seconds / 10)):
                chord = sum(np.sin(2 * np.pi * f * block) for f in random.uniform(80, 4000, 6))
                beat = np.exp(-8 * (block % 0.5))
                stereo = np.stack([chord, np.roll(chord, 300)], axis=1) * beat[:, None] * 0.08
                file.write((stereo + 0.01 * random.standard_normal(stereo.shape)).astype(np.float32))


def cpu_seconds_of(command: list[str]) -> tuple[float, float, str]:
    """CPU-seconds and wall seconds of a command with its children, and what it printed."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, time.monotonic() - started, done.stdout


LIBROSA = """
import glob, librosa, sys, time
librosa.load(glob.glob(sys.argv[1])[0], sr=16000, duration=1)
started = time.process_time()
for path in glob.glob(sys.argv[1]):
    librosa.load(path, sr=16000)
print(time.process_time() - started)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracks", type=int, default=24)
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    audio = arguments.tracks * arguments.seconds
    ours, peer = [], []
    with tempfile.TemporaryDirectory() as folder:
        music = Path(folder) / "music"
        music.mkdir()
        write_tracks(music, arguments.tracks, arguments.seconds)
        size = sum(path.stat().st_size for path in music.iterdir())
        print(f"{arguments.tracks} MP3 files of {arguments.seconds:g} s, {size * 8 / audio / 1000:.0f} kbit/s")
        for repeat in range(arguments.repeats):
            command = [sys.executable, "-m", "data_pipelines.build", f"--input={music}"]
            command += [f"--output={folder}/out{repeat}", f"--workers={arguments.workers}"]
            cpu, wall, _ = cpu_seconds_of(command)
            ours.append(audio / cpu)
            print(f"build: {audio / cpu:.0f} s of audio per CPU-second, {audio / wall:.0f} per second")
            _, _, printed = cpu_seconds_of([sys.executable, "-c", LIBROSA, f"{music}/*.mp3"])
            peer.append(audio / float(printed))
            print(f"librosa.load: {peer[-1]:.0f} s of audio per CPU-second")
    ratio = statistics.median(a / b for a, b in zip(ours, peer, strict=True))
    print(f"build: median {statistics.median(ours):.0f} s of audio per CPU-second")
    print(f"ratio {ratio:.2f} (ours/peer throughput, median of {arguments.repeats})")


if __name__ == "__main__":
    main()
