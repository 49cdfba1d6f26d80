"""How a recording is cut into windows that are encoded alone; see `Windows`."""

import itertools

import librosa
import numpy as np

from musicssl_jax.mir.tasks.task import Windows
from musicssl_jax.shapes import Int16

SHORTEST_SECONDS = 0.1
"""What is shorter is never a window: some encoders make no frame of it."""

LONGEST_SECONDS = 150.0
"""Of a recording that is one window: attention takes memory by the square, and official clips end at 122 s."""

SILENCE_DB = 40.0
"""Quiet ends: as far below the loudest 25 ms of the recording."""

LIMITS = {"shortest_seconds": SHORTEST_SECONDS, "longest_seconds": LONGEST_SECONDS, "silence_db": SILENCE_DB}
"""What decides, beside `Windows`, which windows there are: a store of features says them."""

_TOLERANCE = 1e-3  # seconds: what decoders and resampling may miss of a window's length


def used_part(pcm: Int16[np.ndarray, " samples"], sample_rate: int, windows: Windows) -> tuple[int, int]:
    """[begin, end) in samples of what the windows are cut from.

    With `trim_silence` it begins and ends with the first and the last 25 ms that are not SILENCE_DB quieter than the
    loudest (their mean squares compared, every 10 ms); `first_seconds` count from there.
    """
    begin, end = 0, len(pcm)
    if windows.trim_silence:
        frame, hop = round(0.025 * sample_rate), round(0.01 * sample_rate)
        waveform = pcm.astype(np.float32) / 32768
        _, ends = librosa.effects.trim(waveform, top_db=SILENCE_DB, frame_length=frame, hop_length=hop)
        begin, end = map(int, ends)
    if windows.first_seconds is not None:
        end = min(end, begin + round(windows.first_seconds * sample_rate))
    return begin, end


def cut(samples: int, sample_rate: int, windows: Windows) -> list[tuple[int, int]]:
    """[begin, end) in samples of each window of `samples` of audio; none of less than SHORTEST_SECONDS."""
    if windows.seconds is None:
        spans = [(0, samples)]
    else:
        size = round(windows.seconds * sample_rate)
        begins = (round(number * windows.seconds * sample_rate) for number in itertools.count())
        spans = [(b, min(b + size, samples)) for b in itertools.takewhile(lambda begin: begin < samples, begins)]
    spans = [(begin, end) for begin, end in spans if _lasts(SHORTEST_SECONDS, end - begin, sample_rate)]
    return spans[:1] + [(b, e) for b, e in spans[1:] if _lasts(windows.min_seconds, e - b, sample_rate)]


def padded_size(samples: int, sample_rate: int, windows: Windows) -> int:
    """Samples of the batch that a window of `samples` is put into.

    That of a full window; where recordings are one window each, the next of sizes that are at most a sixteenth, and
    at least a second, apart. It follows from the window alone, and few programs are compiled.
    """
    if windows.seconds is not None:
        return round(windows.seconds * sample_rate)
    step = sample_rate * max(1, (1 << int(samples // sample_rate).bit_length()) // 32)
    return -(-samples // step) * step


def _lasts(seconds: float, samples: int, sample_rate: int) -> bool:
    return samples / sample_rate >= seconds - _TOLERANCE
