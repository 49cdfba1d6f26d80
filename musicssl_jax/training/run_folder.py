"""What a run leaves in its folder beside checkpoints and metrics."""

import atexit
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

import jax
import numpy as np
from etils import epath

from musicssl_jax import __version__
from musicssl_jax.errors import UserError
from musicssl_jax.object_store import copy_files, is_remote, reach
from musicssl_jax.parallel import make_mesh

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
EXAMPLE = "example.npz"
CHECKPOINTS = "checkpoints"
APART = (CHECKPOINTS, "codebooks")  # folders of a run that are written where it lies, not copied there


def open_run_folder(workdir: str | Path) -> tuple[Path, Callable[[], None]]:
    """(local folder to write to, function that brings what is in it to `workdir`), but for what is APART.

    The local folder is `workdir` itself or, where that lies in an object store, one beside it with a copy of its files,
    kept by the first process alone and removed when the process ends.
    Raises UserError: the folder cannot be made, reached or written; the function as well.
    """
    if not is_remote(workdir):
        _make_folder(Path(workdir))
        return Path(workdir), lambda: None
    there = reach(str(workdir), write=jax.process_index() == 0)
    here = Path(tempfile.mkdtemp(prefix="musicssl-"))
    atexit.register(shutil.rmtree, here, ignore_errors=True)
    if jax.process_index() != 0:
        return here, lambda: None

    def copy(source: epath.PathLike, to: epath.PathLike) -> None:
        try:
            copy_files(source, to, without=APART)
        except Exception as error:  # of the store's client
            raise UserError(f"cannot copy the run's files to or from {workdir}: {error}") from error

    copy(there, here)
    return here, lambda: copy(here, there)


def _make_folder(workdir: Path) -> None:
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the run's folder {workdir}: {error.strerror}; give another --workdir") from None
    if not os.access(workdir, os.W_OK):
        raise UserError(f"cannot write to the run's folder {workdir}; give another --workdir")


def save_config(workdir: Path, text: str) -> None:
    """Keeps the resolved config. UserError: it cannot be written."""
    with _written(workdir / "config.json") as file:
        file.write(text.encode())


def run_meta(config, collections: Sequence) -> dict[str, Any]:
    """What a checkpoint says of its run: resolved config, versions, the data's fingerprint and hours."""
    return {
        "config": config.to_dict(),
        "versions": package_versions(),
        "data": [collection.fingerprint for collection in collections],
        "hours": [round(collection.hours("train"), 4) for collection in collections],
    }


def package_versions() -> dict[str, str]:
    """Versions of what a checkpoint was made with."""
    versions = {name: version(name) for name in PACKAGES}
    return versions | {"python": platform.python_version(), "musicssl_jax": __version__}


def save_example(workdir: Path, objective, frozen: tuple, batch, step: int, config) -> None:
    """Keeps one clip of this process, its mask and its labels, which the report draws. UserError: it cannot be written.

    The other processes take no part.
    """
    frozen, batch = jax.tree.map(lambda leaf: leaf.addressable_data(0), (frozen, batch))
    with jax.set_mesh(make_mesh(1, 1, jax.local_devices()[:1])):
        rows = {name: values[0, :1] for name, values in batch.items()}
        example = jax.jit(objective.example)(frozen, rows, jax.random.fold_in(jax.random.key(config.seed), step))
    arrays: dict[str, Any] = {name: value[0] for name, value in jax.device_get(example).items()}
    with _written(workdir / EXAMPLE) as file:
        np.savez(file, **arrays, sample_rate=config.data.sample_rate)


@contextmanager
def _written(path: Path) -> Iterator[BinaryIO]:
    """A file that is there whole, or not at all."""
    unfinished = path.with_name(f".{path.name}")
    try:
        with unfinished.open("wb") as file:
            yield file
        unfinished.replace(path)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise UserError(
            f"cannot write to the run's folder {path.parent} ({error.strerror}): "
            "make room or permit writing, then run the same command again"
        ) from error
