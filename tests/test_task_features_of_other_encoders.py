"""Baselines, functions of users and features that were made elsewhere stand beside checkpoints."""

import sys
import zipfile

import numpy as np
import pytest
from audio_fixtures import sound
from task_feature_fixtures import write_recordings

from musicssl_jax.errors import UserError
from musicssl_jax.mir.features.encoders import Clips, baseline
from musicssl_jax.mir.features.extract import ensure_features
from musicssl_jax.mir.features.precomputed import PrecomputedFeatures
from musicssl_jax.mir.features.user_function import user_function
from musicssl_jax.mir.tasks.task import Recording, Windows

RATE = 16000


def clips(*lengths: int, size: int = RATE) -> Clips:
    audio = np.zeros((len(lengths), size), np.int16)
    for row, length in enumerate(lengths):
        audio[row, :length] = np.rint(sound(row, length / RATE)[:, 0] * 32768)
    return Clips(audio, *np.zeros((2, len(lengths)), np.float32), np.array(lengths, np.int32))


@pytest.mark.parametrize(("name", "width"), [("mfcc", 60), ("chroma", 12), ("mel", 128)])
def test_baselines_are_mean_and_deviation_of_their_frames(name, width):
    representation = baseline(name)
    encoded = representation.encode(clips(RATE, RATE // 2, RATE // 10), (0,))
    assert (representation.layers, representation.width, representation.frame_width) == (1, 2 * width, width)
    assert encoded.pooled.shape == (1, 3, 2 * width)
    assert [frames.shape for frames in encoded.frames] == [(1, 51, width), (1, 26, width), (1, 6, width)]
    for row, frames in enumerate(encoded.frames):
        np.testing.assert_allclose(encoded.pooled[0, row, :width], frames[0].mean(axis=0), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(encoded.pooled[0, row, width:], frames[0].std(axis=0), rtol=1e-4, atol=1e-4)
    alone = representation.encode(clips(RATE), ())
    np.testing.assert_array_equal(alone.pooled[:, 0], encoded.pooled[:, 0])  # whatever is beside it
    assert alone.frames == []


def test_baselines_of_silence_are_numbers(tmp_path):
    silence = Clips(np.zeros((1, RATE), np.int16), *np.zeros((2, 1), np.float32), np.array([RATE], np.int32))
    for name in ("mfcc", "chroma", "mel"):
        assert np.isfinite(baseline(name).encode(silence, ()).pooled).all()
    with pytest.raises(UserError, match="no baseline 'cqt'; there are mfcc, chroma, mel and random"):
        baseline("cqt")


@pytest.fixture
def encoder_of(tmp_path, monkeypatch):
    """The representation of a function of this body, in a module of the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # of another text within the same second

    def make(body: str, more: str = ""):
        text = f"import numpy as np\n\n\ndef encode(waveform, rate):\n    {body}\n\n\n{more}\n"
        (tmp_path / "their_encoder.py").write_text(text)
        sys.modules.pop("their_encoder", None)
        return user_function("their_encoder:encode")

    yield make
    sys.modules.pop("their_encoder", None)
    sys.path[:] = [folder for folder in sys.path if folder != str(tmp_path)]


GOOD = "return np.stack([waveform[: len(waveform) // 240 * 240].reshape(-1, 240)[:, :8]] * 2)"


def test_a_function_of_the_users_is_called_with_each_window_at_its_rate(encoder_of, tmp_path):
    representation = encoder_of(GOOD, "encode.sample_rate = 24000")
    assert (representation.layers, representation.width, representation.sample_rate) == (2, 8, 24000)
    assert representation.frame_rate == 100.0
    assert representation.notes == (
        "their_encoder:encode wants audio of 24000 Hz: every recording is resampled to that for it",
    )
    songs = write_recordings(tmp_path / "music", [1.0, 0.6], rate=24000)
    store = ensure_features(representation, songs, Windows(0.5), tmp_path / "features", data_set="songs")
    layers = store.layers_for([song.id for song in songs])
    assert layers.values.shape == (2, 4, 8)
    expected = sound(0, 1.0, 24000)[:12000, 0].reshape(-1, 240)[:, :8].mean(axis=0)
    np.testing.assert_allclose(layers.layer(0)[0], expected, atol=1e-4)
    store = ensure_features(
        representation, songs, Windows(None), tmp_path / "features", data_set="songs", frames_of_layers=[1]
    )
    assert store.frames_for([songs[0].id], 1).values.shape == (100, 8)


def test_a_changed_function_has_other_features(encoder_of):
    first, again, other = encoder_of(GOOD), encoder_of(GOOD), encoder_of(GOOD.replace("] * 2", "] * 3"))
    assert first.sha256 == again.sha256 != other.sha256
    assert "does not say its sample rate" in first.notes[0]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "return np.zeros((10, 8))",
            r"called with 80000 samples at 16000 Hz, returned an array of shape \(10, 8\): want",
        ),
        ("return np.zeros((2, 0, 8))", r"returned an array of shape \(2, 0, 8\)"),
        ("return {'hidden': 1}", "returned dict of object: want an array of numbers"),
        ("return np.full((2, 10, 8), np.nan)", "returned NaN or infinite values"),
        ("return [[1, 2], [3]]", "returned list: ValueError"),
        ("return undefined", r"failed: NameError: name 'undefined' is not defined \(.*their_encoder.py:5\)"),
        (
            "return np.zeros((2, 10, len(waveform) // 10000))",
            r"returned \(2, 10, 8\) for 5 s and \(2, 10, 16\) for 10 s",
        ),
    ],
)
def test_what_is_wrong_with_a_function_is_said(encoder_of, body, message):
    with pytest.raises(UserError, match=message) as error:
        encoder_of(body)
    assert "\n" not in str(error.value) and str(error.value).startswith("--encoder=their_encoder:encode")


def test_functions_that_are_not_there_are_named(encoder_of, tmp_path):
    encoder_of(GOOD)
    for name, message in (
        ("their_encoder", "want module:function"),
        ("their_encoder:other", "their_encoder.py has no function other"),
        ("sys:foo", "--encoder=sys:foo: module sys has no function foo"),
        ("nobodys_encoder:encode", "importing nobodys_encoder failed: ModuleNotFoundError"),
    ):
        with pytest.raises(UserError, match=message):
            user_function(name)


@pytest.mark.parametrize(
    "rate", ["None", "'16 kHz'", "'16000'", "0", "-8000", "float('nan')", "16000.5", "True", "[16000]"]
)
def test_a_sample_rate_that_is_none_is_quoted(encoder_of, rate):
    with pytest.raises(UserError, match=r"^--encoder=their_encoder:encode: its sample_rate is .*: want samples a sec"):
        encoder_of(GOOD, f"encode.sample_rate = {rate}")


def test_a_sample_rate_may_be_any_number_that_is_whole(encoder_of):
    assert encoder_of(GOOD, "encode.sample_rate = np.float32(24000)").sample_rate == 24000


def test_a_function_that_changes_its_mind_is_stopped(encoder_of, tmp_path):
    representation = encoder_of("return np.zeros((2, len(waveform) // 320, 8 if len(waveform) > 20000 else 9))")
    songs = write_recordings(tmp_path / "music", [1.0])
    with pytest.raises(UserError, match=r"returned \(2, 50, 9\) for 16000 samples: want \(2, frames, 8\)"):
        ensure_features(representation, songs, Windows(None), tmp_path / "features", data_set="songs")


RECORDINGS = [
    Recording("belt/f1_x", "audio/f1_x.wav"),
    Recording("jazz.00001", "audio/jazz.00001.wav"),
    Recording("absent", "audio/absent.wav"),
    Recording("7", "audio/07/seven.mp3"),
]


def test_features_of_others_are_found_by_id_or_file_name(tmp_path):
    random = np.random.default_rng(0)
    arrays = [random.standard_normal((13, count, 6)).astype(np.float32) for count in (1, 3, 2)]
    (tmp_path / "belt").mkdir()
    np.save(tmp_path / "belt" / "f1_x.npy", arrays[0])
    np.savez(tmp_path / "jazz.00001.npz", features=arrays[1], start=np.arange(3), end=np.arange(3) + 1.0)
    np.savez(tmp_path / "seven.mp3.npz", anything=arrays[2])
    features = PrecomputedFeatures(tmp_path, RECORDINGS, tmp_path / "new" / "scratch")
    assert features.rejected == {"absent": f"no {tmp_path}/absent.npz or .npy"}
    assert (features.layers, features.width, features.kind) == (13, 6, "files")
    layers = features.layers_for(["jazz.00001", "7", "belt/f1_x"])
    assert layers.recording.tolist() == [0, 0, 0, 1, 1, 2]
    np.testing.assert_allclose(layers.values, np.concatenate([arrays[1], arrays[2], arrays[0]], axis=1), atol=1e-2)
    np.testing.assert_array_equal(layers.start, [0, 1, 2, np.nan, np.nan, np.nan])
    with pytest.raises(UserError, match="absent.npz or .npy"):
        features.layers_for(["absent"])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 8)), r"7.npy holds float64 of shape \(3, 8\): want numbers \(layers, windows, dims\)"),
        (np.zeros((2, 1, 8), np.int32), "holds int32"),
        (np.full((2, 1, 8), np.inf), "holds NaN or infinite values"),
        (np.zeros((2, 1, 9)), r"jazz.00001.npy \(2, 1, 8\)|holds \(2, 1, 9\) and"),
    ],
)
def test_arrays_of_others_that_will_not_do_are_named(tmp_path, array, message):
    np.save(tmp_path / "jazz.00001.npy", np.zeros((2, 1, 8)))
    np.save(tmp_path / "7.npy", array)
    with pytest.raises(UserError, match=message):
        PrecomputedFeatures(tmp_path, RECORDINGS).layers_for(["7"])


def saved_as(array, path):
    with path.open("wb") as file:
        (np.savez if path.suffix == ".npy" else np.save)(file, array)


@pytest.mark.parametrize(("named", "is_one"), [("7.npz", "7.npy"), ("7.npy", "7.npz")])
def test_a_file_of_features_under_the_others_name_is_told_from_it(tmp_path, named, is_one):
    saved_as(np.zeros((2, 1, 8)), tmp_path / named)
    with pytest.raises(UserError, match=rf"{named} is an {is_one[1:]} by its content: rename it {is_one}"):
        PrecomputedFeatures(tmp_path, RECORDINGS)


def test_a_zip_of_other_things_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "7.npz", "w") as archive:
        archive.writestr("features.txt", "none")
    with pytest.raises(UserError, match=r"7.npz holds features.txt, which is no array: want numbers"):
        PrecomputedFeatures(tmp_path, RECORDINGS)


def test_times_that_are_no_numbers_are_not_known(tmp_path):
    np.savez(tmp_path / "7.npz", features=np.zeros((2, 1, 8)), start=np.array(["now"]), end=np.array([2]))
    layers = PrecomputedFeatures(tmp_path, RECORDINGS).layers_for(["7"])
    assert np.isnan(layers.start).all() and layers.end.tolist() == [2]


def test_a_folder_without_features_says_how_they_are_named(tmp_path):
    with pytest.raises(UserError, match=r"of none of the 4 recordings; want a file for each, such as .*belt/f1_x.npy"):
        PrecomputedFeatures(tmp_path, RECORDINGS)
    with pytest.raises(UserError, match="no such folder"):
        PrecomputedFeatures(tmp_path / "nowhere", RECORDINGS)
    (tmp_path / "7.npz").write_bytes(b"not a zip")
    with pytest.raises(UserError, match="7.npz cannot be read"):
        PrecomputedFeatures(tmp_path, RECORDINGS)
