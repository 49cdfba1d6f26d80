"""Probes of musicbox tracks: features that hold the answer score high, others at chance."""

import numpy as np
import pytest

from data_pipelines.musicbox import render_track
from musicssl_jax.mir.baselines import baseline_frames
from musicssl_jax.mir.musicbox_probes import probe_tracks
from musicssl_jax.mir.pooling import mean_of_spans, pool_spans
from musicssl_jax.mir.probe_table import draw_table, format_table, gain_lines, to_json

TRACKS, RATE, HOP = 40, 16000, 320


def log_mel(waveform):
    frames, times = baseline_frames("log-mel", waveform, sample_rate=RATE, hop=HOP)
    return frames[None], times


def noise(waveform):
    frames, times = log_mel(waveform)
    return np.random.default_rng(int(1e6 * np.abs(waveform[0]))).standard_normal(frames.shape), times


@pytest.fixture(scope="module")
def table():
    tracks = [render_track([7, number], "plucked", seconds=20.0) for number in range(TRACKS)]
    return probe_tracks(tracks, {"log-mel": log_mel, "noise": noise})


def test_notes_are_heard_in_log_mel_and_not_in_noise(table):
    for task in ("pitch (25)", "instrument (6)"):
        results = table[task]
        assert results["log-mel"].interval[0] > results["chance"].interval[1] + 0.1
        low, high = results["noise"].interval
        assert low <= results["chance"].interval[1] and high >= results["chance"].interval[0]


def test_the_table_is_text_json_and_picture(table, tmp_path):
    text = format_table(table).splitlines()
    assert [line.split("  ")[0].strip() for line in text[1:]] == ["log-mel", "noise", "chance"]
    result = table["pitch (25)"]["log-mel"]
    assert f"{result.score:.2f} [{result.interval[0]:.2f} {result.interval[1]:.2f}]" in text[1]
    assert to_json(table)["pitch (25)"]["log-mel"]["score"] == result.score
    draw_table(table, tmp_path / "probes.png", "probes")
    assert (tmp_path / "probes.png").read_bytes().startswith(b"\x89PNG")


def test_gains_are_called_gains_only_when_the_interval_says_so(table):
    pitch, *_ = gain_lines(table, "log-mel", "noise")
    assert pitch.startswith("pitch (25): gain over noise (+")
    assert gain_lines(table, "noise", "log-mel")[0].startswith("pitch (25): worse than log-mel (-")
    assert (
        gain_lines(table, "noise", "noise")[0] == "pitch (25): no gain over noise (+0.00, 95% interval +0.00 to +0.00)"
    )


def test_spans_pool_the_frames_inside_them():
    frames = np.arange(10.0).reshape(1, 10, 1)
    spans = np.array([[0.15, 0.45], [0.31, 0.32], [2.0, 3.0]])
    pooled = pool_spans(frames, 0.1 * np.arange(10), spans)
    means = mean_of_spans(frames, 0.1 * np.arange(10), spans)
    np.testing.assert_array_equal(means, pooled[..., : frames.shape[2]])
    assert mean_of_spans(frames, 0.1 * np.arange(10), spans[:0]).shape == (len(frames), 0, frames.shape[2])
    np.testing.assert_allclose(pooled[0], [[3, np.std([2, 3, 4])], [4, 0], [9, 0]])
