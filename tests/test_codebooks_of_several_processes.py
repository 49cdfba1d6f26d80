"""Two processes fit one codebook together: one writes its folder, and both read it."""

import socket
import subprocess
import sys

import numpy as np
import pytest
from checkpoint_fixtures import same_imports
from run_fixtures import hubert_flags

from musicssl_jax.cluster import main as cluster
from musicssl_jax.targets.codebook import load_codebook

SCRIPT = """
import sys
import jax
process, address = int(sys.argv[1]), sys.argv[2]
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(address, 2, process)
from pathlib import Path
import conftest  # the same compiler
from musicssl_jax.config import load
from musicssl_jax.parallel import make_mesh
from musicssl_jax.targets.codebook import codebook_id
from musicssl_jax.targets.open_targets import front_ends_of, open_targets
from musicssl_jax.training.data import open_data

config, (workdir,) = load(sys.argv[3:])
mesh = make_mesh(-1, 1)
with jax.set_mesh(mesh):
    targets = open_targets(config, front_ends_of(config), Path(workdir), open_data(config), mesh, print)
assert targets.ids == tuple(map(codebook_id, targets.codebooks))
print("ids", *targets.ids)
"""


@pytest.mark.long
def test_two_processes_share_a_codebook(music, tmp_path):
    """It is that of one process, up to the order of additions."""
    fields = {"targets": "mfcc39", "clusters": (6,), "mesh__data": -1, "batch__per_device": 2}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [sys.executable, "-c", SCRIPT]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": same_imports()}
    arguments = [*hubert_flags(music, **fields), str(tmp_path)]
    processes = [subprocess.Popen([*command, str(n), address, *arguments], **pipes) for n in (0, 1)]
    try:
        said = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(err for _, err in said)
    ids = {line for out, _ in said for line in out.splitlines() if line.startswith("ids ")}
    assert len(ids) == 1
    cluster([*hubert_flags(music, **fields | {"mesh__data": 1}), f"--output={tmp_path / 'alone'}"])
    together, alone = (load_codebook(tmp_path / name) for name in ("codebooks/mfcc39_k6", "alone"))
    np.testing.assert_allclose(together.inertia_curve, alone.inertia_curve, rtol=1e-4)
