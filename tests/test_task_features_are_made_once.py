"""Every recording goes through an encoder once; what is kept is what the encoder says of each window alone."""

import dataclasses
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soxr
from array_record.python.array_record_module import ArrayRecordWriter
from audio_fixtures import ROOT, sound, write_audio
from checkpoint_fixtures import same_imports
from encoder_fixtures import tiny_config_file
from task_feature_fixtures import pcm_of, write_recordings

from data_pipelines.tf_example import encode_bytes
from data_pipelines.tfds_metadata import data_set_files, tensor
from musicssl_jax.encoder_io import load_encoder
from musicssl_jax.errors import UserError
from musicssl_jax.mir.features.encoders import checkpoint
from musicssl_jax.mir.features.extract import ensure_features
from musicssl_jax.mir.features.recordings import decode_ahead
from musicssl_jax.mir.features.user_function import user_function
from musicssl_jax.mir.tasks.task import Recording, Windows

RATE = 16000
LENGTHS = [2.0, 0.5, 3.2, 1.0, 2.7, 1.5, 2.2, 0.3, 3.0, 1.9, 1.1, 2.5, 1.0, 0.7, 2.1, 1.6, 1.2, 2.9, 0.9, 1.4]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return f"random:{tiny_config_file(tmp_path_factory.mktemp('config'))}"


@pytest.fixture(scope="module")
def encoder(tiny):
    return load_encoder(tiny)


@pytest.fixture(scope="module")
def representation(tiny):
    return checkpoint(tiny)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    return write_recordings(tmp_path_factory.mktemp("music"), LENGTHS)


def means(encoder, pcm, begin=0.0, seconds=None, **statistics):
    """Of one window, encoded alone and without padding, on one device."""
    end = None if seconds is None else round((begin + seconds) * RATE)
    window = pcm[round(begin * RATE) : end]
    return encoder(window, **statistics)["hidden"].mean(axis=1)


@pytest.mark.parametrize("normalize", ["recording", "window"])
def test_a_windows_features_are_the_means_of_its_frames_in_every_layer(
    representation, encoder, recordings, tmp_path, normalize
):
    windows = Windows(1.0, min_seconds=0.4, normalize=normalize)
    store = ensure_features(representation, recordings, windows, tmp_path, data_set="songs")
    some = [recordings[number].id for number in (4, 2, 7)]  # in any order
    layers = store.layers_for(some)
    assert (layers.count, layers.rows, layers.width) == (3, 3 + 3 + 1, 32)  # of 3.2 s the last .2 are left out
    assert layers.recording.tolist() == [0, 0, 0, 1, 1, 1, 2]
    np.testing.assert_allclose(layers.start, [0, 1, 2, 0, 1, 2, 0])
    np.testing.assert_allclose(layers.end, [1, 2, 2.7, 1, 2, 3, 0.3])
    row = 0
    for id, count in zip(some, (3, 3, 1), strict=True):
        pcm = pcm_of(next(recording for recording in recordings if recording.id == id))
        of_recording = {"mean": np.mean(pcm / 32768), "std": np.std(pcm / 32768)}
        for number in range(count):
            expected = means(encoder, pcm, number, 1.0, **(of_recording if normalize == "recording" else {}))
            found = np.stack([layers.layer(index)[row] for index in range(3)])
            np.testing.assert_allclose(found, expected, atol=3e-3)
            row += 1
    assert all(
        isinstance(layers.layer(index), np.memmap) and layers.layer(index).dtype == np.float16 for index in (0, 2)
    )


def test_frames_are_those_of_the_whole_recording(representation, encoder, recordings, tmp_path):
    some = [recordings[number] for number in (0, 9, 5)]  # which share a size of batch
    ids = [recording.id for recording in some]
    store = ensure_features(representation, some, Windows(None), tmp_path, data_set="songs", frames_of_layers=[0, 2])
    for layer in (0, 2):
        frames = store.frames_for(ids, layer)
        assert (frames.frame_rate, frames.first_frame) == (50.0, 200 / RATE)
        for number, recording in enumerate(some):
            found = frames.values[frames.offsets[number] : frames.offsets[number + 1]]
            np.testing.assert_allclose(found, encoder(pcm_of(recording))["hidden"][layer], atol=3e-3)
    windows = store.layers_for(ids)  # from the same pass
    assert windows.rows == 3
    np.testing.assert_allclose(windows.layer(2)[2], means(encoder, pcm_of(some[2]))[2], atol=3e-3)
    with pytest.raises(UserError, match="frames-01 has no features of song/000"):
        store.frames_for(ids, 1)


