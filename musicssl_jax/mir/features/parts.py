"""Records of recordings in numbered part files, each of which has a list of what is in it and its checksum.

    FOLDER/part-000-00000.array_record     a record for every recording: a tf.Example of byte strings
           part-000-00000.json             its recordings, size and SHA-256; written last: without it the part is not

The first number is that of the process which wrote it.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from data_pipelines.tf_example import decode_bytes, encode_bytes
from musicssl_jax.embedding.shared_folder import write_whole
from musicssl_jax.errors import UserError
from musicssl_jax.mir.features.recordings import Source

PART_BYTES = 256 << 20
PART_SECONDS = 300  # what a kill may cost

_WRITER_OPTIONS = "group_size:1,uncompressed"
_READER_OPTIONS = "readahead_buffer_size:0"
_READ_AT_ONCE = 16 << 20  # bytes


class Entry(NamedTuple):
    """Where a recording's record is. source: size and time of what it was made of. rows: of features."""

    part: str
    record: int
    source: Source
    rows: int


class Parts:
    """The complete parts in a folder, which need not exist. `entries`: by recording; the newest counts."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.entries: dict[str, Entry] = {}
        self._sizes: dict[str, int] = {}
        for path in sorted(folder.glob("part-*.json"), key=lambda path: (path.stat().st_mtime_ns, path.name)):
            content = json.loads(path.read_text())
            self._sizes[path.stem] = content["bytes"] // max(1, len(content["recordings"]))
            for record, (recording, size, time_ns, rows) in enumerate(content["recordings"]):
                self.entries[recording] = Entry(path.stem, record, (size, time_ns), rows)

    def read(self, recordings: Iterable[str]) -> Iterator[tuple[str, dict[str, memoryview]]]:
        """The records of these recordings, in the order in which they lie on the disk.

        Raises UserError naming the part where its bytes are damaged.
        """
        ordered = sorted(recordings, key=lambda recording: self.entries[recording][:2])
        by_part: dict[str, list[str]] = {}
        for recording in ordered:
            by_part.setdefault(self.entries[recording].part, []).append(recording)
        for part, of_part in by_part.items():
            step = max(1, _READ_AT_ONCE // max(1, self._sizes[part]))
            path = self.folder / f"{part}.array_record"
            try:
                reader = ArrayRecordReader(os.fspath(path), _READER_OPTIONS)
                for first in range(0, len(of_part), step):
                    some = of_part[first : first + step]
                    records = reader.read([self.entries[recording].record for recording in some])
                    yield from zip(some, map(decode_bytes, records), strict=True)
                reader.close()
            except (RuntimeError, ValueError, OSError, IndexError) as error:
                raise UserError(f"{path} is damaged ({error}): the same command again makes it anew") from error


def remove_damaged(folder: Path) -> list[Path]:
    """Checks the bytes of every part and removes those that are not what was written, and what a kill left behind.

    Returns the files of damaged parts. A part of which the list is damaged is one.
    """
    for left in [*folder.glob(".*.partial"), *folder.glob("part-*.array_record")]:
        if left.suffix == ".partial" or not left.with_suffix(".json").exists():
            left.unlink()
    lists = sorted(folder.glob("part-*.json"))
    with ThreadPoolExecutor() as threads:
        damaged = [path for path, whole in zip(lists, threads.map(_is_whole, lists), strict=True) if not whole]
    for path in damaged:
        path.unlink()
        path.with_suffix(".array_record").unlink(missing_ok=True)
    return [path.with_suffix(".array_record") for path in damaged]


def _is_whole(path: Path) -> bool:
    records = path.with_suffix(".array_record")
    try:
        content = json.loads(path.read_text())
        if records.stat().st_size != content["bytes"]:
            return False
        with records.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == content["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


class PartWriter:
    """Adds records to a folder of parts; what is not closed is lost. Raises UserError where it cannot write."""

    def __init__(self, folder: Path, process: int):
        self._folder, self._process = folder, process
        self._writer: Any = None

    def write(self, recording: str, source: Source, rows: int, fields: Mapping[str, bytes]) -> None:
        record = encode_bytes({"id": recording.encode(), **fields})
        try:
            if self._writer is None:
                self._open()
            self._writer.write(record)
        except (OSError, RuntimeError, ValueError) as error:  # what its C++ code makes of a full disk
            raise self._cannot_write(error) from error
        self._recordings.append((recording, *source, rows))
        self._bytes += len(record)

    @property
    def full(self) -> bool:
        """Whether the open part is to be closed: it has PART_BYTES, or is open for PART_SECONDS."""
        opened = self._writer is not None
        return opened and (self._bytes >= PART_BYTES or time.monotonic() - self._began >= PART_SECONDS)

    def close(self) -> None:
        """Completes the part that is open, if one is."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        try:
            writer.close()
            with self._partial.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            content = {"bytes": self._partial.stat().st_size, "sha256": digest, "recordings": self._recordings}
            path = self._folder / f"{self._name}.array_record"
            self._partial.replace(path)
            write_whole(path.with_suffix(".json"), json.dumps(content))
        except (OSError, RuntimeError, ValueError) as error:
            raise self._cannot_write(error) from error

    def discard(self) -> None:
        """Forgets the part that is open."""
        if self._writer is not None:
            self._writer = None
            self._partial.unlink(missing_ok=True)

    def _open(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        prefix = f"part-{self._process:03d}-"
        numbers = [int(path.stem.removeprefix(prefix)) for path in self._folder.glob(f"{prefix}*.json")]
        self._name = f"{prefix}{max(numbers, default=-1) + 1:05d}"
        self._partial = self._folder / f".{self._name}.partial"
        self._writer = ArrayRecordWriter(os.fspath(self._partial), _WRITER_OPTIONS)
        self._recordings: list[tuple[str, int, int, int]] = []
        self._bytes, self._began = 0, time.monotonic()

    def _cannot_write(self, error: Exception) -> UserError:
        self.discard()
        return UserError(f"cannot write features to {self._folder} ({error}): when it can, the same command goes on")
