"""On a CPU an update's memory stays with the process: the system does not clear it anew each time."""

import os
import platform
import subprocess
import sys

import pytest

COUNT = """
import resource, sys
import jax, jax.numpy as jnp
from musicssl_jax.host_memory import keep_memory
if sys.argv[1] == "kept":
    keep_memory()

@jax.jit
def update(x):
    return jnp.tanh(jnp.sort(jnp.stack([x * n for n in range(8)]), axis=1)).sum()

x = jnp.ones(2_000_000)  # 64 MB of temporaries
for _ in range(5):  # until malloc has found room for all that lives at once
    update(x).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    update(x).block_until_ready()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    """Pages that ten updates got from the system."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", COUNT, how], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it asks glibc's malloc")
def test_updates_get_no_new_pages():
    assert faults("kept") < 0.2 * faults("left alone")