def test_formats_and_rates_are_decoded_and_bad_files_named(representation, encoder, tmp_path, capsys):
    files = write_recordings(tmp_path / "music", [1.5, 2.0], suffix=".mp3", rate=44100)
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"RIFF of nothing")
    files += [Recording("broken", str(bad)), Recording("gone", str(tmp_path / "gone.mp3"))]
    store = ensure_features(representation, files, Windows(None), tmp_path / "features", data_set="songs")
    assert set(store.rejected) == {"broken", "gone"}
    assert "No such file" in store.rejected["gone"] and "undecodable" in store.rejected["broken"]
    assert f"{bad}: undecodable" in capsys.readouterr().err
    assert store.layers_for(["song/000", "song/001"]).rows == 2
    with pytest.raises(UserError, match="no features of broken"):
        store.layers_for(["song/000", "broken"])


@pytest.mark.parametrize(("name", "dtype", "rate"), [("nsynth", "float32", 16000), ("gtzan", "int64", 22050)])
def test_entries_of_a_prepared_data_set_are_read(name, dtype, rate, tmp_path):
    waveforms = [sound(number, 1.5, rate)[:, 0] for number in range(2)]
    values = [(wave if dtype == "float32" else np.rint(wave * 32768)).astype(dtype) for wave in waveforms]
    writer = ArrayRecordWriter(str(tmp_path / f"{name}-test.array_record-00000-of-00001"), "group_size:1")
    for value in values:
        writer.write(encode_bytes({"audio": value.tobytes()}))
    writer.close()
    features = {"audio": tensor(dtype, [-1])}
    for file, content in data_set_files(name, "1.0.0", {"test": [(2, 100)]}, features).items():
        (tmp_path / file).write_text(json.dumps(content))
    entries = [Recording(str(number), str(tmp_path), ("test", number)) for number in (1, 0, 2)]
    first, second, absent = decode_ahead(entries, RATE, Windows(None), workers=1)
    for decoded, waveform in ((first, waveforms[1]), (second, waveforms[0])):
        assert abs(len(decoded.pcm) - 1.5 * RATE) <= 1
        expected = soxr.resample(waveform, rate, RATE)
        np.testing.assert_allclose(decoded.pcm / 32768, expected[: len(decoded.pcm)], atol=2e-3)
        np.testing.assert_allclose(decoded.std, np.std(decoded.pcm / 32768), rtol=1e-5)
    assert absent[1].reason == "unreadable" and "record 2 of test" in absent[1].detail


def test_tasks_on_the_same_audio_share_their_features(representation, recordings, tmp_path, monkeypatch):
    encoded = []

    def counting(clips, chosen):
        encoded.append(len(clips.audio))
        return representation.encode(clips, chosen)

    watched = dataclasses.replace(representation, encode=counting)
    windows = Windows(1.0, min_seconds=0.15)
    counts = [math.ceil(length - 0.149) for length in LENGTHS]
    first = ensure_features(watched, recordings[:12], windows, tmp_path, data_set="songs")
    assert sum(encoded) == sum(counts[:12])
    second = ensure_features(watched, recordings[8:], windows, tmp_path, data_set="songs")
    assert sum(encoded) == sum(counts)  # only what the first had not
    third = ensure_features(watched, recordings, windows, tmp_path, data_set="songs")
    assert sum(encoded) == sum(counts)
    ids = [recording.id for recording in recordings[8:12]]
    for store in (second, third):
        np.testing.assert_array_equal(store.layers_for(ids).values, first.layers_for(ids).values)


def test_a_replaced_file_is_encoded_anew(representation, tmp_path):
    (song,) = write_recordings(tmp_path / "music", [1.0])
    before = ensure_features(representation, [song], Windows(1.0), tmp_path, data_set="songs").layers_for([song.id])
    write_audio(Path(song.path), sound(5, 1.2))
    after = ensure_features(representation, [song], Windows(1.0), tmp_path, data_set="songs").layers_for([song.id])
    assert after.rows == 2 and not np.array_equal(after.values[:, :1], before.values)


def test_a_replaced_file_of_the_same_size_is_encoded_anew(representation, tmp_path):
    (song,) = write_recordings(tmp_path / "music", [1.0])
    first = ensure_features(representation, [song], Windows(1.0), tmp_path, data_set="songs").layers_for([song.id])
    size = Path(song.path).stat().st_size
    write_audio(Path(song.path), sound(5, 1.0))
    assert Path(song.path).stat().st_size == size
    again = ensure_features(representation, [song], Windows(1.0), tmp_path, data_set="songs").layers_for([song.id])
    assert not np.array_equal(again.values, first.values)


