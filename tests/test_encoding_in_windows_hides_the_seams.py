"""A frozen encoder called with a waveform: windows that overlap, batches, devices, and what it refuses."""

import jax
import numpy as np
import pytest
import soxr
from encoder_fixtures import tiny_config_file

from musicssl_jax.embedding.batching import Track, encode_windows
from musicssl_jax.embedding.pooling import EveryFrame
from musicssl_jax.embedding.windows import plan_windows
from musicssl_jax.encoder_io import load_encoder

RATE = 16000


def tone(seconds, seed=0, rate=RATE):
    t = np.arange(round(seconds * rate)) / rate
    wave = 0.3 * np.sin(2 * np.pi * 220 * (seed + 1) * t) + 0.05 * np.random.default_rng(seed).standard_normal(len(t))
    return wave.astype(np.float32)


@pytest.fixture(scope="module")
def encode(tmp_path_factory):
    """A tiny music2vec encoder with random parameters."""
    return load_encoder(f"random:{tiny_config_file(tmp_path_factory.mktemp('config'))}")


@pytest.mark.parametrize("frames", [1, 24, 99, 100, 101, 160, 161, 1000, 1234])
@pytest.mark.parametrize("context", [0, 1, 20, 49])
def test_windows_keep_every_frame_once_with_context_around(frames, context):
    windows = plan_windows(frames, 100, context)
    assert [w.begin for w in windows] == [0, *(w.end for w in windows[:-1])] and windows[-1].end == frames
    for window in windows:
        assert window.begin < window.end and window.size == (50 if frames <= 50 else 100)
        assert window.start >= 0 and (window.start + window.size <= frames or len(windows) == 1)
        assert window.begin - window.start >= (context if window.begin else 0)
        assert window.start + window.size - window.end >= (context if window.end < frames else 0)


def test_windows_are_encoded_as_if_they_were_tracks_of_their_own(encode):
    waveform = tone(7.3)
    statistics = {"mean": float(waveform.mean()), "std": float(waveform.std())}
    options = {"window_seconds": 3.0, "context_seconds": 0.5}
    whole = encode(waveform, **options)["hidden"]
    for start, begin, end in [(0, 0, 125), (100, 125, 225), (200, 225, 325), (214, 325, 364)]:
        piece = waveform[start * 320 :][: 149 * 320 + 400]
        alone = encode(piece, **statistics, **options)["hidden"]
        np.testing.assert_allclose(whole[:, begin:end], alone[:, begin - start : end - start], atol=1e-5)


def test_context_brings_windows_nearer_to_one_pass(encode):
    """The blocks' input is exact where convolutions do not reach the cut; what attention adds is nearer."""
    waveform = tone(12.005)  # 600 frames: one pass needs no padding
    one_pass = encode(waveform, window_seconds=12.0)
    errors = []
    for context in (0.0, 0.5):
        windowed = encode(waveform, window_seconds=3.0, context_seconds=context)
        np.testing.assert_array_equal(windowed["times"], one_pass["times"])
        errors.append(np.abs(windowed["hidden"] - one_pass["hidden"]).max(axis=(1, 2)))
    without, with_context = errors
    assert with_context[0] < 1e-5 < 0.1 < without[0]
    assert with_context[-1] < 0.5 * without[-1]


def test_batches_across_tracks_give_what_each_track_gives_alone(encode):
    lengths = (7.3, 0.4, 3.0, 5.1, 1.2, 20.0, 0.9)
    waveforms = [tone(seconds, seed) for seed, seconds in enumerate(lengths)]
    tracks = [
        Track(number, w, float(w.mean()), float(w.std()), EveryFrame(encode.grid.count(len(w))))
        for number, w in enumerate(waveforms)
    ]
    found = {number: [] for number in range(len(tracks))}

    def states(batch, sums):
        assert len(batch.audio) == 8 and sums == 0
        return encode.states(batch, sums, layers=(0, 1, 2))

    for track, window, features in encode_windows(states, encode.grid, tracks, size=150, context=25, rows=8):
        assert features.first == window.begin == sum(part.shape[1] for part in found[track.name])
        found[track.name].append(features.values)
    for number, waveform in enumerate(waveforms):
        alone = encode(waveform, window_seconds=3.0, context_seconds=0.5)
        np.testing.assert_allclose(np.concatenate(found[number], axis=1), alone["hidden"], atol=1e-5)


