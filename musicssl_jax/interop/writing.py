"""Folders that are there whole, or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from musicssl_jax.errors import UserError


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A new folder to write into, which gets its name at the end; if anything fails, nothing of it is left.

    UserError: it cannot be made or written.
    """
    from safetensors import SafetensorError

    unfinished = folder.with_name(f".{folder.name}.unfinished")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        yield unfinished
        os.replace(unfinished, folder)
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"cannot write {folder}: {reason}; give another --output") from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
