"""The index of a collection is built once: it survives kills and damage, and is never taken for another's."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from audio_fixtures import ROOT
from checkpoint_fixtures import same_imports
from contamination_fixtures import RATE, build_music, musicbox

from musicssl_jax.errors import UserError
from musicssl_jax.mir.contamination import index as index_module
from musicssl_jax.mir.contamination.index import ensure_index
from musicssl_jax.mir.contamination.landmarks import fingerprint
from musicssl_jax.mir.contamination.matching import find_match

SMALL = 15 / 3600  # hours of a part, so that a few tracks make many

TRACKS = musicbox(range(3), 12.0)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build_music(tmp_path_factory.mktemp("music"), TRACKS)


@pytest.fixture
def music(built, tmp_path):
    return Path(shutil.copytree(built, tmp_path / "data"))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MUSICSSL_CACHE", str(tmp_path / "cache"))


def parts(folder: Path) -> dict[str, int]:
    """Name -> time of writing."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("fingerprints/*/*")}


def contents(index) -> list[np.ndarray]:
    return [np.array(landmarks) for landmarks in index.landmarks]


def ensure(folder):
    return ensure_index(folder, workers=1, progress=False)


def test_it_is_built_once_beside_the_data(music):
    index = ensure(music)
    before = parts(music)
    assert len(before) == len(index.parts) == 2  # train and valid
    again = ensure(music)
    assert parts(music) == before
    assert all(map(np.array_equal, contents(index), contents(again)))


def test_it_holds_every_landmark_of_every_track(music, monkeypatch):
    monkeypatch.setattr(index_module, "PART_HOURS", SMALL)
    index = ensure(music)
    assert len(index.parts) > 3
    for split, of_split in index.collection.splits.items():
        for track, name in enumerate(of_split.tracks.ids):
            pcm = np.empty(of_split.tracks.lengths[track], np.int16)
            of_split.read(track, 0, pcm)
            hashes, times = fingerprint(pcm, RATE)
            _, frames = index.places(hashes, 10**9)
            located = {index.locate(int(frame)) for frame in frames}
            assert {(split, track, int(time)) for time in times} <= located, name


def test_a_killed_build_goes_on(music, monkeypatch):
    program = (
        "from musicssl_jax.mir.contamination import index; "
        f"index.PART_HOURS = {SMALL}; index.ensure_index({str(music)!r}, workers=1, progress=False)"
    )
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, env=same_imports())
    deadline = time.monotonic() + 60
    while not (done := {name: at for name, at in parts(music).items() if name.endswith(".npy")}):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    monkeypatch.setattr(index_module, "PART_HOURS", SMALL)
    index = ensure(music)
    assert len(done) < len(index.parts)
    assert done.items() <= parts(music).items()
    shutil.rmtree(music / "fingerprints")
    assert all(map(np.array_equal, contents(index), contents(ensure(music))))


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty"])
def test_a_damaged_part_is_made_anew(music, capfd, damage):
    before = contents(ensure(music))
    path = music / min(parts(music))
    bytes_before = path.read_bytes()
    bad = {"flipped": bytes_before[:-5] + b"x" + bytes_before[-4:], "cut": bytes_before[:-8], "empty": b""}[damage]
    path.write_bytes(bad)
    assert all(map(np.array_equal, before, contents(ensure(music))))
    assert path.read_bytes() == bytes_before
    assert f"{path} is damaged: it is made anew" in capfd.readouterr().err


def test_it_goes_to_the_cache_where_the_data_cannot_be_written(music, tmp_path):
    (music / "fingerprints").write_text("in the way, also of root")
    index = ensure(music)
    assert len(parts(tmp_path / "cache")) == len(index.parts)
    (track, waveform), *_ = TRACKS.items()
    assert find_match([index], np.round(waveform * 32767).astype(np.int16), RATE).track == f"{track}.wav"


def test_without_a_place_to_write_it_says_so(music, tmp_path):
    (music / "fingerprints").write_text("in the way")
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(UserError, match="cannot write the fingerprints of"):
        ensure(music)


def test_other_music_in_the_same_folder_has_its_own(music, tmp_path):
    ensure(music)
    old = parts(music)
    other = build_music(tmp_path / "other", musicbox([50, 51], 6.0))
    shutil.copytree(music / "fingerprints", other / "fingerprints")
    index = ensure(other)
    assert len(parts(other)) == len(old) + len(index.parts)
    assert index.collection.splits["train"].tracks.ids[0].endswith(("-50.wav", "-51.wav"))
    landmarks = np.concatenate(contents(index))
    assert 0 < len(landmarks) < 80 * 6 * 4


def test_a_damaged_shard_is_named(music):
    shard = next(iter(sorted(music.glob("music-train*"))))
    size = shard.stat().st_size
    with shard.open("r+b") as file:
        file.seek(size // 2)
        file.write(os.urandom(64))
    with pytest.raises(UserError, match=f"{shard.name} cannot be read"):
        ensure(music)


def test_no_collection_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        ensure(tmp_path / "nothing")
