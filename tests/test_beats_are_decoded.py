"""Beats out of activations: the decoder is Viterbi's over every state, and bears any input."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musicssl_jax.mir.beat_decoding import decode_beats, pick_peaks


def viterbi_over_every_state(activation, fps, min_bpm, max_bpm, transition_lambda, observation_lambda):
    """Beats by the textbook: a dense transition matrix over all (interval, position), one frame after another."""
    intervals = range(round(60 * fps / max_bpm), round(60 * fps / min_bpm) + 1)
    states = [(interval, position) for interval in intervals for position in range(interval)]
    number = {state: n for n, state in enumerate(states)}
    moves = np.zeros((len(states), len(states)))
    for interval, position in states:
        if position + 1 < interval:
            moves[number[interval, position], number[interval, position + 1]] = 1
        else:
            chances = np.exp([-transition_lambda * abs(other / interval - 1) for other in intervals])
            chances[chances <= np.spacing(1)] = 0
            for other, chance in zip(intervals, chances / chances.sum(), strict=True):
                moves[number[interval, position], number[other, 0]] = chance
    in_beat = np.array([position / interval < 1 / observation_lambda for interval, position in states])
    with np.errstate(divide="ignore"):
        moves = np.log(moves)
    scores, previous = np.zeros(len(states)), []
    for value in activation:
        candidates = scores[:, None] + moves
        previous.append(candidates.argmax(axis=0))
        observed = np.where(in_beat, np.log(value), np.log((1 - value) / (observation_lambda - 1)))
        scores = candidates.max(axis=0) + observed
    best = scores.max()
    path = [scores.argmax()]
    for back in previous[:0:-1]:
        path.append(back[path[-1]])
    inside = in_beat[path[::-1]]
    edges = np.flatnonzero(np.diff(np.concatenate([[False], inside, [False]]).astype(int)))
    beats = [left + np.argmax(activation[left:right]) for left, right in edges.reshape(-1, 2)]
    return np.array(beats) / fps, best


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    frames=st.integers(1, 120),
    fps=st.sampled_from([10, 12.5, 20]),
    observation_lambda=st.sampled_from([2, 4, 16]),
    transition_lambda=st.sampled_from([1, 20, 100]),
)
def test_beats_are_those_of_viterbi_over_every_state(seed, frames, fps, observation_lambda, transition_lambda):
    activation = np.random.default_rng(seed).uniform(0.01, 0.99, frames)
    options = {"min_bpm": 60, "max_bpm": 200}
    options |= {"transition_lambda": transition_lambda, "observation_lambda": observation_lambda}
    (beats,) = decode_beats([activation], fps, **options)
    np.testing.assert_array_equal(beats, viterbi_over_every_state(activation, fps, **options)[0])


def pulses(times, fps, seconds, *, high=0.9, low=0.01):
    activation = np.full(round(seconds * fps), low)
    activation[np.round(np.asarray(times) * fps).astype(int)] = high
    return activation


@pytest.mark.parametrize("fps", [50, 62.5, 75, 100])
def test_steady_beats_are_found_at_any_rate_and_gaps_are_filled(fps):
    times = np.arange(0.32, 20, 0.48)
    activation = pulses(np.delete(times, [5, 6, 20]), fps, 20)
    (beats,) = decode_beats([activation], fps)
    np.testing.assert_allclose(beats, times, atol=2 / fps)
    spurious = pulses([*times, 10.55], fps, 20)
    assert len(decode_beats([spurious], fps)[0]) == len(times)


def test_tempo_may_change():
    times = np.cumsum(np.concatenate([np.full(20, 0.5), np.full(20, 0.6)]))
    (beats,) = decode_beats([pulses(times, 50, 24)], 50)
    inside = beats[(beats > 0.25) & (beats < 22.25)]  # the tempo goes on where the pulses have not begun or have ended
    np.testing.assert_allclose(inside, times, atol=0.02)


def test_recordings_do_not_touch_each_other():
    draw = np.random.default_rng(0)
    activations = [draw.random(n) ** 4 for n in (300, 20, 451)]
    together = decode_beats(activations, 50)
    for activation, beats in zip(activations, together, strict=True):
        np.testing.assert_array_equal(beats, decode_beats([activation], 50)[0])


def test_any_activation_is_borne():
    assert decode_beats([], 50) == []
    (empty,) = decode_beats([np.empty(0)], 50)
    (silent,) = decode_beats([np.zeros(500, np.float32)], 50)
    assert empty.shape == silent.shape == (0,)
    for constant in (1e-30, 0.5, 1.0):
        (beats,) = decode_beats([np.full(500, constant)], 50)
        assert np.all(np.diff(beats) > 0) and 8 <= len(beats) <= 37  # 55 to 215 a minute, for 10 s
    for frames in (1, 2, 13, 14, 15):
        (beats,) = decode_beats([np.full(frames, 0.7)], 50)
        assert len(beats) <= 2 and np.all(beats < frames / 50)
    saturated = pulses(np.arange(0.2, 10, 0.5), 50, 10, high=1.0, low=0.0)
    np.testing.assert_allclose(decode_beats([saturated], 50)[0], np.arange(0.2, 10, 0.5), atol=1e-9)


def test_what_is_no_probability_or_no_tempo_is_refused():
    for bad in (np.nan, -0.1, 1.1, np.inf):
        with pytest.raises(ValueError, match=r"activations\[1\]"):
            decode_beats([np.full(10, 0.5), np.array([0.5, bad])], 50)
        with pytest.raises(ValueError, match="activation"):
            pick_peaks(np.array([0.5, bad]), 50)
    with pytest.raises(ValueError, match="BPM"):
        decode_beats([np.full(10, 0.5)], 5)
    with pytest.raises(ValueError, match="BPM"):
        decode_beats([np.full(10, 0.5)], 50, min_bpm=200, max_bpm=100)
    with pytest.raises(ValueError, match="observation_lambda"):
        decode_beats([np.full(10, 0.5)], 50, observation_lambda=1)


def test_peaks_are_highest_in_their_window_and_above_the_threshold():
    activation = np.zeros(100)
    activation[[10, 12, 30, 34, 60, 80, 81]] = [0.9, 0.8, 0.6, 0.7, 0.49, 0.8, 0.8]
    # 12 is within 3 frames of 10, 34 is not of 30; 60 is too low; 80 and 81 are one.
    np.testing.assert_allclose(pick_peaks(activation, 50), np.array([10, 30, 34, 80.5]) / 50)
    np.testing.assert_allclose(
        pick_peaks(activation, 50, threshold=0.45, window=0.08), np.array([10, 34, 60, 80.5]) / 50
    )
    assert pick_peaks(np.empty(0), 50).shape == pick_peaks(np.zeros(10), 50).shape == (0,)
    assert len(pick_peaks(np.ones(10), 50)) == 1


def test_half_a_minute_is_decoded_in_a_twentieth_of_a_second():
    activation = np.random.default_rng(0).random(1500)
    seconds = []
    for _ in range(5):
        begin = time.process_time()
        decode_beats([activation], 50)
        seconds.append(time.process_time() - begin)
    assert min(seconds) < 0.05
