"""Recordings as mono PCM16, decoded ahead by other processes, in the order in which they are asked for."""

import functools
import itertools
import json
import os
import tempfile
from collections.abc import Callable, Generator, Hashable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_pipelines.audio_files import Rejected
from data_pipelines.decode import Limits, decode_track, resample, to_pcm16
from data_pipelines.pool import Died, WorkerPool
from musicssl_jax.errors import UserError
from musicssl_jax.mir.features.windows import LONGEST_SECONDS, SHORTEST_SECONDS, used_part
from musicssl_jax.mir.tasks.task import Recording, Windows
from musicssl_jax.shapes import Int16

TIME_LIMIT = 60.0  # seconds without progress

Source = tuple[int, int]
"""Size and time of change (nanoseconds) of what a recording is read from, by which a replaced file is noticed."""

NO_SOURCE: Source = (-1, -1)

_MAPPED_BYTES = 2 << 20
_LIMITS = Limits(min_seconds=0.0, min_level=-np.inf, max_clipped=1.0)
_RATES = {"nsynth": 16000, "gtzan": 22050}  # of TFDS data sets whose audio is a plain tensor, which does not say it


class Part(NamedTuple):
    """What of a recording is used: samples [begin, end), and their mean and (population) deviation in [-1, 1]."""

    begin: int
    end: int
    mean: float
    std: float


class Decoded(NamedTuple):
    """The used part of a recording, which begins at `start` seconds. pcm: read from the disk when it is looked at."""

    recording: Recording
    start: float
    pcm: Int16[np.ndarray, " samples"]
    mean: float
    std: float


def decode_ahead(
    recordings: Iterable[Recording], sample_rate: int, windows: Windows, *, workers: int
) -> Generator[Decoded | tuple[Recording, Rejected], None, None]:
    """Each recording's used part at `sample_rate`, or why it cannot be used, in order."""
    waiting = enumerate(recordings)
    pending: dict[Hashable, Recording] = {}
    ended: dict[Hashable, Any] = {}
    with (
        tempfile.TemporaryDirectory(prefix="musicssl-evaluate-") as folder,
        WorkerPool(workers=workers, time_limit=TIME_LIMIT) as pool,
    ):

        def path(number: Hashable) -> Path:
            return Path(folder, f"{number}.pcm")

        def submit(count: int) -> None:
            for number, recording in itertools.islice(waiting, count):
                pending[number] = recording
                pool.submit(number, decode, recording, path(number), sample_rate, windows)

        submit(2 * workers + 2)
        for number in itertools.count():
            while number not in ended and pool.busy:
                key, result = pool.next()
                ended[key] = result
            if number not in pending:
                return
            recording, result = pending.pop(number), ended.pop(number)
            if isinstance(result, Died):
                reason = "hangs its decoder" if result.hung else "crashes its decoder"
                result = Rejected(reason, result.detail)
            if isinstance(result, Part):
                pcm = _samples(path(number))[result.begin : result.end]
                path(number).unlink()
                yield Decoded(recording, result.begin / sample_rate, pcm, result.mean, result.std)
            else:
                path(number).unlink(missing_ok=True)
                yield recording, result
            submit(1)


def _samples(path: Path) -> Int16[np.ndarray, " samples"]:
    """Long ones are mapped, which stays valid when the file has lost its name; a thousand notes would be a thousand
    open files."""
    if path.stat().st_size > _MAPPED_BYTES:
        return np.memmap(path, "<i2", mode="r")
    return np.fromfile(path, "<i2")


