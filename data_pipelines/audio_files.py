"""Opens audio files: libsndfile for what it reads (WAV, FLAC, MP3, Ogg Vorbis, Opus, AIFF and others), PyAV (extra
`av`) for the rest. What comes out are blocks of samples as they are in the file; what is wrong with it is `Unusable`.
"""

import contextlib
import importlib.util
import os
import re
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile

from musicssl_jax.shapes import Float

SNDFILE_SUFFIXES = frozenset(
    [
        *(".wav", ".wave", ".flac", ".mp3", ".mp2", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".aifc"),
        *(".au", ".snd", ".caf", ".w64", ".rf64", ".voc", ".sph", ".nist"),
    ]
)
AV_SUFFIXES = frozenset(
    [
        *(".m4a", ".m4b", ".aac", ".mp4", ".webm", ".weba", ".mka", ".wma", ".ac3", ".ape", ".wv", ".tta"),
        *(".dsf", ".3gp", ".amr"),
    ]
)
AUDIO_SUFFIXES = SNDFILE_SUFFIXES | AV_SUFFIXES

_BLOCK = 1 << 16  # source samples per channel decoded at a time; larger blocks leave the cache and are slower


@dataclass(frozen=True)
class Rejected:
    """Why a file is not used: a short fixed reason, and what was seen."""

    reason: str
    detail: str


class Unusable(Exception):
    """A file that cannot be used; becomes `Rejected`."""

    def __init__(self, reason: str, detail: str):
        super().__init__(reason, detail)
        self.rejected = Rejected(reason, detail)


@dataclass(frozen=True)
class Audio:
    """An open file: `blocks` yields float32 arrays (samples, channels); reading them may raise `Unusable`."""

    rate: int
    channels: int
    codec: str
    blocks: Iterator[Float[np.ndarray, "n channels"]]


@contextlib.contextmanager
def open_audio(path: str) -> Iterator[Audio]:
    """Opens an audio file of any supported format. Raises `Unusable`."""
    try:
        with open(path, "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            if stat.S_ISREG(status.st_mode) and status.st_size == 0:
                raise Unusable("empty", "the file has no bytes")
            with _open_sndfile(file) if _is_for_sndfile(path, file) else _open_av(file) as audio:
                yield audio
    except OSError as error:
        raise Unusable("unreadable", error.strerror or str(error)) from None


def _is_for_sndfile(path: str, file: BinaryIO) -> bool:
    if Path(path).suffix.lower() in AV_SUFFIXES:
        return False
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode) or importlib.util.find_spec("av") is None:
        return True
    # A suffix may lie (AAC named .mp3); with PyAV at hand it gets a try.
    try:
        with _sndfile(file.fileno()):
            return True
    except soundfile.LibsndfileError:
        return False
    finally:
        file.seek(0)


# libsndfile


def _sndfile(descriptor: int) -> soundfile.SoundFile:
    # By descriptor: names may hold bytes that are not text, and soundfile encodes names.
    return soundfile.SoundFile(descriptor, closefd=False)


@contextlib.contextmanager
def _open_sndfile(file: BinaryIO) -> Iterator[Audio]:
    with contextlib.ExitStack() as stack:
        try:
            # libsndfile stops an MP3 without a length header at its own guess, which can be half of it;
            # what it reads from a pipe has no length, so it reads to the end.
            guesses = _is_mp3_of_unknown_length(file)
            descriptor = stack.enter_context(_piped(file)) if guesses else file.fileno()
            sound = stack.enter_context(_sndfile(descriptor))
        except soundfile.LibsndfileError as error:
            raise Unusable("undecodable", _message(error)) from None
        _check_container(sound.extra_info)
        announced = None if guesses else sound.frames
        codec = sound.format if sound.format == sound.subtype else f"{sound.format} {sound.subtype}"
        yield Audio(sound.samplerate, sound.channels, codec, _sndfile_blocks(sound, announced))