def test_several_devices_give_what_one_gives(encode, monkeypatch):
    waveform = tone(22)
    assert len(jax.local_devices()) == encode.rows() == 8
    on_eight = encode(waveform, window_seconds=3.0)
    one = jax.local_devices()[:1]
    with monkeypatch.context() as only:
        only.setattr(jax, "local_devices", lambda: one)
        assert encode.rows() == 1
        on_one = encode(waveform, window_seconds=3.0)
    np.testing.assert_allclose(on_eight["hidden"], on_one["hidden"], atol=1e-5)


def test_layers_that_are_chosen_are_those_of_all(encode):
    waveform = tone(0.9)
    every = encode(waveform)
    assert every["layers"].tolist() == [0, 1, 2]
    for layers in ([2, 0], [1]):
        chosen = encode(waveform, layers=layers)
        assert chosen["layers"].tolist() == layers
        np.testing.assert_allclose(chosen["hidden"], every["hidden"][layers], atol=1e-5)


def test_padding_of_short_tracks_does_not_change_their_frames(encode):
    waveform = tone(2.5)  # 124 frames, padded to 150 of a 3 s window
    padded, exact = encode(waveform, window_seconds=3.0)["hidden"], encode(waveform, window_seconds=2.48)["hidden"]
    assert padded.shape == exact.shape
    np.testing.assert_allclose(padded, exact, atol=1e-4 * np.abs(exact).max())


def test_pcm_double_and_single_waveforms_give_the_same(encode):
    pcm = np.rint(tone(0.9) * 32767).astype(np.int16)
    want = encode(pcm)["hidden"]
    for waveform in ((pcm / 32768).astype(np.float32), pcm / 32768, (pcm / 32768).tolist()):
        np.testing.assert_allclose(encode(waveform)["hidden"], want, atol=1e-4)


def test_another_sample_rate_is_resampled(encode):
    at_44100 = tone(0.9, rate=44100)
    resampled = soxr.resample(at_44100, 44100, RATE, quality="HQ")
    want = encode(resampled)["hidden"]
    np.testing.assert_allclose(encode(at_44100, sample_rate=44100)["hidden"], want, atol=1e-5)
    np.testing.assert_allclose(encode(resampled, sample_rate=RATE)["hidden"], want, atol=1e-5)


def test_bfloat16_is_near_float32(encode):
    waveform = tone(0.9)
    exact, near = (e(waveform)["hidden"] for e in (encode, encode.with_precision("bfloat16")))
    assert near.dtype == np.float32
    assert 1e-4 < np.abs(exact - near).max() < 0.1 * np.abs(exact).max()


@pytest.mark.parametrize(
    ("waveform", "options", "said"),
    [
        (np.zeros(399, np.float32), {}, "399 samples are less than one frame"),
        (np.zeros((16000, 2), np.float32), {}, r"shape \(16000, 2\): want one channel"),
        (np.zeros(16000, np.int32), {}, "int32: want floats"),
        (["a.wav"], {}, "want floats"),
        (np.r_[np.zeros(5), np.nan, np.zeros(16000)], {}, "not finite from sample 5 on"),
        (np.zeros(16000, np.float32), {"layers": [3]}, r"layers \[3\]: want some of 0 to 2"),
        (np.zeros(16000, np.float32), {"window_seconds": 2.0, "context_seconds": 1.0}, "keeps nothing"),
        (np.zeros(16000, np.float32), {"sample_rate": 0}, "sample_rate=0"),
    ],
)
def test_what_cannot_be_encoded_is_refused(encode, waveform, options, said):
    with pytest.raises(ValueError, match=said):
        encode(waveform, **options)
