"""From an audio file to mono PCM16 at one sample rate, in blocks: an hour needs no more memory than a second.

Runs in worker processes, because some files crash or hang their decoder (`data_pipelines.pool`).
"""

import contextlib
import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr

from data_pipelines.audio_files import Audio, Rejected, Unusable, open_audio
from musicssl_jax.errors import UserError
from musicssl_jax.shapes import Float, Int16

_FULL_SCALE = 32766 / 32768  # one step under the largest PCM16 value, which encoders and dither may miss


@dataclass(frozen=True)
class Limits:
    """What makes a decoded track useless: under `min_seconds`, under `min_level` dBFS (standard deviation
    of the waveform), or a share of source samples at full scale of more than `max_clipped`.
    """

    min_seconds: float = 1.0
    min_level: float = -70.0
    max_clipped: float = 0.02


@dataclass(frozen=True)
class Decoded:
    """What is known of a track whose PCM was written.

    samples: length at the target rate; mean, std: of the waveform in [-1, 1] (population), from the PCM16
    itself; peak: largest absolute source sample (1.0 is full scale); clipped: share of source samples at
    full scale; digest: SHA-256 of the PCM; rate, channels, codec: of the source.
    """

    samples: int
    mean: float
    std: float
    peak: float
    clipped: float
    digest: str
    rate: int
    channels: int
    codec: str


def decode_track(
    path: str, pcm: Path, sample_rate: int, limits: Limits, progress: Callable[[float], None]
) -> Decoded | Rejected:
    """Writes the file's audio to `pcm` (mono, little-endian PCM16 at `sample_rate`) and measures it.

    `progress` is called with the seconds of audio written so far. Raises UserError where `pcm` cannot be
    written.
    """
    meter = _Meter(sample_rate)
    try:
        with open_audio(path) as audio, _PcmFile(pcm) as file:
            mono = (meter.source(block) for block in audio.blocks)
            for block in resample(mono, audio.rate, sample_rate):
                samples = to_pcm16(block)
                meter.pcm(samples)
                file.write(samples)
                progress(meter.seconds)
        return meter.verdict(audio, limits)
    except Unusable as unusable:
        return unusable.rejected
    except MemoryError:
        return Rejected("out of memory", "decoding took more memory than there is")


def resample(
    blocks: Iterator[Float[np.ndarray, " n"]], rate: int, sample_rate: int
) -> Iterator[Float[np.ndarray, " m"]]:
    """The blocks, as one stream, at `sample_rate` by soxr's high-quality recipe; unchanged if the rate is."""
    if rate == sample_rate:
        yield from blocks
        return
    stream = soxr.ResampleStream(rate, sample_rate, 1, dtype="float32", quality="HQ")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def to_pcm16(waveform: Float[np.ndarray, " n"]) -> Int16[np.ndarray, " n"]:
    """Rounds to the nearest of 2^16 steps and clips at full scale. A PCM16 source comes back exactly."""
    return np.clip(np.rint(waveform * np.float32(32768)), -32768, 32767).astype("<i2")


class _Meter:
    """Running measures of a track. Sums over PCM are of integers: they do not depend on the block size."""

    def __init__(self, sample_rate: int):
        self._sample_rate = sample_rate
        self._peak = 0.0
        self._at_full_scale = 0
        self._source_values = 0
        self._samples = 0
        self._sum = 0
        self._squares = 0
        self._digest = hashlib.sha256()

    def source(self, block: Float[np.ndarray, "n channels"]) -> Float[np.ndarray, " n"]:
        """Notes the levels of a decoded block and gives the mean over its channels."""
        if block.size:
            peak = float(max(block.max(), -block.min()))
            if not math.isfinite(peak):
                where = self._source_values // block.shape[1]
                raise Unusable("not finite", f"NaN or infinite samples after sample {where}")
            if peak >= _FULL_SCALE:
                self._at_full_scale += int(np.count_nonzero(np.abs(block) >= _FULL_SCALE))
            self._peak = max(self._peak, peak)
            self._source_values += block.size
        # Adding up columns is several times faster than mean(axis=1) on interleaved samples.
        mono = block[:, 0].copy()
        for channel in range(1, block.shape[1]):
            mono += block[:, channel]
        mono /= block.shape[1]
        return mono

    def pcm(self, block: Int16[np.ndarray, " n"]) -> None:
        wide = block.astype(np.int64)
        self._samples += len(block)
        self._sum += int(wide.sum())
        self._squares += int((wide * wide).sum())
        self._digest.update(block.tobytes())

    @property
    def seconds(self) -> float:
        return self._samples / self._sample_rate

    def verdict(self, audio: Audio, limits: Limits) -> Decoded:
        n = self._samples
        if self.seconds < limits.min_seconds or n == 0:
            raise Unusable("too short", f"{self.seconds:.2f} s; at least {limits.min_seconds:g} s are asked for")
        std = math.sqrt(n * self._squares - self._sum**2) / n / 32768
        level = 20 * math.log10(std) if std else -math.inf
        if level < limits.min_level:
            raise Unusable("silent", f"level {level:.1f} dBFS, under {limits.min_level:g}")
        clipped = self._at_full_scale / self._source_values
        if clipped > limits.max_clipped:
            raise Unusable("clipped", f"{clipped:.1%} of the samples are at full scale")
        return Decoded(
            samples=n,
            mean=self._sum / n / 32768,
            std=std,
            peak=self._peak,
            clipped=clipped,
            digest=self._digest.hexdigest(),
            rate=audio.rate,
            channels=audio.channels,
            codec=audio.codec,
        )


class _PcmFile:
    """A file that tells its own write errors from those of reading the source, which only reject one file."""

    def __init__(self, path: Path):
        self._path = path

    def __enter__(self) -> "_PcmFile":
        with self._naming_errors():
            self._file = open(self._path, "wb", buffering=0)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, samples: Int16[np.ndarray, " n"]) -> None:
        left = memoryview(samples.tobytes())
        with self._naming_errors():
            while left:  # a nearly full disk takes a part of it
                left = left[self._file.write(left) :]

    @contextlib.contextmanager
    def _naming_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"cannot write {self._path}: {error.strerror}; when it can, the same command goes on"
            ) from None
