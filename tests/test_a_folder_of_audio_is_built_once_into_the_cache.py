"""`ensure_collection`: a folder of audio as data.path is built into the cache, once."""

import subprocess
import sys

import pytest
from audio_fixtures import ROOT, build_ok, read_tracks, sound, write_audio, write_music

from data_pipelines.build import ensure_collection
from musicssl_jax.errors import UserError


def ensure(folder, cache, rate=16000):
    return ensure_collection(str(folder), cache, rate, progress=False)


def test_a_folder_is_built_once_and_again_when_its_files_change(tmp_path):
    music, cache = write_music(tmp_path / "music", 3), tmp_path / "cache"
    built = ensure(music, cache)
    before = (built / "collection.json").stat().mtime
    assert len(read_tracks(built, "train")) == 2
    assert ensure(music, cache) == built
    assert (built / "collection.json").stat().mtime == before
    assert ensure(music, cache, 8000) != built
    write_audio(music / "new.wav", sound(9))
    changed = ensure(music, cache)
    assert changed != built
    assert len(read_tracks(changed, "train")) == 3


def test_a_collection_is_returned_as_it_is(tmp_path):
    music = write_music(tmp_path / "music", 2)
    build_ok(f"--input={music}", f"--output={tmp_path / 'out'}", "--sample_rate=8000")
    assert ensure(tmp_path / "out", tmp_path / "cache") == tmp_path / "out"
    assert not (tmp_path / "cache").exists()


def test_processes_that_ask_at_once_build_once(tmp_path):
    music, cache = write_music(tmp_path / "music", 6, seconds=10.0), tmp_path / "cache"
    program = (
        "import sys; from pathlib import Path; from data_pipelines.build import ensure_collection as e\n"
        "print(e(sys.argv[1], Path(sys.argv[2]), 16000, progress=False))"
    )
    command = [sys.executable, "-c", program, music, cache]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(3)]
    printed = {process.communicate(timeout=60)[0] for process in started}
    assert [process.returncode for process in started] == [0, 0, 0]
    (path,) = printed
    assert len(read_tracks(path.strip(), "train")) == 5


def test_what_is_neither_is_said(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="is empty"):
        ensure(tmp_path / "empty", tmp_path / "cache")
    with pytest.raises(UserError, match="is not a folder"):
        ensure(tmp_path / "gone", tmp_path / "cache")
    (tmp_path / "begun" / ".build").mkdir(parents=True)
    with pytest.raises(UserError, match="unfinished build"):
        ensure(tmp_path / "begun", tmp_path / "cache")


def test_neither_the_build_nor_its_workers_import_jax_or_tensorflow():
    modules = "data_pipelines.build, data_pipelines.pool, data_pipelines.decode, data_pipelines.pack"
    program = f"import sys, {modules}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert not {"jax", "tensorflow", "torch", "grain", "apache_beam"} & set(done.stdout.split())
