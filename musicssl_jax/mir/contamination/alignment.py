"""Whether two stretches of audio are the same waveform, second by second."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy import fft
from scipy.signal import butter, sosfilt

from musicssl_jax.mir.contamination.landmarks import RATE
from musicssl_jax.shapes import Bool, Float, Int

PAD = 512
"""Samples by which a stretch may be off, either way."""
SECOND, STEP = RATE, RATE // 2
"""Samples of a window that is compared, and to the next one."""
RUN = 4
"""Windows in a row that must be the same, 2.5 s."""

# Correlations; copies at 64 kbit/s have .93 and more (docs/contamination.md). What is not telling proves nothing by
# being alike: it has to be nearly equal.
_SAME, _SAME_STEADY = 0.8, 0.97
_FINE = 2  # lags to a sample
_DRIFT = 8  # samples from one window to the next
_AT_A_TIME = 64  # windows
_SILENCE = 1e-6  # of the energy of the loudest window
_LOUD = 1e-3  # of the energy of the loudest window
_STEADY = 0.9  # correlation of a window with itself a little later
_LATER = 16, 512  # samples
_BAND = butter(4, (150, 2500), "bandpass", fs=RATE, output="sos")


class Alignment(NamedTuple):
    """Of each window: whether it is in a run of the same, its best correlation, and the lag of that in samples."""

    same: Bool[np.ndarray, " windows"]
    correlation: Float[np.ndarray, " windows"]
    lag: Float[np.ndarray, " windows"]


def emphasised(waveform: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """What is compared: the band that codecs keep, differentiated, lest the bass decide alone."""
    return sosfilt(_BAND, np.diff(waveform, prepend=waveform[:1])).astype(np.float32)


def windows_of(waveform: Float[np.ndarray, " n"], length: int = SECOND) -> Float[np.ndarray, "windows length"]:
    """Its windows of `length`; a rest is left out."""
    if len(waveform) < length:
        return np.zeros((0, length), waveform.dtype)
    return np.lib.stride_tricks.sliding_window_view(waveform, length)[::STEP]


def sounding(waveform: Float[np.ndarray, " n"]) -> Bool[np.ndarray, " windows"]:
    """Which windows of an emphasised waveform are no silence."""
    energies = np.square(windows_of(waveform)).sum(axis=1)
    return energies > max(_SILENCE * energies.max(initial=0), 1e-9)


def telling(waveform: Float[np.ndarray, " n"]) -> Bool[np.ndarray, " windows"]:
    """Which windows of an emphasised waveform are loud and not one steady tone: that repeats itself, and is like other
    tones of its pitch, wherever they are.
    """
    windows = windows_of(waveform)
    energies = np.square(windows).sum(axis=1)
    loud = energies > _LOUD * energies.max(initial=0)
    loud[loud] = np.concatenate([np.zeros(0), *map(_with_itself, _few_at_a_time(windows[loud]))]) < _STEADY
    return loud


def _with_itself(windows: Float[np.ndarray, "windows length"]) -> Float[np.ndarray, " windows"]:
    """The highest correlation of each with its own samples _LATER."""
    first, last = _LATER
    size = fft.next_fast_len(SECOND + last, real=True)
    products = fft.irfft(np.square(np.abs(fft.rfft(windows, size, axis=1))), size, axis=1)[:, first : last + 1]
    sums = np.cumsum(np.square(windows, dtype=np.float64), axis=1)
    lags = np.arange(first, last + 1)
    later = sums[:, -1:] - sums[:, lags - 1]
    return (products / np.sqrt(sums[:, SECOND - 1 - lags] * later)).max(axis=1)


def _few_at_a_time(windows: Float[np.ndarray, "windows length"]) -> Iterator[Float[np.ndarray, "some length"]]:
    """Transforms of an hour's windows would take gigabytes."""
    return (windows[first : first + _AT_A_TIME] for first in range(0, len(windows), _AT_A_TIME))


def align(recording: Float[np.ndarray, " n"], stretch: Float[np.ndarray, " m"]) -> Alignment:
    """Compares each window of `recording` with `stretch`, both emphasised; `stretch` has PAD more on either side.

    Silent windows correlate with nothing.
    """
    ours, theirs = windows_of(recording), windows_of(stretch, SECOND + 2 * PAD)
    pairs = zip(_few_at_a_time(ours), _few_at_a_time(theirs), strict=True)
    columns = zip((np.zeros(0), np.zeros(0)), *(_correlate(*pair) for pair in pairs), strict=True)
    correlation, lag = (np.concatenate(column) for column in columns)
    correlation = correlation * sounding(recording)
    same = np.zeros(len(lag), bool)
    if runs := _runs(correlation >= _SAME, lag):
        certain = correlation >= np.where(telling(recording), _SAME, _SAME_STEADY)
        for run in runs:
            same[run] = bool(_runs(certain[run], lag[run]))
    return Alignment(same, correlation, lag)


def _correlate(
    ours: Float[np.ndarray, "windows length"], theirs: Float[np.ndarray, "windows longer"]
) -> tuple[Float[np.ndarray, " windows"], Float[np.ndarray, " windows"]]:
    """Highest correlation of each pair of windows, and its lag in samples."""
    size = fft.next_fast_len(SECOND + 2 * PAD, real=True)
    spectra = fft.rfft(theirs, size, axis=1) * fft.rfft(ours, size, axis=1).conj()
    products = fft.irfft(spectra, _FINE * size, axis=1)[:, : _FINE * 2 * PAD + 1] * _FINE
    energy = np.square(ours, dtype=np.float64).sum(axis=1)
    sums = np.cumsum(np.pad(np.square(theirs, dtype=np.float64), ((0, 0), (1, 0))), axis=1)
    energies = np.repeat(sums[:, SECOND:] - sums[:, :-SECOND], _FINE, axis=1)[:, : _FINE * 2 * PAD + 1]
    correlations = products / np.sqrt(energy[:, None] * energies + 1e-12)
    return correlations.max(axis=1), correlations.argmax(axis=1) / _FINE - PAD


def _runs(same: Bool[np.ndarray, " windows"], lag: Float[np.ndarray, " windows"]) -> list[Int[np.ndarray, " _"]]:
    """Those of `same` that stand in a row of RUN, or more, whose lags hardly move."""
    breaks = np.flatnonzero(np.abs(np.diff(lag)) > _DRIFT) + 1
    rows = np.split(np.arange(len(same)), np.union1d(breaks, np.flatnonzero(np.diff(same)) + 1))
    return [row for row in rows if len(row) >= RUN and same[row[0]]]
