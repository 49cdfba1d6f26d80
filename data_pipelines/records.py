"""A collection: PCM16 records in ArrayRecord shards that also form a valid TFDS data set.

    FOLDER/music-train.array_record-00000-of-00012   shards, `group_size:1,uncompressed`
           tracks-train.npz                          index: id, length, mean, std of every track, in order
           collection.json                           what is here; written last: without it nothing is
           dataset_info.json, features.json          what TFDS reads

Records of a track follow one another (also into the next shard); all but its last hold `record_samples`.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter
from etils import epath

from data_pipelines.tf_example import SAMPLE_BYTES, Header, decode_header, encode_header
from data_pipelines.tfds_metadata import tfds_files
from data_pipelines.track_index import Tracks, pack_tracks, read_tracks, tracks_of
from musicssl_jax.errors import UserError
from musicssl_jax.shapes import Int, Int16

VERSION = 1
# TFDS's own writer always compresses, which saves a tenth of the space of PCM and reads 2 to 5 times slower.
WRITER_OPTIONS = "group_size:1,uncompressed"
_NAME = "music"
_FORMAT = "musicssl records"


class Shard(NamedTuple):
    """One file: its size in bytes and the SHA-256 of its records, one after the other."""

    file: str
    records: int
    bytes: int
    sha256: str


class Part(NamedTuple):
    """What one RecordWriter wrote: shards under temporary names, headers of the tracks that begin in them.

    Plain values, so that it can be kept as JSON. `write_metadata` joins parts in the order given.
    """

    shards: list[Shard]
    tracks: list[Header]


class RecordWriter:
    """Writes records in track order to shards of about `shard_bytes`, under temporary names.

    `part` tells apart the writers of one split that share a folder; a part may begin and end within a track.
    After the `with` block `.part` is what `write_metadata` needs; an exception inside it removes the files.
    Raises UserError where the folder cannot be written.
    """

    part: Part

    def __init__(self, folder: epath.PathLike, split: str, *, shard_bytes: int = 256 << 20, part: str = "0"):
        self._folder = epath.Path(folder)
        self._stem = f"partial-{split}-{part}"
        self._shard_bytes = shard_bytes
        self._shards: list[Shard] = []
        self._tracks: list[Header] = []
        self._expected: tuple[str, int] | None = None  # the track and start that must come next; None: any
        self._writer: Any = None

    def __enter__(self):
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _cannot_write(self._folder, error) from error
        return self

    def write(self, record: bytes) -> None:
        """Adds the record; ValueError if it neither continues the track of the one before nor begins one."""
        header, samples = decode_header(record)
        if self._expected not in (None, (header.track, header.start)):
            raise ValueError(f"the record after {self._expected} is {header.track}, {header.start}")
        self._append(record)
        if header.start == 0:
            self._tracks.append(header)
        end = header.start + samples
        self._expected = (header.track, end) if end < header.track_length else None

    def _append(self, record: bytes) -> None:
        try:
            if self._writer is None:
                self._open_shard()
            self._writer.write(record)
        except (OSError, RuntimeError, ValueError) as error:
            raise _cannot_write(self._path, error) from error
        self._digest.update(record)
        self._records += 1
        self._bytes += len(record)
        if self._bytes >= self._shard_bytes:
            self._close_shard()

    def __exit__(self, exception_type, *_):
        if exception_type is None:
            self._close_shard()
            self.part = Part(self._shards, self._tracks)
        else:
            self._discard()

    def _open_shard(self) -> None:
        self._path = self._folder / f"{self._stem}-{len(self._shards):05d}"
        self._writer = ArrayRecordWriter(os.fspath(self._path), WRITER_OPTIONS)
        self._digest = hashlib.sha256()
        self._records = self._bytes = 0

    def _close_shard(self) -> None:
        if self._writer is None:
            return
        try:
            self._writer.close()
            size = self._path.stat().length
        except (OSError, RuntimeError, ValueError) as error:
            self._discard()
            raise _cannot_write(self._path, error) from error
        self._shards.append(Shard(self._path.name, self._records, size, self._digest.hexdigest()))
        self._writer = None

    def _discard(self) -> None:
        with suppress(OSError, RuntimeError, ValueError):  # a full disk fails here a second time
            if self._writer is not None:
                self._writer.close()
        for path in self._folder.glob(f"{self._stem}-*"):
            path.unlink(missing_ok=True)


def write_metadata(
    folder: epath.PathLike,
    *,
    sample_rate: int,
    record_samples: int,
    splits: Mapping[str, Sequence[Part]],
    build: Mapping[str, Any],
) -> None:
    """Gives the shards their final names and writes all that makes `folder` a collection and a TFDS data set.

    `splits` holds the parts of each split in the order of their records; `build` is kept for people to read.
    """
    folder = epath.Path(folder)
    (folder / "collection.json").unlink(missing_ok=True)
    shards = {split: _publish(folder, split, parts) for split, parts in splits.items()}
    tracks = {split: tracks_of([track for part in parts for track in part.tracks]) for split, parts in splits.items()}
    for split in splits:
        (folder / f"tracks-{split}.npz").write_bytes(pack_tracks(tracks[split]))
    for name, content in tfds_files(
        _NAME, f"{VERSION}.0.0", {split: [(s.records, s.bytes) for s in of] for split, of in shards.items()}
    ).items():
        _write_json(folder / name, content)
    content = {"sample_rate": sample_rate, "record_samples": record_samples, "sha256": _digests(shards)}
    collection = {
        "format": _FORMAT,
        "version": VERSION,
        "sample_rate": sample_rate,
        "record_samples": record_samples,
        "build_id": hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest(),
        "splits": {
            split: {
                "tracks": len(tracks[split].ids),
                "hours": round(float(tracks[split].lengths.sum()) / sample_rate / 3600, 4),
                "shards": [shard._asdict() for shard in shards[split]],
            }
            for split in splits
        },
        "build": dict(build),
    }
    partial = folder / "partial-collection.json"
    _write_json(partial, collection)
    partial.replace(folder / "collection.json")


@dataclass(frozen=True)
class Split:
    """Tracks and shards of one split, and reading from them; safe to use from several threads."""

    folder: epath.Path
    record_samples: int
    shards: list[Shard]
    tracks: Tracks
    _first_records: Int[np.ndarray, " tracks"] = field(init=False)
    _shard_ends: list[int] = field(init=False)

    def __post_init__(self):
        counts = -(-self.tracks.lengths // self.record_samples)
        object.__setattr__(self, "_first_records", np.cumsum(counts) - counts)
        object.__setattr__(self, "_shard_ends", list(accumulate(shard.records for shard in self.shards)))

    @cached_property
    def _source(self) -> ArrayRecordDataSource:
        # With the range in its name a shard is not opened before it is read.
        return ArrayRecordDataSource([f"{self.folder / shard.file}[0:{shard.records}]" for shard in self.shards])

    def read(self, track: int, start: int, out: Int16[np.ndarray, " n"]) -> None:
        """Fills `out` with the samples of track number `track` from sample `start` on, all within the track.

        Raises UserError naming shard and record where the stored bytes are damaged or belong elsewhere.
        """
        size, length = self.record_samples, int(self.tracks.lengths[track])
        filled = 0
        while filled < len(out):
            number, skip = divmod(start + filled, size)
            samples = min(size, length - number * size)
            take = min(samples - skip, len(out) - filled)
            record = self._record(track, number, samples)
            begin = len(record) - (samples - skip) * SAMPLE_BYTES
            out[filled : filled + take] = np.frombuffer(record, "<i2", take, begin)
            filled += take

    def _record(self, track: int, number: int, samples: int) -> bytes:
        """Record `number` of the track, which holds `samples` samples, proven to be it."""
        tracks = self.tracks
        index = int(self._first_records[track]) + number
        try:
            record = self._source[index]
        except (RuntimeError, ValueError, OSError, IndexError) as error:  # chunks carry hashes
            raise self._damaged(index, str(error).split(" (")[0]) from error
        start, length = number * self.record_samples, int(tracks.lengths[track])
        header = Header(tracks.ids[track], start, length, float(tracks.means[track]), float(tracks.stds[track]))
        expected = encode_header(header, samples)
        if len(record) != len(expected) + samples * SAMPLE_BYTES or not record.startswith(expected):
            raise self._damaged(index, f"it is not sample {start} of track {header.track}")
        return record

    def _damaged(self, index: int, reason: str) -> UserError:
        shard = int(np.searchsorted(self._shard_ends, index, side="right"))
        position = index - (self._shard_ends[shard] - self.shards[shard].records)
        return UserError(
            f"record {position} of shard {self.folder / self.shards[shard].file} cannot be read ({reason}): "
            "the file is damaged; copy it again from its source or rebuild the collection"
        )


@dataclass(frozen=True)
class Collection:
    """A built data set. `fingerprint` tells whether two folders hold the same records."""

    folder: epath.Path
    sample_rate: int
    record_samples: int
    build_id: str
    splits: dict[str, Split]

    @property
    def fingerprint(self) -> dict[str, Any]:
        counts = {
            name: {"shards": len(split.shards), "records": split._shard_ends[-1] if split.shards else 0}
            for name, split in self.splits.items()
        }
        return {"build_id": self.build_id, "splits": counts}

    def hours(self, split: str) -> float:
        return float(self.splits[split].tracks.lengths.sum()) / self.sample_rate / 3600


def open_collection(folder: epath.PathLike, *, sample_rate: int | None = None) -> Collection:
    """The collection in `folder`; every shard's presence and size are checked (its bytes are when read).

    Raises UserError for a folder that is missing or no collection, another version, missing or damaged files,
    or another sample rate than the one asked for.
    """
    folder = epath.Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the output folder of data_pipelines.build")
    content = _read_collection_json(folder)
    if sample_rate not in (None, content["sample_rate"]):
        raise UserError(
            f"{folder} is sampled at {content['sample_rate']} Hz, not at {sample_rate}: rebuild it with "
            f"--sample_rate={sample_rate}, or set data.sample_rate"
        )
    try:
        splits = {name: _open_split(folder, name, content) for name in content["splits"]}
        return Collection(
            folder, int(content["sample_rate"]), int(content["record_samples"]), content["build_id"], splits
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / 'collection.json'} is damaged ({error!r}): copy it again or rebuild") from error


def _read_collection_json(folder: epath.Path) -> dict[str, Any]:
    path = folder / "collection.json"
    try:
        content = json.loads(path.read_text())
        kind, version, _ = content["format"], content["version"], content["sample_rate"]
    except FileNotFoundError:
        raise UserError(
            f"{folder} is not a built collection (no collection.json): build it with "
            "python -m data_pipelines.build, or build it again if that was interrupted"
        ) from None
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error!r}): copy it again or rebuild") from error
    if kind != _FORMAT or version != VERSION:
        raise UserError(
            f"{path} is of format {kind!r}, version {version!r}, and this program reads {_FORMAT!r}, version "
            f"{VERSION}: rebuild the collection with this program"
        )
    return content


def _open_split(folder: epath.Path, name: str, content: dict[str, Any]) -> Split:
    entry = content["splits"][name]
    shards = [Shard(**shard) for shard in entry["shards"]]
    check_sizes(folder, shards, "copy it again or rebuild the collection")
    tracks = read_tracks(folder / f"tracks-{name}.npz")
    split = Split(folder, int(content["record_samples"]), shards, tracks)
    records = int((-(-tracks.lengths // split.record_samples)).sum())
    if len(tracks.ids) != entry["tracks"] or records != sum(shard.records for shard in shards):
        raise UserError(
            f"{folder}: tracks-{name}.npz and collection.json disagree on the number of tracks or records: "
            "they are of different builds; copy them again or rebuild the collection"
        )
    return split


def check_sizes(folder: epath.Path, shards: Sequence[Shard], remedy: str) -> None:
    """UserError, which ends in the remedy: a shard is missing or has another size."""

    def size(shard: Shard) -> int | None:
        try:
            return (folder / shard.file).stat().length
        except FileNotFoundError:
            return None

    with ThreadPoolExecutor(32) as pool:  # an object store answers one request in 50 ms, and thousands at once
        sizes = list(pool.map(size, shards))
    for shard, found in zip(shards, sizes, strict=True):
        if found is None:
            raise UserError(f"shard {folder / shard.file} is missing: {remedy}")
        if found != shard.bytes:
            raise UserError(
                f"shard {folder / shard.file} has {found} bytes instead of {shard.bytes}: it is truncated or "
                f"of another build; {remedy}"
            )


def _publish(folder: epath.Path, split: str, parts: Sequence[Part]) -> list[Shard]:
    shards = [shard for part in parts for shard in part.shards]
    published = []
    for number, shard in enumerate(shards):
        name = f"{_NAME}-{split}.array_record-{number:05d}-of-{len(shards):05d}"
        partial = folder / shard.file
        if partial.exists() or not (folder / name).exists():  # else this was interrupted here before
            partial.replace(folder / name)
        published.append(shard._replace(file=name))
    return published


def _digests(shards: Mapping[str, Sequence[Shard]]) -> dict[str, list[str]]:
    return {split: [shard.sha256 for shard in of_split] for split, of_split in shards.items()}


def _write_json(path: epath.Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1))


def _cannot_write(path: epath.Path, error: Exception) -> UserError:
    return UserError(f"cannot write {path} ({str(error).splitlines()[0]}): is the disk full or read-only?")
