"""An output folder that several commands may fill at once: who does what, what is done, what was rejected.

Claims are POSIX record locks, one byte a track, on OUT/.lock: the system drops them when a process ends, however it
ends, also on NFS. On a file system without locks every command believes that it is alone.
"""

import errno
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from musicssl_jax.errors import UserError

SETTINGS = "embedding.json"
REJECTS = "rejects.jsonl"
_AT_WORK, _PUBLISHING = 0, 1  # bytes of the lock file; tracks have those from 2 on


class SharedFolder:
    """The folder while a command is at work in it; a context manager.

    settings: how features are made, kept in OUT/embedding.json. skip_existing: whether features of earlier commands
    count as done. Those of commands that are at work at the same time always do.
    `alone`: no other command was at work when this one came.
    Raises UserError: it cannot be written, or holds features of other settings.
    """

    alone: bool

    def __init__(self, path: Path, settings: Mapping[str, Any], *, skip_existing: bool):
        self.path = path
        self._settings = json.loads(json.dumps(settings))
        self._skip_existing = skip_existing
        self._rejects_read = -1

    def __enter__(self) -> "SharedFolder":
        make_folder(self.path)
        self._file = (self.path / ".lock").open("a+")
        self.alone = self._lock(fcntl.LOCK_EX | fcntl.LOCK_NB, _AT_WORK)
        try:
            self._enter()
        except BaseException:
            self._file.close()
            raise
        return self

    def _enter(self) -> None:
        if not self.alone:  # the one that is at work has first to say how
            self._lock(fcntl.LOCK_SH, _AT_WORK)
        self._check_settings()
        if self.alone:
            os.utime(self._file.name)  # what is newer than this was made by commands that are at work now
            (self.path / REJECTS).unlink(missing_ok=True)
            write_whole(self.path / SETTINGS, json.dumps(self._settings, indent=2) + "\n")
        self._since = os.stat(self._file.name).st_mtime_ns
        self._lock(fcntl.LOCK_SH, _AT_WORK)

    def __exit__(self, *_: object) -> None:
        self._file.close()  # and with it all locks

    def claim(self, track: str) -> bool:
        """Whether this track is now ours to do; False: another command is at it."""
        return self._lock(fcntl.LOCK_EX | fcntl.LOCK_NB, _byte_of(track))

    def release(self, tracks: Iterable[str]) -> None:
        for track in tracks:
            self._lock(fcntl.LOCK_UN, _byte_of(track))

    def publishing(self) -> "_Publishing":
        """A context in which no other command publishes."""
        return _Publishing(self)

    def counts(self, path: Path) -> bool:
        """Whether what is in this file need not be made again."""
        try:
            newer = path.stat().st_mtime_ns >= self._since
        except FileNotFoundError:
            return False
        return newer or self._skip_existing

    def reject(self, row: Mapping[str, str]) -> None:
        """Adds a line to rejects.jsonl. Its track stays claimed."""
        with (self.path / REJECTS).open("a") as file:  # a line at a time: those of other commands stay whole
            file.write(json.dumps(row) + "\n")

    def rejected(self) -> set[str]:
        """The files that rejects.jsonl names."""
        try:
            size = (self.path / REJECTS).stat().st_size
        except FileNotFoundError:
            return set()
        if size != self._rejects_read:
            lines = (self.path / REJECTS).read_text().splitlines(keepends=True)
            self._rejected = {json.loads(line)["file"] for line in lines if line.endswith("\n")}
            self._rejects_read = size
        return self._rejected

    def _check_settings(self) -> None:
        try:
            theirs = json.loads((self.path / SETTINGS).read_text())
        except (OSError, ValueError):
            return
        for name in self._settings.keys() - {"checkpoint"}:  # by which people know it; what counts is its digest
            if theirs.get(name) != self._settings[name]:
                raise UserError(
                    f"{self.path} holds features with {name}={theirs.get(name)}, and this command asks for "
                    f"{name}={self._settings[name]}: choose another --output"
                )

    def _lock(self, operation: int, byte: int) -> bool:
        try:
            fcntl.lockf(self._file, operation, 1, byte)
        except OSError as error:
            return error.errno not in (errno.EACCES, errno.EAGAIN)  # others: there are no locks here
        return True


class _Publishing:
    def __init__(self, folder: SharedFolder):
        self._folder = folder

    def __enter__(self) -> None:
        self._folder._lock(fcntl.LOCK_EX, _PUBLISHING)

    def __exit__(self, *_: object) -> None:
        self._folder._lock(fcntl.LOCK_UN, _PUBLISHING)


def _byte_of(track: str) -> int:
    return 2 + int.from_bytes(hashlib.sha256(track.encode()).digest()[:7])


def make_folder(folder: Path, flag: str = "--output") -> None:
    """Raises UserError, which names the flag that the folder is of, where files cannot be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{flag}={folder} cannot be written: {error.strerror}") from None


def write_whole(path: Path, text: str) -> None:
    """Replaces the file at once."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text)
    partial.replace(path)
