"""SIGTERM while a codebook is fitted: what was fitted is kept, the exit code says so, and the same command goes on."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from run_fixtures import hubert_flags

from musicssl_jax.errors import PREEMPTED
from musicssl_jax.targets.codebook import load_codebook

REPOSITORY = Path(__file__).parent.parent
LONG = {"codebook__patience": 100_000, "codebook__max_batches": 100_000, "targets": "mfcc39", "clusters": (12,)}
SHORT = LONG | {"codebook__max_batches": 3, "steps": 1}


def start(command: str, arguments: list[str]) -> subprocess.Popen:
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1", "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(
        [sys.executable, "-m", f"musicssl_jax.{command}", *arguments],
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("command", "output", "codebook"),
    [
        ("cluster", "--output={}/books", "books"),
        pytest.param("train", "--workdir={}/run", "run/codebooks/mfcc39_k12", marks=pytest.mark.long),
    ],
)
def test_sigterm_keeps_the_codebook_and_ends_with_its_own_code(music, tmp_path, command, output, codebook):
    output = output.format(tmp_path)
    folder = tmp_path / codebook
    state = folder.with_name(f".{folder.name}.state")
    process = start(command, [*hubert_flags(music, **LONG), output])
    deadline = time.monotonic() + 240
    while not state.exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "no fit was saved"
        time.sleep(0.05)
    time.sleep(0.5)  # some batches after the start
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == PREEMPTED, said
    [line] = [line for line in said.splitlines() if line.startswith("stopped: ")]
    batches = int(re.search(r"SIGTERM: the codebook of mfcc39 is kept after (\d+) of at most 100000 batches", line)[1])
    assert batches > 0 and line.endswith("the same command goes on")
    assert not folder.exists()

    again = start(command, [*hubert_flags(music, **SHORT), output])
    said = again.communicate(timeout=240)[1]
    assert again.returncode == 0, said
    # It went on: a new fit would have ended after three batches.
    assert len(load_codebook(folder).inertia_curve) == max(batches, 3)
    assert not state.exists()
