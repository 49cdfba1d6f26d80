"""A data set in numbered part files in OUT/data, to which several commands may add.

A part is written under a hidden name and gets its number when it is complete. OUT/data/.PART.json lists its tracks.
"""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from musicssl_jax.embedding.shared_folder import SharedFolder, make_folder, write_whole
from musicssl_jax.embedding.spool import Spool
from musicssl_jax.errors import UserError
from musicssl_jax.shapes import Float

PART_BYTES = 256 << 20
PART_SECONDS = 300  # what a kill may cost


@runtime_checkable
class OpenPart(Protocol):
    """A part that is being written. `content`: what the list of parts says of it besides its tracks."""

    def write(self, track: str, spool: Spool, bounds: Float[np.ndarray, "n 2"]) -> None: ...

    def close(self) -> Mapping[str, Any]: ...


@runtime_checkable
class Kind(Protocol):
    """A file format. `published` is called with all parts' descriptions when there is a new one."""

    def name(self, number: int) -> str: ...

    def open(self, path: Path) -> OpenPart: ...

    def published(self, folder: Path, parts: list[dict[str, Any]]) -> None: ...


class Parts:
    """Writes tracks into parts of about 256 MB, or of what comes in 5 minutes."""

    def __init__(self, folder: SharedFolder, kind: Kind):
        self._shared, self._kind = folder, kind
        self._folder = folder.path / "data"
        make_folder(self._folder)
        self._part: OpenPart | None = None
        self._known: dict[str, list[str]] = {}
        self.bytes_written = 0
        if folder.alone and (old := [path for path in self._lists() if not folder.counts(path)]):
            raise UserError(
                f"{self._folder} holds {len(old)} parts of an earlier command: go on with --skip_existing, or choose "
                "another --output"
            )

    def done(self, track: str) -> bool:
        """Whether its features are in a part that counts."""
        for path in self._lists():
            if path.name not in self._known and self._shared.counts(path):
                self._known[path.name] = json.loads(path.read_text())["tracks"]
                self._done = {name for names in self._known.values() for name in names}
        return bool(self._known) and track in self._done

    def write(self, track: str, spool: Spool, bounds: Float[np.ndarray, "n 2"]) -> list[str]:
        """Adds a track's features; returns the tracks that are safe on the disk now. Raises OSError."""
        if self._part is None:
            self._path = self._folder / f".{os.uname().nodename}-{os.getpid()}.partial"
            self._part, self._tracks, self._bytes = self._kind.open(self._path), [], 0
            self._began = time.monotonic()
        self._part.write(track, spool, bounds)
        self._tracks.append(track)
        self._bytes += spool.nbytes  # what has reached the disk is less
        full = self._bytes >= PART_BYTES or time.monotonic() - self._began >= PART_SECONDS
        return self.close() if full else []

    def close(self) -> list[str]:
        """Completes the part that is open; returns its tracks."""
        if self._part is None:
            return []
        part, self._part = self._part, None
        description = {"tracks": self._tracks, **part.close()}
        self.bytes_written += self._path.stat().st_size
        with self._shared.publishing():
            lists = self._lists()
            name = self._kind.name(len(lists))
            self._path.replace(self._folder / name)
            write_whole(self._folder / f".{name}.json", json.dumps(description))
            parts = [json.loads(path.read_text()) for path in [*lists, self._folder / f".{name}.json"]]
            self._kind.published(self._folder, parts)
        return self._tracks

    def _lists(self) -> list[Path]:
        names = (entry.name for entry in os.scandir(self._folder))
        return sorted(self._folder / name for name in names if name.startswith(".") and name.endswith(".json"))