OTHERS = {
    "another version": lambda settings: json.dumps(settings | {"format": 1}),
    "other windows": lambda settings: json.dumps(settings | {"shortest_seconds": 2 * settings["shortest_seconds"]}),
    "other silence": lambda settings: json.dumps(settings | {"silence_db": 2 * settings["silence_db"]}),
    "unknown fields": lambda settings: json.dumps(settings | {"resampled_by": "another program"}),
    "damaged": lambda settings: json.dumps(settings)[:40],
    "no settings": lambda settings: "[]",
}


@pytest.mark.parametrize("kind", OTHERS)
def test_a_store_of_another_version_is_made_anew_and_says_so(representation, recordings, tmp_path, capsys, kind):
    arguments = representation, recordings[:2], Windows(1.0), tmp_path
    ids = [recording.id for recording in recordings[:2]]
    before = ensure_features(*arguments, data_set="songs").layers_for(ids)
    (settings,) = tmp_path.rglob("features.json")
    (old,) = tmp_path.rglob("part-*.json")
    old.write_text(json.dumps(json.loads(old.read_text()) | {"recordings": [["song/000", 1, 2]]}))  # as it was in 1
    renamed = dataclasses.replace(representation, name="another name")
    said = settings.read_text()
    settings.write_text(OTHERS[kind](json.loads(said)))
    capsys.readouterr()
    after = ensure_features(*arguments, data_set="songs").layers_for(ids)
    assert f"{settings.parent} holds features of another version: they are made anew" in capsys.readouterr().err
    np.testing.assert_array_equal(after.values, before.values)
    assert settings.read_text() == said
    (part,) = tmp_path.rglob("part-*.json")
    changed = part.stat().st_mtime_ns
    ensure_features(renamed, *arguments[1:], data_set="songs")
    assert "made anew" not in capsys.readouterr().err and part.stat().st_mtime_ns == changed


@pytest.mark.parametrize("harm", ["cut", "changed", "lost", "list cut"])
def test_a_damaged_part_is_named_and_made_anew(representation, recordings, tmp_path, capsys, harm):
    arguments = representation, recordings[:4], Windows(1.0), tmp_path
    ids = [recording.id for recording in recordings[:4]]
    before = ensure_features(*arguments, data_set="songs").layers_for(ids)
    (part,) = tmp_path.rglob("*.array_record")
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    if harm == "cut":
        part.write_bytes(content[: len(content) // 2])
    elif harm == "changed":
        part.write_bytes(content)
    elif harm == "lost":
        part.unlink()
    else:
        part.with_suffix(".json").write_text('{"bytes": 1')
    capsys.readouterr()
    after = ensure_features(*arguments, data_set="songs").layers_for(ids)
    assert f"{part} was damaged and is made anew" in capsys.readouterr().err
    np.testing.assert_array_equal(after.values, before.values)


def test_an_encoder_that_gives_no_numbers_is_named(representation, recordings, tmp_path):
    def broken(clips, chosen):
        encoded = representation.encode(clips, chosen)
        encoded.pooled[1, 0, 3] = np.nan
        return encoded

    watched = dataclasses.replace(representation, encode=broken)
    with pytest.raises(UserError, match=r"gives NaN or infinite features of song/000 \(.*000.wav\)"):
        ensure_features(watched, recordings[:4], Windows(1.0), tmp_path, data_set="songs")
    assert not list(tmp_path.rglob("part-*")) and not list(tmp_path.rglob("*.partial"))


SLOW = """
import sys, time
import numpy as np

def encode(waveform, rate):
    with open("calls", "a") as file:
        file.write(f"{len(waveform)}\\n")
    time.sleep(0.015)
    spectrum = np.abs(np.fft.rfft(waveform[: len(waveform) // 320 * 320].reshape(-1, 320)))[:, :24]
    return np.stack([spectrum, np.log1p(spectrum)])

if __name__ == "__main__":
    from pathlib import Path
    from musicssl_jax.mir.features import extract, parts
    from musicssl_jax.mir.features.user_function import user_function
    from musicssl_jax.mir.tasks.task import Recording, Windows

    parts.PART_SECONDS = 0  # a part for every block
    songs = [Recording(path.stem, str(path)) for path in Path(sys.argv[1]).glob("*.wav")]
    store = extract.ensure_features(
        user_function("slow:encode"), songs, Windows(0.5), Path(sys.argv[2]), data_set="songs"
    )
    layers = store.layers_for(sorted(song.id for song in songs))
    np.savez(sys.argv[3], values=layers.values, recording=layers.recording, start=layers.start)
"""


def test_a_killed_pass_goes_on_and_ends_with_the_same_numbers(tmp_path, monkeypatch):
    songs = write_recordings(tmp_path / "music", [1.0 + 0.1 * (number % 7) for number in range(56)])
    (tmp_path / "slow.py").write_text(SLOW)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])}

    def start():
        command = [
            sys.executable,
            str(tmp_path / "slow.py"),
            *(str(tmp_path / n) for n in ("music", "f", "layers.npz")),
        ]
        return subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)

    killed = start()
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("f/*/*/*/windows/part-*.json"))) < 2:
        assert killed.poll() is None, killed.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "layers.npz").exists()
    before = len((tmp_path / "calls").read_text().splitlines())
    ended = start()
    assert ended.wait(timeout=60) == 0, ended.stderr.read()
    calls = len((tmp_path / "calls").read_text().splitlines()) - before - 2  # two are trials

    monkeypatch.chdir(tmp_path)
    by_name = [Recording(Path(song.path).stem, song.path) for song in songs]
    store = ensure_features(
        user_function("slow:encode"), by_name, Windows(0.5), tmp_path / "straight", data_set="songs"
    )
    straight = store.layers_for([song.id for song in by_name])
    resumed = np.load(tmp_path / "layers.npz")
    for field in ("values", "recording", "start"):
        np.testing.assert_array_equal(resumed[field], getattr(straight, field))
    assert 0 < calls < straight.rows - 16  # what had been kept was not made again
    assert not list(tmp_path.rglob("*.partial"))


