"""Probes of a large task take hours: how far they are is shown meanwhile."""

import os
import pty
import re
import subprocess
import sys
import termios

import numpy as np
from checkpoint_fixtures import same_imports
from probing_fixtures import QUICK, planted

from musicssl_jax.mir.probing import feed, progress
from musicssl_jax.mir.probing.training import Probe, train_probes


def test_without_a_terminal_there_is_a_line_now_and_then(capsys, monkeypatch):
    monkeypatch.setattr(feed, "CHUNK_BYTES", 1 << 12)  # several chunks an epoch
    probes = [Probe(0, rate, 0) for rate in (1e-2, 1e-3)]
    train_probes(planted()[0], probes, QUICK, None, keep=False, title="linear: layers")
    assert not capsys.readouterr().err
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.0)
    trained = train_probes(planted()[0], probes, QUICK, None, keep=False, title="linear: layers")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("  linear: layers: epoch 0.") and lines[0].endswith(f"/{QUICK.epochs}, 2 probes")
    done = [float(re.search(r"epoch ([\d.]+)/", line)[1]) for line in lines]
    assert done == sorted(done) and done[-1] == trained.epochs.max()
    assert any(f"best {trained.scores.max():.3f}" in line for line in lines)
    assert np.isfinite(trained.scores).all()


def test_on_a_terminal_there_is_a_bar_that_goes_away():
    script = """
from musicssl_jax.mir.probing.progress import shown_progress
with shown_progress("mlp: layers", 100, 72) as shown:
    for _ in range(4):
        shown.chunk(0.5)
    shown.epoch(36, 0.71)
    shown.chunk(0.25)
    shown._bar.refresh()
"""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, 200))
    subprocess.run([sys.executable, "-c", script], env=same_imports(), stderr=theirs, check=True, timeout=60)
    os.close(theirs)
    drawn = os.read(ours, 100_000).decode().split("\r")
    os.close(ours)
    assert any("mlp: layers: epoch 2.2/100|" in text and "36 probes go on, best 0.710" in text for text in drawn)
    assert not drawn[-1].strip()
