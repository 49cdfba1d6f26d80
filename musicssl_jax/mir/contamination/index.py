"""The index of a collection: where in its tracks each landmark is. Built once, searched from the disk.

    DATA/fingerprints/v1-BUILD/00003-7c91d0aa.npy     a part: up to 25 h of tracks, 8 bytes a landmark, sorted

A landmark is (hash << 32 | place), place being its frame behind the part's first one. A part's name holds the CRC-32 of
its bytes, so that one that is damaged, or was never written to its end, is seen and made anew. Where DATA cannot be
written, `fingerprints` lies in the cache.
"""

import os
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from etils import epath
from tqdm import tqdm

from data_pipelines.pool import Died, WorkerPool
from data_pipelines.records import Collection, open_collection
from musicssl_jax.errors import UserError
from musicssl_jax.mir.contamination.landmarks import HOP, RATE, VERSION, fingerprint
from musicssl_jax.shapes import Int, Shaped
from musicssl_jax.training.data import cache_folder

PART_HOURS = 25.0
GAP = 512
"""Frames before each track: a stretch of audio that begins within them cannot be taken for the track before."""
PLACE_BITS = 32
_TIME_LIMIT = 600.0  # seconds that one track may take
_BAR = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f} of {total:.1f} h of audio [{elapsed}<{remaining}]"


class Part(NamedTuple):
    """Tracks [first, end) of a split, which lie behind each other from frame `frame` of the collection on."""

    split: str
    first: int
    end: int
    frame: int


@dataclass(frozen=True)
class Index:
    """Landmarks of a collection. slots[i]: the frame at which part i's tracks have their GAPs, and one past the last.

    Frames count through the whole collection: track n of part i takes frames slots[i][n] + GAP to slots[i][n + 1].
    """

    collection: Collection
    parts: tuple[Part, ...]
    slots: tuple[Int[np.ndarray, " _"], ...]
    landmarks: tuple[Shaped[np.ndarray, " _"], ...]

    def places(
        self, hashes: Int[np.ndarray, " n"], most: int
    ) -> tuple[Int[np.ndarray, " hits"], Int[np.ndarray, " hits"]]:
        """(i, frame of the collection) for the landmarks that equal hashes[i]: those of the rarest hashes, `most` in
        all, since a hash that is everywhere costs much and says little.
        """
        low = hashes.astype(np.uint64) << np.uint64(PLACE_BITS)
        ends = [np.searchsorted(part, (low, low + np.uint64(1 << PLACE_BITS))) for part in self.landmarks]
        counts = np.array([end - begin for begin, end in ends]).sum(axis=0)
        rarest = np.argsort(counts, kind="stable")
        taken = np.zeros(len(hashes), bool)
        taken[rarest[np.cumsum(counts[rarest]) <= most]] = True
        found = [_ranges(begin, np.where(taken, end, begin)) for begin, end in ends]
        frames = [
            (landmarks[rows] & np.uint64((1 << PLACE_BITS) - 1)).astype(np.int64) + part.frame
            for part, landmarks, (_, rows) in zip(self.parts, self.landmarks, found, strict=True)
        ]
        return np.concatenate([which for which, _ in found]), np.concatenate(frames)

    def locate(self, frame: int) -> tuple[str, int, int]:
        """(split, track's number in it, frame of that track) of a frame of the collection; under 0 in its gap."""
        i = int(np.searchsorted([part.frame for part in self.parts], frame, side="right")) - 1
        n = int(np.searchsorted(self.slots[i], frame, side="right")) - 1
        return self.parts[i].split, self.parts[i].first + n, frame - int(self.slots[i][n]) - GAP


def ensure_index(folder: epath.PathLike, *, workers: int | None = None, progress: bool = True) -> Index:
    """The index of all splits of the collection in `folder`, built where it is missing; a stopped build goes on.

    workers: processes, default one a core. Raises UserError: no collection there, a damaged shard (by its name), no
    place to write.
    """
    collection = open_collection(folder)
    parts = tuple(_plan(collection))
    home = _writable_home(collection)
    found = {number: path for number in range(len(parts)) if (path := _whole_part(home, number))}
    missing = [number for number in range(len(parts)) if number not in found]
    if missing:
        found |= _build(collection, home, {n: parts[n] for n in missing}, workers or os.cpu_count() or 1, progress)
    return Index(
        collection,
        parts,
        tuple(_slots(collection, part) for part in parts),
        tuple(np.load(found[number], mmap_mode="r") for number in range(len(parts))),
    )


