"""Killed, interrupted or split over machines, a build ends with the same bytes as in one go."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from audio_fixtures import build_ok, contents, lines, run_build, sound, start_build, write_audio, write_music


@pytest.fixture(scope="module")
def music(tmp_path_factory):
    folder = write_music(tmp_path_factory.mktemp("audio") / "music", 24, seconds=20.0)
    (folder / "bad.mp3").write_text("no audio")
    data = (folder / "album0/song0.wav").read_bytes()
    (folder / "copy.wav").write_bytes(data)
    return folder


SETTINGS = ("--shard_megabytes=1.5", "--record_seconds=3", "--valid_fraction=0.2")


@pytest.fixture(scope="module")
def whole(music, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "out"
    build_ok(f"--input={music}", f"--output={out}", *SETTINGS)
    return contents(out)


def test_one_worker_or_three_make_the_same_bytes(music, whole, tmp_path):
    assert len([name for name in whole if "-train." in name]) > 3
    for workers in (1, 3):
        out = tmp_path / f"{workers}"
        build_ok(f"--input={music}", f"--output={out}", f"--workers={workers}", *SETTINGS)
        assert contents(out) == whole


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_killed_again_and_again_it_makes_the_same_bytes(music, whole, tmp_path, ending):
    out = tmp_path / "out"
    command = (f"--input={music}", f"--output={out}", "--workers=1", *SETTINGS)
    progress = [0]
    for _ in range(3):
        build = start_build(*command)
        wait_until_more_is_done(out, progress[-1] + 4)
        build.send_signal(ending)
        build.communicate(timeout=30)
        if build.returncode == 0:  # a busy machine delivered the signal after the last file
            break
        assert not (out / "collection.json").exists()
        assert not (out / "dataset_info.json").exists()
        progress.append(files_done(out))
    assert len(progress) > 1 and progress == sorted(set(progress)) and progress[-1] < 26
    build_ok(*command)
    assert contents(out) == whole


def files_done(out) -> int:
    path = out / ".build/outcomes.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_until_more_is_done(out, wanted: int) -> None:
    end = time.monotonic() + 60
    while files_done(out) < wanted:
        assert time.monotonic() < end
        time.sleep(0.005)


def test_what_was_done_is_not_done_again(music, tmp_path):
    """The second run could not decode anything: the files have lost their sound."""
    copy = tmp_path / "music"
    subprocess.run(["cp", "-r", music, copy], check=True)
    out = tmp_path / "out"
    build_ok(f"--input={copy}", f"--output={out}", *SETTINGS, "--shard=0/1")
    assert not (out / "collection.json").exists()
    for path in copy.rglob("*.wav"):
        times = path.stat()
        path.write_bytes(bytes(times.st_size))
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    build_ok(f"--input={copy}", f"--output={out}", *SETTINGS)
    assert [line["track"] for line in lines(out / "rejects.jsonl")] == ["bad.mp3"]


def test_a_finished_collection_is_left_alone(music, tmp_path):
    out = tmp_path / "out"
    build_ok(f"--input={music}", f"--output={out}", *SETTINGS)
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert "24 tracks" not in build_ok(f"--input={music}", f"--output={out}", *SETTINGS)
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before


def test_files_that_came_while_it_was_stopped_are_in_it(music, tmp_path):
    copy = tmp_path / "music"
    subprocess.run(["cp", "-r", "--preserve=timestamps", music, copy], check=True)
    out = tmp_path / "out"
    command = (f"--input={copy}", f"--output={out}", "--workers=1", *SETTINGS)
    build = start_build(*command)
    wait_until_more_is_done(out, 15)
    build.kill()
    build.communicate()
    write_audio(copy / "new.wav", sound(99, 20.0))
    (copy / "album1/song1.wav").unlink()
    build_ok(*command)
    fresh = tmp_path / "fresh"
    build_ok(f"--input={copy}", f"--output={fresh}", *SETTINGS)
    assert contents(out) == contents(fresh)


def test_shares_of_the_work_join_to_the_same_bytes(music, whole, tmp_path):
    out = tmp_path / "out"
    command = (f"--input={music}", f"--output={out}", *SETTINGS)
    shares = [start_build(*command, f"--shard={i}/3", "--workers=1") for i in range(3)]
    for share in shares:
        printed, errors = share.communicate(timeout=60)
        assert share.returncode == 0, errors
        assert "without --shard" in printed
    assert not (out / "collection.json").exists()
    assert files_done(out) == 0  # each share has its own list
    build_ok(*command)
    assert contents(out) == whole


def test_two_builds_into_one_folder_do_not_meet(music, tmp_path):
    out = tmp_path / "out"
    command = (f"--input={music}", f"--output={out}", "--workers=1", *SETTINGS)
    first = start_build(*command)
    wait_until_more_is_done(out, 1)
    second = run_build(*command)
    assert second.returncode == 2
    assert "another build is at work" in second.stderr
    first.kill()
    first.communicate()


def test_no_process_is_left_when_the_build_is_killed(music, tmp_path):
    os.mkfifo(tmp_path / "hang.wav")
    out = tmp_path / "out"
    build = start_build(f"--input={tmp_path}", f"--output={out}", "--workers=1")
    children = f"/proc/{build.pid}/task/{build.pid}/children"
    end = time.monotonic() + 30
    while not (pids := Path(children).read_text().split()) and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(1.0)  # it hangs by now
    build.kill()
    build.communicate()
    while os.path.exists(f"/proc/{pids[0]}") and time.monotonic() < end:
        time.sleep(0.05)
    assert not os.path.exists(f"/proc/{pids[0]}")