def _sndfile_blocks(sound: soundfile.SoundFile, announced: int | None) -> Iterator[Float[np.ndarray, "n channels"]]:
    got = 0
    while True:
        try:
            block = sound.read(_BLOCK, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise Unusable("undecodable", f"{_message(error)} (after {got / sound.samplerate:.1f} s)") from None
        if len(block) == 0:
            break
        got += len(block)
        yield block
    if announced is not None:
        _check_length(got / sound.samplerate, announced / sound.samplerate)


def _message(error: soundfile.LibsndfileError) -> str:
    message: str = error.error_string.removeprefix("Error : ").strip().rstrip(".")
    return "damaged data" if message == "Unspecified internal error" else message  # what its MP3 decoder says


def _check_length(seconds: float, announced: float) -> None:
    # Encoder delay and padding may miss in the count: up to 5 %, and a second at most, is no loss.
    if announced - seconds > min(0.05 * announced, 1.0):
        raise Unusable("truncated", f"{seconds:.1f} of {announced:.1f} s can be decoded")


def _check_container(log: str) -> None:
    """Reads libsndfile's log of the header: it silently cuts lengths to what is there, but notes it."""
    for announced, found in re.findall(r": (\d+) \(should be (\d+)\)", log):
        streamed = int(announced) >= 0x7FFFF000  # placeholders of writers that could not seek back (sox, ffmpeg)
        if not streamed and int(found) < 0.95 * int(announced):
            raise Unusable("truncated", f"{found} of {announced} bytes are there")
    if "lacks an end-of-stream bit" in log and "Junk after the last page" in log:
        raise Unusable("truncated", "the file ends within an Ogg page")


def _is_mp3_of_unknown_length(file: BinaryIO) -> bool:
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return False
    head = file.read(10)
    start = 0
    if head[:3] == b"ID3" and len(head) == 10:  # ID3v2: size in four 7-bit bytes, header not counted
        start = 10 + sum((byte & 127) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
    file.seek(start)
    frame = file.read(2048)
    file.seek(0)
    is_mpeg_frame = len(frame) > 4 and frame[0] == 0xFF and frame[1] & 0xE0 == 0xE0
    return is_mpeg_frame and not (b"Xing" in frame or b"Info" in frame)


@contextlib.contextmanager
def _piped(file: BinaryIO) -> Iterator[int]:
    reading, writing = os.pipe()

    def feed() -> None:
        try:
            with open(writing, "wb", buffering=0) as pipe:
                while chunk := file.read(1 << 16):
                    pipe.write(chunk)
        except OSError:
            pass  # the reader has gone, or the file cannot be read on: the decoder sees its end

    thread = threading.Thread(target=feed, daemon=True)
    thread.start()
    try:
        yield reading
    finally:
        os.close(reading)
        thread.join()


# PyAV


@contextlib.contextmanager
def _open_av(file: BinaryIO) -> Iterator[Audio]:
    if importlib.util.find_spec("av") is None:
        raise Unusable("decoder missing", "this format needs PyAV: pip install 'musicssl_jax[av]'")
    import av

    with contextlib.ExitStack() as stack:
        try:
            container = stack.enter_context(av.open(file))
        except (av.FFmpegError, ValueError) as error:
            raise Unusable("undecodable", _av_message(error)) from None
        if not container.streams.audio:
            raise Unusable("undecodable", "no audio stream in it")
        stream = container.streams.audio[0]
        stream.thread_type = "NONE"  # one worker process per core already
        rate, channels = stream.codec_context.sample_rate, stream.codec_context.channels
        if not rate or not channels:
            raise Unusable("undecodable", "an audio stream without rate or channels")
        yield Audio(rate, channels, stream.codec_context.name, _av_blocks(container, rate, channels))


def _av_blocks(container: Any, rate: int, channels: int) -> Iterator[Float[np.ndarray, "n channels"]]:
    import av

    resampler = av.AudioResampler(format="fltp")
    got = 0
    waiting: list[np.ndarray] = []
    try:
        for frame in container.decode(audio=0):
            if frame.sample_rate != rate or frame.layout.nb_channels != channels:
                raise Unusable("undecodable", "the rate or the channels change within the file")
            waiting += [part.to_ndarray() for part in resampler.resample(frame)]
            if sum(part.shape[1] for part in waiting) >= _BLOCK:
                block = np.concatenate(waiting, axis=1).T
                waiting = []
                got += len(block)
                yield block
    except (av.FFmpegError, ValueError) as error:
        raise Unusable("undecodable", f"{_av_message(error)} (after {got / rate:.1f} s)") from None
    if waiting:
        block = np.concatenate(waiting, axis=1).T
        got += len(block)
        yield block
    if container.duration:
        _check_length(got / rate, container.duration / av.time_base)


def _av_message(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