def test_of_two_commands_on_one_folder_the_second_waits_and_finds_everything_made(tmp_path):
    write_recordings(tmp_path / "music", [1.0] * 40)
    (tmp_path / "slow.py").write_text(SLOW)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])}
    commands = [
        [sys.executable, str(tmp_path / "slow.py"), *(str(tmp_path / name) for name in ("music", "f", result))]
        for result in ("one.npz", "two.npz")
    ]
    started = [subprocess.Popen(c, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) for c in commands]
    said = [process.communicate(timeout=60)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    assert sum("another command makes features in" in lines for lines in said) == 1
    assert len((tmp_path / "calls").read_text().splitlines()) == 40 * 2 + 4  # and two trials for each
    one, two = (np.load(tmp_path / name)["values"] for name in ("one.npz", "two.npz"))
    np.testing.assert_array_equal(one, two)


PROCESS = """
import sys
from pathlib import Path
import jax
process, address, music, features, config = int(sys.argv[1]), *sys.argv[2:]
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(address, 2, process)
import numpy as np
from musicssl_jax.mir.features.encoders import checkpoint
from musicssl_jax.mir.features.extract import ensure_features
from musicssl_jax.mir.tasks.task import Recording, Windows

songs = [Recording(path.stem, str(path)) for path in Path(music).glob("*.wav")]
store = ensure_features(checkpoint(config), songs, Windows(0.5), Path(features), data_set="songs")
assert set(store.rejected) == {"003", "020"}, store.rejected
ids = sorted({song.id for song in songs} - set(store.rejected))
np.save(f"{features}/{process}.npy", store.layers_for(ids).values)
"""


@pytest.mark.long
def test_several_processes_do_a_share_each_and_see_all_of_it(tiny, representation, tmp_path):
    songs = write_recordings(tmp_path / "music", [1.0] * 35)  # three blocks
    songs = [Recording(Path(song.path).stem, song.path) for song in songs]
    for number in (3, 20):
        Path(songs[number].path).write_bytes(b"nothing")
    (tmp_path / "features").mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    paths = [str(tmp_path / "music"), str(tmp_path / "features"), tiny]
    commands = [[sys.executable, "-c", PROCESS, str(process), address, *paths] for process in (0, 1)]
    started = [subprocess.Popen(c, env=same_imports(), stderr=subprocess.PIPE, text=True) for c in commands]
    try:
        said = [process.communicate(timeout=120)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0], "\n".join(said)
    parts = sorted(path.stem for path in tmp_path.rglob("part-*.json"))
    assert parts == ["part-000-00000", "part-001-00000"]
    whole = [song for number, song in enumerate(songs) if number not in (3, 20)]
    here = ensure_features(representation, whole, Windows(0.5), tmp_path / "alone", data_set="songs")
    expected = here.layers_for([song.id for song in whole]).values
    for process in (0, 1):
        np.testing.assert_allclose(np.load(tmp_path / "features" / f"{process}.npy"), expected, atol=3e-3)
