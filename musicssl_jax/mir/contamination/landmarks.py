"""Fingerprints: pairs of spectral peaks, which survive crops, codecs, levels and sample rates.

After Wang, "An industrial-strength audio search algorithm" (ISMIR 2003): a peak of the spectrogram and one that follows
it make a number of 23 bits. Two copies of a piece of audio share many such numbers, all at one distance in time.
"""

from typing import NamedTuple

import numpy as np
from scipy import fft
from scipy.ndimage import maximum_filter1d

from data_pipelines.decode import resample
from musicssl_jax.shapes import Float, Int, Int16

VERSION = 1
"""Of the numbers that come out: an index of another one is not searched."""

RATE = 8000
"""Hz; what lies above 3.5 kHz is the first that low bit rates drop."""
HOP = 256
FRAME_SECONDS = HOP / RATE

_SIZE = 1024  # samples in a frame
_LOW, _HIGH = 16, 448  # bins of 7.8 Hz
_AROUND = 6, 24  # frames and bins either way in which a peak is the highest
_FLOOR_DB, _FLOOR_FRAMES = 50.0, 60  # a peak is at most so much under the highest within so many frames
_SILENCE_DB = -60.0  # magnitude of a bin; a sine of full scale has 48, one of a PCM16 step -42
_PAIRS = 2  # of each peak
_AFTER, _UNTIL = 3, 40  # frames to the second peak
_REACH = 96  # bins to it, either way

_BLOCK = 2000  # frames whose spectra are held at a time
_CONTEXT = 128  # frames beside them, on which their peaks and pairs depend
_PCM_BLOCK = 1 << 20


class Fingerprint(NamedTuple):
    """hashes: under 2^23; times: the frames of FRAME_SECONDS in which their first peaks are, rising by block."""

    hashes: Int[np.ndarray, " n"]
    times: Int[np.ndarray, " n"]


def fingerprint(pcm: Int16[np.ndarray, " samples"], sample_rate: int) -> Fingerprint:
    """Landmarks of mono PCM at any rate, some 35 a second of music. Silence has none."""
    return landmarks(at_rate(pcm, sample_rate))


def at_rate(pcm: Int16[np.ndarray, " samples"], sample_rate: int) -> Float[np.ndarray, " n"]:
    """The waveform at RATE, float32 in [-1, 1]."""
    blocks = (pcm[i : i + _PCM_BLOCK].astype(np.float32) / 32768 for i in range(0, len(pcm), _PCM_BLOCK))
    return np.concatenate([np.zeros(0, np.float32), *resample(blocks, sample_rate, RATE)])


def landmarks(waveform: Float[np.ndarray, " n"]) -> Fingerprint:
    """The same of a waveform at RATE."""
    frames = max(0, (len(waveform) - _SIZE) // HOP + 1)
    found = [_block(waveform, first, min(first + _BLOCK, frames)) for first in range(0, frames, _BLOCK)]
    empty = np.zeros(0, np.int32)
    return Fingerprint(*(np.concatenate([empty, *column]) for column in zip((empty, empty), *found, strict=True)))


def _block(waveform: Float[np.ndarray, " n"], first: int, end: int) -> Fingerprint:
    """Landmarks whose first peak is in frames [first, end)."""
    begin = max(0, first - _CONTEXT)
    peaks = _peaks(_spectrogram(waveform[begin * HOP : (end + _CONTEXT) * HOP + _SIZE - HOP]))
    hashes, times = _pairs(*peaks)
    inside = (times >= first - begin) & (times < end - begin)
    return Fingerprint(hashes[inside], times[inside] + np.int32(begin))


def _spectrogram(waveform: Float[np.ndarray, " n"]) -> Float[np.ndarray, "frames bins"]:
    """Magnitudes in decibels."""
    frames = np.lib.stride_tricks.sliding_window_view(waveform, _SIZE)[::HOP]
    spectra = np.abs(fft.rfft(frames * np.hanning(_SIZE).astype(np.float32), axis=1)[:, _LOW:_HIGH])
    return 20 * np.log10(spectra + np.float32(1e-5))


def _peaks(levels: Float[np.ndarray, "frames bins"]) -> tuple[Int[np.ndarray, " peaks"], Int[np.ndarray, " peaks"]]:
    """Frames (rising) and bins of the peaks."""
    frames, bins = _AROUND
    highest = maximum_filter1d(maximum_filter1d(levels, 2 * frames + 1, axis=0), 2 * bins + 1, axis=1)
    floor = maximum_filter1d(levels.max(axis=1), 2 * _FLOOR_FRAMES + 1) - _FLOOR_DB
    frame, bin_ = np.nonzero((levels == highest) & (levels > np.maximum(floor, _SILENCE_DB)[:, None]))
    return frame, bin_


def _pairs(times: Int[np.ndarray, " peaks"], bins: Int[np.ndarray, " peaks"]) -> Fingerprint:
    """Each peak with the next _PAIRS that lie within reach."""
    first, end = np.searchsorted(times, times + _AFTER), np.searchsorted(times, times + _UNTIL, side="right")
    left = np.full(len(times), _PAIRS)
    hashes, anchors = [np.zeros(0, np.int32)], [np.zeros(0, np.int32)]
    second = first
    while (searching := np.flatnonzero((second < end) & (left > 0))).size:
        other = second[searching]
        steps, gaps = bins[other] - bins[searching], times[other] - times[searching]
        paired = np.abs(steps) < _REACH
        anchor = searching[paired]
        hashes.append(((bins[anchor] << 14) | ((steps[paired] + _REACH) << 6) | gaps[paired]).astype(np.int32))
        anchors.append(times[anchor].astype(np.int32))
        left[anchor] -= 1
        second = second + 1
    return Fingerprint(np.concatenate(hashes), np.concatenate(anchors))