def write_part(folder: str, home: str, number: int, part: Part, progress: Callable[[float], None]) -> Path:
    """Fingerprints the part's tracks; a job of `WorkerPool`. `progress` is called with the hours that are done.

    Raises UserError: a damaged shard, or nothing can be written.
    """
    collection = open_collection(folder)
    split, lengths = collection.splits[part.split], collection.splits[part.split].tracks.lengths
    landmarks, hours = [np.zeros(0, np.uint64)], 0.0
    for track, slot in zip(range(part.first, part.end), _slots(collection, part), strict=False):
        pcm = np.empty(int(lengths[track]), np.int16)
        split.read(track, 0, pcm)
        hashes, times = fingerprint(pcm, collection.sample_rate)
        places = times.astype(np.uint64) + np.uint64(slot - part.frame + GAP)
        landmarks.append(hashes.astype(np.uint64) << np.uint64(PLACE_BITS) | places)
        hours += len(pcm) / collection.sample_rate / 3600
        progress(hours)
    return _write(Path(home), number, np.sort(np.concatenate(landmarks)))


def _ranges(
    begins: Int[np.ndarray, " n"], ends: Int[np.ndarray, " n"]
) -> tuple[Int[np.ndarray, " rows"], Int[np.ndarray, " rows"]]:
    """(i, row) for all rows in [begins[i], ends[i])."""
    counts = ends - begins
    which = np.repeat(np.arange(len(counts)), counts)
    return which, np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts) + begins[which]


def _plan(collection: Collection) -> Iterator[Part]:
    """Parts of up to PART_HOURS, in the order of the splits' names: the same for everyone who has the collection."""
    frame = 0
    for name, split in sorted(collection.splits.items()):
        limit = PART_HOURS * 3600 * collection.sample_rate
        ends = np.cumsum(split.tracks.lengths)
        first, taken = 0, 0
        while first < len(ends):
            end = max(first + 1, int(np.searchsorted(ends, taken + limit, side="right")))
            part = Part(name, first, end, frame)
            yield part
            frame = int(_slots(collection, part)[-1])
            first, taken = end, int(ends[end - 1])


def _slots(collection: Collection, part: Part) -> Int[np.ndarray, " tracks"]:
    lengths = collection.splits[part.split].tracks.lengths[part.first : part.end]
    frames = GAP + 1 + lengths * RATE // (collection.sample_rate * HOP)
    return part.frame + np.concatenate([[0], np.cumsum(frames)])


def _writable_home(collection: Collection) -> Path:
    """The folder of the parts. UserError: neither beside the data nor in the cache can it be made."""
    name = f"v{VERSION}-{collection.build_id[:16]}"
    beside = Path(os.fspath(collection.folder)) / "fingerprints" / name
    for home in (beside, cache_folder() / "fingerprints" / name):
        if "://" in str(collection.folder) and home == beside:
            continue
        with suppress(OSError):
            home.mkdir(parents=True, exist_ok=True)
            if os.access(home, os.W_OK) or any(home.glob("*.npy")):
                return home
    raise UserError(f"cannot write the fingerprints of {collection.folder}, neither there nor to {cache_folder()}")


def _whole_part(home: Path, number: int) -> Path | None:
    """The part's file, if it is as it was written. Others of its number are removed."""
    for path in sorted(home.glob(f"{number:05d}-*.npy")):
        if path.stem == f"{number:05d}-{_crc(path):08x}":
            return path
        print(f"{path} is damaged: it is made anew", file=sys.stderr)
        path.unlink()
    return None


def _build(collection: Collection, home: Path, parts: dict[int, Part], workers: int, progress: bool) -> dict[int, Path]:
    """Writes the parts in processes. Those of runs before this one that never ended are removed."""
    hours = {n: _hours(collection, part) for n, part in parts.items()}
    done: dict[object, float] = {}
    found: dict[int, Path] = {}
    with tqdm(total=sum(hours.values()), desc="fingerprints", bar_format=_BAR, disable=not progress) as bar:

        def show(number: object, amount: float) -> None:
            bar.update(amount - done.get(number, 0.0))
            done[number] = amount

        with WorkerPool(min(workers, len(parts)), _TIME_LIMIT, show) as pool:
            for number, part in parts.items():
                pool.submit(number, write_part, str(collection.folder), str(home), number, part)
            while pool.busy:
                key, path = pool.next()
                if isinstance(path, Died):
                    raise UserError(f"fingerprints of {collection.folder}: {path.detail}; the same command goes on")
                assert isinstance(key, int)
                show(key, hours[key])
                found[key] = path
    return found


def _hours(collection: Collection, part: Part) -> float:
    lengths = collection.splits[part.split].tracks.lengths[part.first : part.end]
    return float(lengths.sum()) / collection.sample_rate / 3600


def _write(home: Path, number: int, landmarks: Shaped[np.ndarray, " landmarks"]) -> Path:
    unfinished = home / f"unfinished-{number:05d}-{os.getpid()}"
    try:
        with unfinished.open("wb") as file:
            np.save(file, landmarks)
            file.flush()
            os.fsync(file.fileno())
        path = home / f"{number:05d}-{_crc(unfinished):08x}.npy"
        unfinished.replace(path)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise UserError(
            f"cannot write fingerprints to {home} ({error.strerror}): make room or permit writing"
        ) from None
    for leftover in home.glob(f"unfinished-{number:05d}-*"):
        leftover.unlink(missing_ok=True)
    return path


def _crc(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            crc = zlib.crc32(block, crc)
    return crc
