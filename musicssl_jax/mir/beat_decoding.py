"""Times of beats out of frame-wise beat activations: a dynamic Bayesian network, and plain peak picking.

The network's state is the position within a beat at one of several tempi (Krebs, Böck and Widmer, "An efficient
state-space model for joint tempo and meter tracking", ISMIR 2015); its observations are the activations (Böck, Krebs
and Widmer, "A multi-model approach to beat tracking considering heterogeneous music styles", ISMIR 2014). Defaults
are those of madmom's DBNBeatTrackingProcessor.

Within a beat the state moves on by one position a frame. Only beginnings of beats have a choice, so that Viterbi's
recursion is over those alone: a beat's score is that of its beginning plus sums of observations. A beat lasts at least
the shortest interval: as many frames are decided at once.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.ndimage import maximum_filter1d

from musicssl_jax.shapes import Float, Int

_SMALLEST = float(np.finfo(np.float64).tiny)
"""Stands for a probability of zero: paths through it stay comparable."""

_SMALLEST_TRANSITION = float(np.spacing(1.0))
"""Changes of tempo less probable than this are impossible, as in madmom."""


class _Network(NamedTuple):
    """intervals: frames of a beat at each tempo. beat_frames: how many of them, the first, are observed as beat.
    changes: log probability of a beat (row) after another (column)."""

    intervals: Int[np.ndarray, "tempi"]
    beat_frames: Int[np.ndarray, "tempi"]
    changes: Float[np.ndarray, "tempi tempi"]


class _Lattice(NamedTuple):
    """scores: of the best path up to a beginning of a beat, its frame included; the rows before frame 0 (as many as
    the longest interval) are beats under way when the recording begins. previous: the tempo before it. as_beat,
    as_rest: sums of observations up to a frame, excluded."""

    scores: Float[np.ndarray, "padded_frames tempi"]
    previous: Int[np.ndarray, "frames tempi"]
    as_beat: Float[np.ndarray, "padded_frames+1"]
    as_rest: Float[np.ndarray, "padded_frames+1"]


def decode_beats(
    activations: Sequence[Float[np.ndarray, "_"]],
    fps: float | int,
    *,
    min_bpm: float | int = 55,
    max_bpm: float | int = 215,
    transition_lambda: float | int = 100,
    observation_lambda: int = 16,
) -> list[Float[np.ndarray, "_"]]:
    """Beats in seconds, rising, of each recording; frame k is at k / fps.

    activations: probabilities of a beat, `fps` a second. Every whole number of frames between the tempi is an
    interval. transition_lambda: how strongly the tempo is held. observation_lambda: the first 1 / observation_lambda
    of a beat is where its activation is expected; the beat is put on the highest activation there.
    Recordings without any activation have no beats. Raises ValueError: activations that are no probabilities, or
    fewer than two frames to a beat.
    """
    for number, activation in enumerate(activations):
        _check(activation, f"activations[{number}]")
    network = _network(fps, min_bpm, max_bpm, transition_lambda, observation_lambda)
    return [_decode(np.asarray(a, np.float64), network, observation_lambda) / fps for a in activations]


def pick_peaks(
    activation: Float[np.ndarray, "_"], fps: float | int, *, threshold: float | int = 0.5, window: float | int = 0.07
) -> Float[np.ndarray, "_"]:
    """Beats in seconds, rising: where the activation is at least `threshold` and highest within `window` seconds on
    either side. Equally high frames within a window of each other are one beat, at their mean.

    Raises ValueError: activations that are no probabilities.
    """
    _check(activation, "activation")
    reach = int(round(window * fps, 6))
    if not len(activation):
        return np.empty(0)
    highest = activation == maximum_filter1d(activation, 2 * reach + 1, mode="nearest")
    peaks = np.flatnonzero(highest & (activation >= threshold))
    if not len(peaks):
        return np.empty(0)
    apart = np.flatnonzero(np.diff(peaks) > max(reach, 1)) + 1
    return np.array([peak.mean() for peak in np.split(peaks, apart)]) / fps


def _check(activation: np.ndarray, name: str) -> None:
    if not np.all((activation >= 0) & (activation <= 1)):  # NaN is neither
        raise ValueError(f"{name} must be probabilities: found NaN, or values outside of 0 to 1")


def _network(
    fps: float | int,
    min_bpm: float | int,
    max_bpm: float | int,
    transition_lambda: float | int,
    observation_lambda: int,
) -> _Network:
    shortest, longest = round(60 * fps / max_bpm), round(60 * fps / min_bpm)
    if not 2 <= shortest <= longest:
        raise ValueError(f"{min_bpm} to {max_bpm} BPM at {fps} frames a second are {shortest} to {longest} frames")
    if observation_lambda < 2:
        raise ValueError(f"observation_lambda must be at least 2, not {observation_lambda}")
    intervals = np.arange(shortest, longest + 1)
    changes = np.exp(-transition_lambda * np.abs(intervals[:, None] / intervals - 1))
    changes[changes <= _SMALLEST_TRANSITION] = 0
    with np.errstate(divide="ignore"):
        log_changes = np.log(changes / changes.sum(axis=0))
    return _Network(intervals, -(-intervals // observation_lambda), log_changes)


def _decode(activation: Float[np.ndarray, "frames"], network: _Network, observation_lambda: int) -> np.ndarray:
    """Frames of the beats."""
    if not activation.any():
        return np.empty(0)
    lattice = _forward(activation, network, observation_lambda)
    beats = []
    for start, tempo in _best_path(lattice, network):
        first, end = max(start, 0), start + network.beat_frames[tempo]
        if end > first:
            beats.append(first + np.argmax(activation[first:end]))
    return np.array(beats, dtype=np.float64)


def _forward(activation: Float[np.ndarray, "frames"], network: _Network, observation_lambda: int) -> _Lattice:
    intervals, beat_frames, changes = network
    pad, block, frames = intervals[-1], intervals[0], len(activation)
    beat = np.log(np.maximum(activation, _SMALLEST))
    rest = np.log(np.maximum(1 - activation, _SMALLEST) / (observation_lambda - 1))
    as_beat, as_rest = (np.concatenate([np.zeros(pad + 1), np.cumsum(observed)]) for observed in (beat, rest))

    ends = pad + np.arange(frames)[:, None]
    starts = ends - intervals
    rest_starts = starts + beat_frames
    inside = as_beat[rest_starts] - as_beat[starts + 1] + as_rest[ends] - as_rest[rest_starts]

    scores, previous = np.zeros((pad + frames, len(intervals))), np.empty((frames, len(intervals)), np.int64)
    tempi = np.arange(len(intervals))
    for first in range(0, frames, block):
        now = slice(first, first + block)
        whole_beats = scores[starts[now], tempi] + inside[now]
        candidates = whole_beats[:, None, :] + changes
        previous[now] = candidates.argmax(axis=2)
        best = np.take_along_axis(candidates, previous[now][..., None], axis=2)[..., 0]
        scores[pad + first : pad + first + block] = best + beat[now, None]
    return _Lattice(scores, previous, as_beat, as_rest)


def _best_path(lattice: _Lattice, network: _Network) -> list[tuple[int, int]]:
    """(first frame, tempo) of the beats, in order; the first may have begun before the recording."""
    intervals, beat_frames, _ = network
    pad, end = intervals[-1], len(lattice.scores)
    tempi = np.repeat(np.arange(len(intervals)), intervals)
    starts = end - 1 - np.concatenate([np.arange(interval) for interval in intervals])
    rest_starts = np.minimum(starts + beat_frames[tempi], end)
    last = lattice.scores[starts, tempi] + lattice.as_beat[rest_starts] - lattice.as_beat[starts + 1]
    best = np.argmax(last + lattice.as_rest[end] - lattice.as_rest[rest_starts])

    start, tempo = int(starts[best] - pad), int(tempi[best])
    path = [(start, tempo)]
    while start > 0:
        tempo = int(lattice.previous[start, tempo])
        start -= int(intervals[tempo])
        path.append((start, tempo))
    return path[::-1]
