"""What is wrong, where, in one line, with exit code 2, and nothing that could be taken for a collection."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from audio_fixtures import ROOT, build_ok, contents, run_build, sound, write_audio, write_music

from data_pipelines.build import main
from musicssl_jax.errors import UserError


def refused(*arguments: object, **options) -> str:
    """The one line that the command ended with."""
    done = run_build(*arguments, **options)
    assert done.returncode == 2, done.stderr
    (message,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in done.stderr
    return message


def test_no_audio_to_build_from(tmp_path):
    out, empty, texts = tmp_path / "out", tmp_path / "empty", tmp_path / "texts"
    empty.mkdir()
    texts.mkdir()
    (texts / "readme.txt").touch()
    (texts / "sub").mkdir()
    assert f"{empty} is empty" in refused(f"--input={empty}", f"--output={out}")
    assert f"{texts} holds no audio file" in refused(f"--input={texts}", f"--output={out}")
    assert f"{tmp_path / 'gone'} is not a folder" in refused(f"--input={tmp_path / 'gone'}", f"--output={out}")
    assert "--input=DIR or --manifest=FILE" in refused(f"--output={out}")
    assert not out.exists()


def test_only_bad_files_end_with_their_reasons_and_nothing_written(tmp_path):
    music, out = tmp_path / "music", tmp_path / "out"
    write_audio(music / "silent.wav", 0 * sound(1))
    (music / "empty.mp3").touch()
    (music / "text.flac").write_text("no audio")
    message = refused(f"--input={music}", f"--output={out}")
    assert "none of the 3 audio files can be used" in message
    for reason in ("1 silent", "1 empty", "1 undecodable"):
        assert reason in message
    assert not out.exists()


@pytest.mark.parametrize(
    ("flag", "named"),
    [
        ("--sample_rate=0", "--sample_rate=0"),
        ("--sample_rate=fast", "--sample_rate"),
        ("--valid_fraction=1", "--valid_fraction=1"),
        ("--shard=3/3", "--shard=3/3"),
        ("--shard=half", "--shard=half"),
        ("--workers=0", "--workers=0"),
        ("--smaple_rate=8000", "--smaple_rate"),
        ("--split_by=artist", "--split_by"),
        ("--manifest=list.txt", "list.txt"),
        ("--exclude=/nowhere/ids", "/nowhere/ids"),
    ],
)
def test_a_wrong_option_is_named(tmp_path, flag, named):
    music = write_music(tmp_path / "music", 2)
    with pytest.raises(UserError, match=re.escape(named)):
        main([f"--input={music}", f"--output={tmp_path / 'out'}", flag])
    assert not (tmp_path / "out").exists()


def test_an_output_that_holds_something_else_is_left_as_it_is(tmp_path):
    music, out = write_music(tmp_path / "music", 3), tmp_path / "out"
    build_ok(f"--input={music}", f"--output={out}")
    before = contents(out)
    assert "sample_rate=16000 (now 8000)" in refused(f"--input={music}", f"--output={out}", "--sample_rate=8000")
    write_audio(music / "new.wav", sound(77))
    assert "was built from other files" in refused(f"--input={music}", f"--output={out}")
    assert contents(out) == before
    assert "holds other files" in refused(f"--input={music}", f"--output={music}")
    (tmp_path / "file").touch()
    assert str(tmp_path / "file") in refused(f"--input={music}", f"--output={tmp_path / 'file'}")


def test_an_output_that_cannot_be_written(tmp_path):
    music = write_music(tmp_path / "music", 2)
    # Not even root can write there.
    assert "/proc/collection" in refused(f"--input={music}", "--output=/proc/collection")


def in_a_small_disk(folder: Path, megabytes: int, command: str) -> subprocess.CompletedProcess:
    script = f"mount -t tmpfs -o size={megabytes}m none {folder} && {command}"
    return subprocess.run(
        ["unshare", "--mount", "--map-root-user", "sh", "-c", script],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )


def test_a_full_disk_ends_in_one_line_and_the_build_goes_on_when_there_is_space(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if shutil.which("unshare") is None or in_a_small_disk(disk, 1, "true").returncode:
        pytest.skip("no right to mount a small disk")
    music = write_music(tmp_path / "music", 30, seconds=20.0)  # 19 MB decoded
    build = f"{sys.executable} -m data_pipelines.build --input={music} --output={disk}/out"
    for megabytes in (4, 20):  # full while decoding; full while writing shards
        script = f"{build}; code=$?; ls {disk}/out; exit $code"
        done = in_a_small_disk(disk, megabytes, script)
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        assert done.stderr.splitlines()[-1].startswith("error: cannot write")
        assert "collection.json" not in done.stdout
    grown = f"{build}; code=$?; mount -o remount,size=60m {disk} && {build} && exit $code"
    done = in_a_small_disk(disk, 20, grown)
    assert done.returncode == 2, done.stderr
    assert "29 tracks" in done.stdout
