import os
import pty
import subprocess
import sys
import termios

from checkpoint_fixtures import same_imports

from musicssl_jax.training import progress
from musicssl_jax.training.progress import describe, open_progress

ROW = {
    "train/loss": 4.21347,
    "prediction/swap_gap": 0.3124,
    "data/audio_hours": 1234.5,
    "perf/audio_seconds_per_second": 45.21,
    "perf/step_seconds": 1.5,
}


def test_a_line_says_step_loss_swap_gap_audio_speed_and_time_left():
    assert describe(400, 1000, ROW) == (
        "step 400/1,000 · loss 4.213 · swap gap 0.312 · 1,234 h of audio · 45.2x real time · 1.5 s a step · 15 min left"
    )


def test_what_a_row_lacks_is_left_out():
    assert describe(1, 2, {"train/loss": 4.0}) == "step 1/2 · loss 4"


def test_without_a_terminal_there_is_one_line_a_row(capsys, monkeypatch):
    monkeypatch.setattr(progress, "QUIET_SECONDS", 1e9)
    shown = open_progress(0, 100, 16)
    for step in (50, 100):
        for micro_batch in range(16):
            shown.inside(micro_batch)
        shown.row(step, ROW)
    shown.close()
    captured = capsys.readouterr()
    assert [line.split(" ·")[0] for line in captured.out.splitlines()] == ["step 50/100", "step 100/100"]
    assert not captured.err


def test_a_slow_update_says_now_and_then_how_far_it_is(capsys, monkeypatch):
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.0)
    shown = open_progress(0, 100, 16)
    shown.inside(3)
    assert capsys.readouterr().out == "  micro-batch 4/16 of the update\n"


def test_on_a_terminal_there_is_a_bar_that_is_redrawn():
    script = f"""
from musicssl_jax.training.progress import open_progress
shown = open_progress(20, 80, 4)
shown.row(40, {ROW})
shown.inside(2)
shown.close()
"""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, 200))
    subprocess.run([sys.executable, "-c", script], env=same_imports(), stderr=theirs, check=True, timeout=60)
    os.close(theirs)
    drawn = os.read(ours, 100_000).decode()
    os.close(ours)
    last = [text for text in drawn.split("\r") if text.strip()][-1]
    assert " 50%|" in last
    assert "step 40/80 · loss 4.213" in last
    assert "micro-batch 3/4" in last
