"""The Beam pipeline and the process pool make the same collection, byte for byte."""

import os

import pytest
from audio_fixtures import build_ok, contents, run_build, sound, write_audio, write_music

pytest.importorskip("apache_beam")

RUNNER = ("--beam", "--runner=DirectRunner")


def test_beam_makes_the_same_bytes(tmp_path):
    music = write_music(tmp_path / "music", 12, seconds=5.0)
    write_audio(music / "stereo.mp3", sound(1, 20.0, 44100, 2), 44100)
    write_audio(music / "silent.flac", 0 * sound(1))
    (music / "copy.wav").write_bytes((music / "album0/song0.wav").read_bytes())
    os.mkfifo(music / "hang.ogg")
    settings = ("--shard_megabytes=0.5", "--record_seconds=2", "--valid_fraction=0.3", "--time_limit=3")
    build_ok(f"--input={music}", f"--output={tmp_path / 'local'}", *settings)
    build_ok(f"--input={music}", f"--output={tmp_path / 'beam'}", *settings, *RUNNER)
    local = contents(tmp_path / "local")
    assert len([name for name in local if "-train." in name]) > 2
    assert contents(tmp_path / "beam") == local


def test_beam_refuses_what_the_local_build_refuses(tmp_path):
    (tmp_path / "music").mkdir()
    (tmp_path / "music" / "bad.wav").write_text("no audio")
    done = run_build(f"--input={tmp_path / 'music'}", f"--output={tmp_path / 'out'}", *RUNNER)
    assert done.returncode == 2, done.stderr
    assert "none of the 1 audio files can be used" in done.stderr.splitlines()[-1]
    assert contents(tmp_path / "out") == {}


def test_folders_are_listed_alike_through_beams_file_systems(tmp_path):
    from data_pipelines.beam_build import list_files
    from data_pipelines.sources import walk_folder

    music = write_music(tmp_path / "music", 4)
    (music / "notes.txt").touch()
    write_audio(music / ".hidden.wav", sound(1))
    assert list_files(str(music)) == walk_folder(str(music))


@pytest.mark.long
def test_several_worker_processes_make_the_records_of_one(tmp_path):
    """A few hundred files through Beam's runner of several processes."""
    music = write_music(tmp_path / "music", 300, seconds=1.5)
    settings = ("--shard_megabytes=1", "--record_seconds=1", "--valid_fraction=0.2")
    build_ok(f"--input={music}", f"--output={tmp_path / 'local'}", *settings)
    several = (*RUNNER, "--direct_running_mode=multi_processing", "--direct_num_workers=2")
    build_ok(f"--input={music}", f"--output={tmp_path / 'beam'}", *settings, *several)
    local = contents(tmp_path / "local")
    assert len([name for name in local if "-train." in name]) > 5
    assert contents(tmp_path / "beam") == local
