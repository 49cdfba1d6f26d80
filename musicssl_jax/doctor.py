"""What this machine has, and what is missing for what: `musicssl doctor`."""

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from musicssl_jax import __version__
from musicssl_jax.command import ArgumentParser, run_command

CORE = (
    *("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "array-record"),
    *("ml_collections", "numpy", "soundfile", "soxr"),
)

# Package -> what it is for, and the extra that brings it.
OPTIONAL = {
    "av": ("decoding m4a, aac and webm", "av"),
    "apache_beam": ("building data sets on many machines", "beam"),
    "gcsfs": ("data and runs in gs://", "gcs"),
    "torch": ("reading fairseq checkpoints", "fairseq"),
    "pyarrow": ("embeddings as Parquet", "parquet"),
    "wandb": ("metrics on Weights & Biases", "wandb"),
    "transformers": ("the tests against PyTorch models", "test"),
}

GIB = 2**30


def main(argv: list[str]) -> None:
    parser = ArgumentParser(prog="musicssl doctor", description=__doc__)
    parser.parse_args(argv)
    for name, value in [*machine(), *packages(), *devices(), *codecs(), *missing()]:
        print(f"{name:10} {value}")


def machine() -> Iterator[tuple[str, str]]:
    """Interpreter, processor, memory and disk."""
    yield (
        "python",
        f"{platform.python_version()}   {platform.platform(terse=True)}, {os.cpu_count()} CPU cores",
    )
    pages, page_size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    yield "memory", f"{pages * page_size / GIB:.1f} GiB"
    for folder in {folder.stat().st_dev: folder for folder in (Path.home(), Path.cwd())}.values():
        yield "disk", f"{shutil.disk_usage(folder).free / GIB:.1f} GiB free in {folder}"


def packages() -> Iterator[tuple[str, str]]:
    """Versions of what every run needs."""
    found = {name: _version(name) for name in CORE}
    yield (
        "packages",
        f"musicssl_jax {__version__}, " + ", ".join(f"{name} {version}" for name, version in found.items() if version),
    )
    absent = [name for name, version in found.items() if not version]
    if absent:
        yield "MISSING", f"{', '.join(absent)}: pip install musicssl_jax"


def devices() -> Iterator[tuple[str, str]]:
    """What JAX computes on, and an accelerator that it has no plugin for."""
    try:
        import jax

        found = jax.devices()
    except Exception as error:  # whatever keeps JAX from starting is the finding
        yield "devices", f"none: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        return
    kinds = dict.fromkeys((device.platform, device.device_kind) for device in found)
    for kind in kinds:
        same = [device for device in found if (device.platform, device.device_kind) == kind]
        yield "devices", f"{len(same)} x {kind[0]} ({kind[1]}){_device_memory(same[0])}"
    platforms = {device.platform for device in found}
    if shutil.which("nvidia-smi") and "gpu" not in platforms:
        yield (
            "unused",
            "an NVIDIA GPU is here; JAX needs its plugin: pip install 'musicssl_jax[cuda12]' (or cuda13)",
        )
    if _has_tpu() and "tpu" not in platforms:
        yield "unused", "a TPU seems to be here; JAX needs libtpu: pip install 'musicssl_jax[tpu]'"


def codecs() -> Iterator[tuple[str, str]]:
    """Audio files that can be read."""
    try:
        import soundfile
    except (ImportError, OSError) as error:
        yield "audio", f"none: {error}"
        return
    formats = soundfile.available_formats()
    wanted = [name for name in ("WAV", "FLAC", "MP3", "OGG", "AIFF") if name in formats]
    if "OPUS" in soundfile.available_subtypes("OGG"):
        wanted.append("OPUS")
    others = len(formats) - len(set(wanted) & formats.keys())
    av = ", M4A, AAC, WEBM (PyAV)" if importlib.util.find_spec("av") else ""
    yield (
        "audio",
        f"{', '.join(wanted)} and {others} more (libsndfile {soundfile.__libsndfile_version__}){av}",
    )


def missing() -> Iterator[tuple[str, str]]:
    """Optional packages that are not installed."""
    for package, (purpose, extra) in OPTIONAL.items():
        if importlib.util.find_spec(package) is None:
            yield "without", f"{package:13} {purpose}: pip install 'musicssl_jax[{extra}]'"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _device_memory(device) -> str:
    limit = (device.memory_stats() or {}).get("bytes_limit")
    return f", {limit / GIB:.1f} GiB each" if limit else ""


def _has_tpu() -> bool:
    return "TPU_NAME" in os.environ or bool([*Path("/dev").glob("accel[0-9]*"), *Path("/dev").glob("vfio/[0-9]*")])


if __name__ == "__main__":
    sys.exit(run_command(main))
