"""Compiled programs are kept in the user's cache folder, so that the next start does not compile them again."""

import hashlib
import os
from pathlib import Path

import jax


def keep_programs() -> None:
    """Turns JAX's persistent compilation cache on, unless JAX_COMPILATION_CACHE_DIR has already done so.

    JAX_ENABLE_COMPILATION_CACHE=false turns it off. The folder is the user's own, never one beside shared data
    (MUSICSSL_CACHE): what lies there is executed. It differs from processor to processor, since programs for a CPU run
    on no lesser one, and home folders are shared between machines.
    """
    if jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        return
    folder = programs_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:  # a home without a place to write costs time alone
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))


def programs_folder() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return cache / "musicssl-programs" / hashlib.sha256(_processor().encode()).hexdigest()[:12]


def _processor() -> str:
    """What its programs may use; "" where the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
