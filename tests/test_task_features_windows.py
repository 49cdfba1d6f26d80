"""Recordings are cut into windows that follow on each other, whatever their length and the sample rate."""

import numpy as np
import pytest
from audio_fixtures import sound
from hypothesis import given, settings
from hypothesis import strategies as st

from musicssl_jax.mir.features.extract import windows_name
from musicssl_jax.mir.features.windows import SHORTEST_SECONDS, cut, padded_size, used_part
from musicssl_jax.mir.tasks.task import Windows

RATES = st.sampled_from([16000, 22050, 24000, 44100])
SECONDS = st.floats(0.2, 40.0)


@given(st.integers(1, 3_000_000), RATES, SECONDS, st.floats(0, 1))
@settings(deadline=None)
def test_windows_are_full_but_the_last_and_leave_nothing_out_but_a_short_rest(samples, rate, seconds, share):
    windows = Windows(seconds, min_seconds=share * seconds)
    spans = cut(samples, rate, windows)
    size = round(seconds * rate)
    if samples < (SHORTEST_SECONDS - 2e-3) * rate:
        assert spans == []
        return
    if samples > SHORTEST_SECONDS * rate:
        assert spans[0][0] == 0
    for number, (begin, end) in enumerate(spans):
        assert abs(begin - number * seconds * rate) <= 0.5 + 1e-6
        assert 0 < end - begin <= size and end <= samples
        assert end - begin == size or number == len(spans) - 1
    if spans:
        rest = samples - spans[-1][1]
        assert rest <= max(windows.min_seconds, SHORTEST_SECONDS) * rate + 1
        assert len(spans) == 1 or spans[-1][1] - spans[-1][0] >= (windows.min_seconds - 2e-3) * rate


@given(st.integers(5000, 4_000_000), RATES)
@settings(deadline=None)
def test_a_recording_that_is_one_window_fits_its_batch_with_little_room_to_spare(samples, rate):
    assert cut(samples, rate, Windows(None)) == [(0, samples)]
    size = padded_size(samples, rate, Windows(None))
    assert samples <= size <= samples + max(rate, samples / 15)


@pytest.mark.parametrize(
    ("samples", "windows", "count"),
    [
        (round(29.1 * 16000), Windows(None), 1),
        (120 * 16000, Windows(30.0, min_seconds=30.0), 4),
        (120 * 16000 - 8, Windows(30.0, min_seconds=30.0), 4),  # resampling may miss a sample
        (77 * 16000, Windows(30.0, min_seconds=30.0), 2),
        (77 * 16000, Windows(30.0, min_seconds=15.0), 3),
        (10 * 16000, Windows(30.0, min_seconds=15.0), 1),  # the only one
        (30 * 16000 + 3, Windows(5.0), 6),
        (900, Windows(5.0), 0),
    ],
)
def test_official_lengths_give_the_windows_of_their_protocols(samples, windows, count):
    assert len(cut(samples, 16000, windows)) == count


def test_quiet_ends_are_cut_off_and_the_beginning_counts_from_there():
    rate = 16000
    loud = (sound(0, 3.0)[:, 0] * 32768).astype(np.int16)
    quiet = np.random.default_rng(0).integers(-3, 4, rate, dtype=np.int16)
    pcm = np.concatenate([quiet, loud, quiet, quiet])
    begin, end = used_part(pcm, rate, Windows(3.0, trim_silence=True))
    assert abs(begin - rate) < 0.04 * rate and abs(end - 4 * rate) < 0.04 * rate
    assert used_part(pcm, rate, Windows(3.0)) == (0, len(pcm))
    assert used_part(pcm, rate, Windows(3.0, first_seconds=2.0)) == (0, 2 * rate)
    assert used_part(pcm, rate, Windows(3.0, first_seconds=2.0, trim_silence=True)) == (begin, begin + 2 * rate)


def test_silence_all_through_is_left_as_it_is():
    assert used_part(np.zeros(16000, np.int16), 16000, Windows(3.0, trim_silence=True)) == (0, 16000)


def test_all_that_decides_which_windows_there_are_is_in_the_name_of_a_store():
    assert windows_name(Windows(None)) == "whole"
    assert windows_name(Windows(3.0, trim_silence=True)) == "3s-trimmed_40dB"
    every = Windows(5.0, first_seconds=30.0, min_seconds=1.5, normalize="window", trim_silence=True)
    assert windows_name(every) == "5s-first_30s-at_least_1.5s-normalized_alone-trimmed_40dB"
    names = [windows_name(every._replace(**{field: default})) for field, default in Windows(None)._asdict().items()]
    assert len({*names, windows_name(every)}) == len(Windows._fields) + 1
