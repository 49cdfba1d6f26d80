"""On a CPU an update's memory stays with the process: the system does not clear it anew each time."""

import os
import platform
import subprocess
import sys

import pytest

COUNT = """
import resource, statistics, sys
import jax, jax.numpy as jnp
from musicssl_jax.host_memory import keep_memory
if sys.argv[1] == "kept":
    keep_memory()

@jax.jit
def update(x):
    return jnp.tanh(jax.lax.optimization_barrier(jnp.stack([x * n for n in range(8)]))).sum()

x = jnp.ones(2_000_000)  # 64 MB of temporaries
def pages():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def pages_of_an_update():
    before = pages()
    update(x).block_until_ready()
    return pages() - before

print(int(statistics.median(pages_of_an_update() for _ in range(21))))
"""


def faults(how: str) -> int:
    """Pages that an update gets from the system: the median, since malloc finds more room now and then."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", COUNT, how], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it asks glibc's malloc")
def test_updates_get_no_new_pages():
    assert faults("kept") < 0.2 * faults("left alone")
