"""Peak memory of `musicssl embed` hardly grows with the length of a file, whatever is asked for."""

import subprocess
import sys

import numpy as np
import pytest
import soundfile
from checkpoint_fixtures import same_imports
from encoder_fixtures import tiny_config_file

RATE = 16000
PROGRAM = """
import resource, sys
from musicssl_jax.command import run_command
from musicssl_jax.embed import main
assert run_command(main) == 0
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


@pytest.mark.long
@pytest.mark.parametrize("form", ["npz", "parquet", "array_record"])
def test_every_frame_of_a_long_file_is_never_held(tmp_path, form):
    """30 minutes in 3 layers of width 256 are 276 MB of features, and 58 MB of PCM that is mapped, not read."""
    checkpoint = f"--checkpoint=random:{tiny_config_file(tmp_path, model__width=256)}"
    peaks = []
    for minutes in (1, 30):
        path = tmp_path / f"{minutes}.wav"
        with soundfile.SoundFile(path, "w", RATE, 1, subtype="PCM_16") as file:
            for minute in range(minutes):
                file.write(np.random.default_rng(minute).normal(0, 0.1, 60 * RATE))
        output = tmp_path / f"{form}-{minutes}"
        flags = [checkpoint, f"--input={path}", f"--output={output}", f"--format={form}", "--pool=none"]
        command = [sys.executable, "-c", PROGRAM, *flags, "--dtype=float32", "--window_seconds=10"]
        ended = subprocess.run(command, env=same_imports(), capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        peaks.append(float(ended.stdout.splitlines()[-1]))
    assert peaks[1] - peaks[0] < 58 + 90, peaks
