"""A file that is no use, or that takes its decoder along, is named with the reason; the rest goes on."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import soundfile
from audio_fixtures import build_ok, lines, read_tracks, sound, start_build, write_audio, write_music

RATE = 16000


def cut(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def test_each_bad_file_is_listed_once_with_its_reason(tmp_path):
    music = write_music(tmp_path / "music", 3)
    for name in ("cut.wav", "cut.flac", "cut.mp3", "cut.ogg", "cut.aiff"):
        cut(write_audio(music / name, sound(50, 20.0)))
    (music / "nothing.wav").touch()
    (music / "text.mp3").write_text("not audio\n" * 500)
    (music / "gone.wav").symlink_to(tmp_path / "missing.wav")
    write_audio(music / "short.wav", sound(1, 0.5))
    write_audio(music / "silent.flac", np.zeros((RATE * 3, 1), np.float32))
    write_audio(music / "offset.wav", np.full((RATE * 3, 1), 0.25, np.float32))
    broken = sound(2)
    broken[RATE] = np.nan
    write_audio(music / "nan.wav", broken, subtype="FLOAT")
    broken[RATE] = np.inf
    write_audio(music / "inf.wav", broken, subtype="FLOAT")
    write_audio(music / "clipped.wav", np.clip(20 * sound(3), -1, 1))
    (music / "notes.txt").write_text("not asked for")

    printed = build_ok(f"--input={music}", f"--output={tmp_path / 'out'}")

    rejects = lines(tmp_path / "out/rejects.jsonl")
    assert {reject["track"]: reject["reason"] for reject in rejects} == {
        "cut.wav": "truncated",
        "cut.flac": "undecodable",
        "cut.mp3": "truncated",
        "cut.ogg": "truncated",
        "cut.aiff": "truncated",
        "nothing.wav": "empty",
        "text.mp3": "undecodable",
        "gone.wav": "unreadable",
        "short.wav": "too short",
        "silent.flac": "silent",
        "offset.wav": "silent",
        "nan.wav": "not finite",
        "inf.wav": "not finite",
        "clipped.wav": "clipped",
    }
    assert len(rejects) == 14
    assert all(Path(reject["path"]).parent == music and reject["detail"] for reject in rejects)
    found = read_tracks(tmp_path / "out", "train") | read_tracks(tmp_path / "out", "valid")
    assert sorted(found) == ["album0/song0.wav", "album1/song1.wav", "album2/song2.wav"]
    assert "4 truncated" in printed
    report = (tmp_path / "out/report.html").read_text()
    assert "nan.wav" in report
    assert "data:image/png;base64," in report


def test_headers_of_writers_that_could_not_seek_back_are_no_truncation(tmp_path):
    music = write_music(tmp_path / "music", 1)
    path = write_audio(music / "piped.wav", sound(9))
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"  # sizes of RIFF and data
    path.write_bytes(data)
    build_ok(f"--input={music}", f"--output={tmp_path / 'out'}")
    assert lines(tmp_path / "out/rejects.jsonl") == []


def test_the_same_audio_in_other_files_is_kept_once_and_listed(tmp_path):
    music = write_music(tmp_path / "music", 4)
    pcm, _ = soundfile.read(music / "album1/song1.wav", dtype="int16")
    soundfile.write(music / "copy.flac", pcm, RATE)
    soundfile.write(music / "copy.aiff", pcm, RATE)
    soundfile.write(music / "stereo.wav", np.stack([pcm, pcm], axis=1), RATE)
    build_ok(f"--input={music}", f"--output={tmp_path / 'out'}")
    copies = {"album1/song1.wav", "copy.flac", "copy.aiff", "stereo.wav"}
    duplicates = lines(tmp_path / "out/duplicates.jsonl")
    found = set(read_tracks(tmp_path / "out", "train")) | set(read_tracks(tmp_path / "out", "valid"))
    (kept,) = copies & found
    assert {line["track"] for line in duplicates} == copies - {kept}
    assert {line["same_as"] for line in duplicates} == {kept}
    assert len(found) == 4


def children(pid: int) -> list[int]:
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def wait_for(condition, seconds: float = 60.0):
    """The first true value of `condition()`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError("it did not happen")


def test_a_file_that_hangs_its_decoder_is_rejected_after_the_time_limit(tmp_path):
    """Opening a pipe that nobody writes to never returns, like a file on a lost network drive."""
    music = write_music(tmp_path / "music", 3)
    os.mkfifo(music / "hang.flac")
    out = tmp_path / "out"
    build_ok(f"--input={music}", f"--output={out}", "--time_limit=2", "--workers=1")
    assert lines(out / "rejects.jsonl") == [
        {
            "track": "hang.flac",
            "path": str(music / "hang.flac"),
            "reason": "decoder hung",
            "detail": "no progress for 2 s",
        }
    ]
    assert len(read_tracks(out, "train")) == 2


def test_a_file_whose_decoder_dies_is_rejected_and_the_others_are_not(tmp_path):
    """The process that reads the pipe gets the signal of a crash, and so does the one that tries again."""
    music = write_music(tmp_path / "music", 3)
    pipe = music / "crash.flac"
    os.mkfifo(pipe)
    out = tmp_path / "out"
    build = start_build(f"--input={music}", f"--output={out}", "--workers=1")

    def open_when_read() -> int | None:
        try:
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # nobody reads yet
            return None

    for crash in (signal.SIGSEGV, signal.SIGABRT):
        writer = wait_for(open_when_read)
        (reader,) = children(build.pid)
        os.kill(reader, crash)
        wait_for(lambda reader=reader: reader not in children(build.pid))
        os.close(writer)
    _, errors = build.communicate(timeout=60)
    assert build.returncode == 0, errors
    (reject,) = lines(out / "rejects.jsonl")
    assert (reject["track"], reject["reason"]) == ("crash.flac", "decoder crashed")
    assert "SIGABRT" in reject["detail"]
    assert len(read_tracks(out, "train")) + len(read_tracks(out, "valid")) == 3


def test_a_worker_that_dies_once_costs_no_file(tmp_path):
    music = write_music(tmp_path / "music", 6, seconds=60.0)
    out = tmp_path / "out"
    build = start_build(f"--input={music}", f"--output={out}", "--workers=1")
    pcm = out / ".build/pcm"
    wait_for(lambda: list(pcm.glob("*")))  # it is at its first file
    (victim,) = children(build.pid)
    os.kill(victim, signal.SIGKILL)
    _, errors = build.communicate(timeout=60)
    assert build.returncode == 0, errors
    assert lines(out / "rejects.jsonl") == []
    assert len(read_tracks(out, "train")) == 5
