"""Front ends by name: what they are called, what they refuse, and audio that holds nothing or too much."""

import json

import jax
import numpy as np
import pytest
from front_end_fixtures import frames_of, front_end

from musicssl_jax.errors import UserError
from musicssl_jax.targets.front_ends import FRONT_ENDS, make_front_end

every_front_end = pytest.mark.parametrize("name", FRONT_ENDS)


@pytest.mark.parametrize(
    ("name", "width", "window"),
    [
        ("mfcc39", 39, 0.105),
        ("mfcc60", 60, 0.105),
        ("logmel229", 229, 0.128),
        ("chroma12", 12, 0.256),
        ("chroma24", 24, 0.256),
        ("cqt84", 84, 0.53),
        ("cqt336", 336, 2.118),
    ],
)
def test_widths_and_windows_are_as_documented(name, width, window):
    features = front_end(name)
    assert (features.name, features.width) == (name, width)
    assert features.window / 16000 == pytest.approx(window, abs=6e-4)


def test_descriptions_are_json_and_tell_front_ends_and_frames_apart():
    others = [{"sample_rate": 24000}, {"hop": 640}, {"receptive_field": 420}]
    kinds = ["mfcc39", "logmel229", "chroma12", "cqt84"]
    features = [make_front_end(kind, **settings) for kind in kinds for settings in others]
    features += map(front_end, FRONT_ENDS)
    texts = {json.dumps(each.description, sort_keys=True) for each in features}
    assert len(texts) == len(features)
    assert all(json.loads(json.dumps(each.description)) == each.description for each in features)


def test_kernels_are_float32_arrays():
    for name in FRONT_ENDS:
        leaves = jax.tree.leaves(front_end(name).kernels)
        assert leaves
        assert all(isinstance(leaf, np.ndarray) and leaf.dtype == np.float32 for leaf in leaves)


def audio_of(kind, samples=20000):
    n = np.arange(samples)
    return {
        "silence": np.zeros(samples),
        "full-scale square": np.where(n // 40 % 2, 32767, -32768),
        "full-scale constant": np.full(samples, -32768),
        "full-scale noise": np.random.default_rng(0).integers(-32768, 32768, samples),
        "one step of 16 bits": n % 7000 == 0,
    }[kind].astype(np.int16)


@every_front_end
@pytest.mark.parametrize(
    "kind", ["silence", "full-scale square", "full-scale constant", "full-scale noise", "one step of 16 bits"]
)
def test_any_audio_gives_finite_frames(name, kind):
    frames = frames_of(front_end(name), audio_of(kind))
    assert np.isfinite(frames).all()
    assert abs(frames).max() < 200


@every_front_end
def test_silence_is_one_and_the_same_frame(name):
    frames = frames_of(front_end(name), audio_of("silence"))
    np.testing.assert_array_equal(frames, np.broadcast_to(frames[:1], frames.shape))


@pytest.mark.parametrize("name", ["chroma12", "chroma24"])
def test_chroma_has_unit_length_or_fades_to_zero(name):
    features, noise = front_end(name), audio_of("full-scale noise")
    loud, quiet, silent = (
        np.linalg.norm(frames_of(features, audio), axis=1)
        for audio in (noise // 8, np.clip(noise, -1, 1), np.zeros_like(noise))
    )
    np.testing.assert_allclose(loud, 1, atol=1e-5)
    assert quiet.max() < 0.2
    assert not silent.any()


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("mfcc40", {}, ["'mfcc40'", *FRONT_ENDS]),
        ("logmel229", {"sample_rate": 11025}, ["logmel229", "8000 Hz", "11025"]),
        ("chroma12", {"sample_rate": 8000}, ["chroma12", "8000"]),
        ("cqt84", {"sample_rate": 8000}, ["cqt84", "8000"]),
        ("cqt336", {"sample_rate": 8000}, ["cqt336", "8000"]),
        ("mfcc39", {"hop": 321}, ["mfcc39", "321"]),
        ("mfcc60", {"hop": 20, "receptive_field": 25}, ["mfcc60", "25 samples"]),
    ],
)
def test_what_does_not_suit_is_refused_in_one_line(name, settings, words):
    with pytest.raises(UserError) as caught:
        make_front_end(name, **settings)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words)


@every_front_end
def test_a_batch_without_the_margins_is_refused(name):
    features = front_end(name)
    with pytest.raises(ValueError, match="margins of 0 samples"):
        jax.eval_shape(features.apply, features.kernels, {"audio": np.zeros((1, 8000), np.int16)})
