"""On a CPU the memory of an update is kept for the next one."""

import ctypes
import importlib.util

import jax

ARENA_MAX, MMAP_MAX, TRIM_THRESHOLD = -8, -4, -1
"""Of mallopt: numbers of glibc's malloc.h."""

_ACCELERATORS = ("libtpu", "jax_cuda12_plugin", "jax_cuda13_plugin", "jax_rocm60_plugin", "jax_rocm7_plugin")


def keep_memory() -> None:
    """Has glibc's malloc keep what is freed, if JAX can only compute on the CPU.

    XLA asks for the memory of an update anew each time, and the system clears gigabytes page by page: an eighth of a
    base model's update on two cores (docs/speed.md). Call it before JAX opens its devices, since threads that run
    already have arenas of their own. With another C library it does nothing.
    """
    if jax.config.jax_platforms != "cpu" and any(map(importlib.util.find_spec, _ACCELERATORS)):  # type: ignore[attr-defined]
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    for option, value in ((ARENA_MAX, 1), (MMAP_MAX, 0), (TRIM_THRESHOLD, -1)):
        mallopt(option, value)