def decode(
    recording: Recording, pcm: Path, sample_rate: int, windows: Windows, progress: Callable[[float], None]
) -> Part | Rejected:
    """Writes all of the recording to `pcm` and says what of it is used; a job of `WorkerPool`.

    `progress` is called with the seconds that are written. Raises UserError where `pcm` cannot be written.
    """
    decode_source = _decode_file if recording.entry is None else _decode_entry
    if rejected := decode_source(recording, pcm, sample_rate, progress):
        return rejected
    samples = np.memmap(pcm, "<i2", mode="r")
    begin, end = used_part(samples, sample_rate, windows)
    seconds = (end - begin) / sample_rate
    if seconds < SHORTEST_SECONDS:
        return Rejected("too short", f"{seconds:.2f} s; at least {SHORTEST_SECONDS:g} s are asked for")
    if windows.seconds is None and seconds > LONGEST_SECONDS:
        return Rejected("too long", f"{seconds:.0f} s; as one window at most {LONGEST_SECONDS:g} s are encoded")
    return Part(begin, end, *statistics(samples[begin:end]))


def statistics(pcm: Int16[np.ndarray, " samples"]) -> tuple[float, float]:
    """Mean and standard deviation of the waveform in [-1, 1], from sums of integers."""
    total = squares = 0
    for first in range(0, len(pcm), 1 << 20):  # an hour of audio needs no more memory than a minute
        wide = pcm[first : first + (1 << 20)].astype(np.int64)
        total += int(wide.sum())
        squares += int((wide * wide).sum())
    return total / len(pcm) / 32768, (len(pcm) * squares - total**2) ** 0.5 / len(pcm) / 32768


def _decode_file(
    recording: Recording, pcm: Path, sample_rate: int, progress: Callable[[float], None]
) -> Rejected | None:
    decoded = decode_track(recording.path, pcm, sample_rate, _LIMITS, progress)
    return decoded if isinstance(decoded, Rejected) else None


def _decode_entry(
    recording: Recording, pcm: Path, sample_rate: int, progress: Callable[[float], None]
) -> Rejected | None:
    split, number = recording.entry or ("", 0)
    try:
        source, rate = _open_prepared(recording.path, split)
        samples = np.asarray(source[number]["audio"])
    except (ImportError, OSError, ValueError, KeyError, IndexError, RuntimeError, NotImplementedError) as error:
        return Rejected("unreadable", f"record {number} of {split} in {recording.path}: {error}")
    if samples.ndim != 1 or samples.size == 0:
        return Rejected("unreadable", f"record {number} of {split} holds audio of shape {samples.shape}")
    waveform = samples.astype(np.float32)
    if np.issubdtype(samples.dtype, np.integer):  # 16-bit values, whatever type they are kept in
        waveform /= 32768
    if not np.isfinite(waveform).all():
        return Rejected("not finite", f"NaN or infinite samples in record {number} of {split}")
    try:
        with pcm.open("wb") as file:
            for block in resample(iter([waveform]), rate, sample_rate):
                file.write(to_pcm16(block).tobytes())
                progress(file.tell() / 2 / sample_rate)
    except OSError as error:
        raise UserError(f"cannot write {pcm}: {error.strerror}; when it can, the same command goes on") from None
    return None


@functools.lru_cache(maxsize=4)
def _open_prepared(folder: str, split: str) -> tuple[Any, int]:
    """A split of a TFDS data set, and its sample rate."""
    import tensorflow_datasets as tfds

    features = json.loads(Path(folder, "features.json").read_text())["featuresDict"]["features"]
    name = json.loads(Path(folder, "dataset_info.json").read_text())["name"]
    rate = int(features["audio"].get("audio", {}).get("sampleRate", _RATES.get(name, 0)))
    if not rate:
        raise ValueError(f"{folder} does not say its sample rate")
    return tfds.builder_from_directory(folder).as_data_source(split), rate


def source_of(recording: Recording) -> Source:
    """Of the audio file; of an entry of a prepared data set those of its `dataset_info.json`. NO_SOURCE: none there."""
    path = recording.path if recording.entry is None else os.path.join(recording.path, "dataset_info.json")
    try:
        status = os.stat(path)
    except OSError:
        return NO_SOURCE
    return status.st_size, status.st_mtime_ns
