"""Folders in Google Cloud Storage (gs://BUCKET/...; extra `gcs`), which paths of data, runs and checkpoints may name.

Readers take them as they are. Files that grow, as a run's metrics do, cannot lie in an object store: a run writes them
to a local folder, which is copied there whenever a checkpoint is saved.
"""

import importlib.util
import os
import threading
from collections.abc import Callable, Sequence

from etils import epath

from musicssl_jax.errors import UserError

PATIENCE_SECONDS = 25.0


def is_remote(path: str | os.PathLike) -> bool:
    """Whether it names an object store."""
    return "://" in os.fspath(path)


def absolute(path: str | os.PathLike) -> epath.Path:
    """The whole path, links followed; of an object store as it is, since `resolve` takes it for a local one."""
    return epath.Path(path) if is_remote(path) else epath.Path(path).expanduser().resolve()


def reach(path: str, *, write: bool = False) -> epath.Path:
    """The folder `path`, which need not exist; one in an object store has been reached, and written to if `write`.

    Raises UserError, after 25 s at most: another store than gs://, a package that it needs is missing, the store does
    not answer, there is no such bucket, or access is denied.
    """
    if not is_remote(path):
        return absolute(path)
    if not path.startswith("gs://"):
        raise UserError(f"{path}: of object stores only Google Cloud Storage is supported, gs://BUCKET/FOLDER")
    if importlib.util.find_spec("gcsfs") is None:
        raise UserError(f"{path}: reading Google Cloud Storage needs pip install 'musicssl_jax[gcs]'")
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # it asks for the kind of each bucket
    _within(PATIENCE_SECONDS, path, lambda: _write_to(path) if write else _look_into(path))
    return absolute(path)


def _look_into(path: str) -> None:
    next(epath.Path(path).glob("*"), None)


def _write_to(path: str) -> None:
    probe = epath.Path(path) / ".reached"
    probe.write_text("")
    probe.unlink()


def _within(seconds: float, path: str, act: Callable[[], None]) -> None:
    """Runs `act`, whose library tries for minutes. UserError: it failed, or is not done by then."""
    failures: list[Exception] = []

    def run() -> None:
        try:
            act()
        except Exception as error:
            failures.append(error)

    worker = threading.Thread(target=run, daemon=True)
    worker.start()
    worker.join(seconds)
    if worker.is_alive():
        raise UserError(
            f"{path}: Google Cloud Storage has not answered for {seconds:.0f} s; look at the network and at the "
            "credentials (gcloud auth application-default login)"
        )
    if failures:
        reason = " ".join(str(failures[0]).split()) or type(failures[0]).__name__
        raise UserError(
            f"{path} cannot be reached ({reason}); look at the bucket's name, at who may use it, and at the "
            "credentials (gcloud auth application-default login)"
        ) from failures[0]


def copy_files(source: epath.PathLike, to: epath.PathLike, *, without: Sequence[str] = ()) -> None:
    """Copies a folder's files, over those of the same names.

    Left out are hidden ones, and entries of the folder itself that are named in `without`.

    Raises OSError, or what the store's client raises.
    """
    source, to = epath.Path(source), epath.Path(to)
    for entry in source.iterdir() if source.is_dir() else ():
        if entry.name.startswith(".") or entry.name in without:
            continue
        if entry.is_dir():
            copy_files(entry, to / entry.name)
        else:
            to.mkdir(parents=True, exist_ok=True)
            (to / entry.name).write_bytes(entry.read_bytes())
