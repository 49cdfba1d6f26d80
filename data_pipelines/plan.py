"""From decoded tracks to shards: which are duplicates, which split each goes to, what a shard holds.

All of it is a function of the outcomes taken in `arrange`'s order, never of who finished first, and it
works on a stream: a part comes out as soon as its tracks are known. The local build and the Beam pipeline
both use it.
"""

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from data_pipelines.audio_files import Rejected
from data_pipelines.decode import Decoded, Limits
from data_pipelines.sources import Source

Grouping = Literal["track", "album"]


@dataclass(frozen=True)
class Settings:
    """What decides a collection's content beside its files.

    record_seconds: length of a record; shard_megabytes: PCM in a shard, at most; valid_fraction: expected
    share of tracks (albums, with split_by="album") held out for validation.
    """

    sample_rate: int = 16000
    record_seconds: float = 4.0
    shard_megabytes: float = 256.0
    split_by: Grouping = "track"
    valid_fraction: float = 0.01
    seed: int = 0
    limits: Limits = field(default_factory=Limits)

    @property
    def shard_bytes(self) -> int:
        return round(self.shard_megabytes * 1e6)

    @property
    def record_samples(self) -> int:
        return round(self.record_seconds * self.sample_rate)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Track:
    """A track that goes into the collection."""

    source: Source
    audio: Decoded


@dataclass(frozen=True)
class PartPlan:
    """Whole tracks that one worker writes, in order: a shard, or several where one track is longer than
    that.
    """

    split: str
    index: int
    tracks: tuple[Track, ...]

    @property
    def name(self) -> str:
        return f"{self.split}-{self.index:05d}"


def arrange(sources: Iterable[Source], settings: Settings) -> list[Source]:
    """By hash of the group (track or album), then of the track: the order of the records."""

    def key(source: Source) -> tuple[float, str, float, str]:
        group = group_of(source, settings)
        return _fraction(group, settings.seed), group, _fraction(source.track, settings.seed), source.track

    return sorted(sources, key=key)


def group_of(source: Source, settings: Settings) -> str:
    """What is kept on one side of the split."""
    return source.album if settings.split_by == "album" else source.track


def drop_duplicates(
    tracks: Iterable[Track], found: Callable[[Source, Source], None] = lambda copy, original: None
) -> Iterator[Track]:
    """The first of all tracks with the same PCM; `found` is told each copy and its original."""
    originals: dict[str, Source] = {}
    for track in tracks:
        original = originals.setdefault(track.audio.digest, track.source)
        if original is track.source:
            yield track
        else:
            found(track.source, original)


def assign_splits(tracks: Iterable[Track], settings: Settings) -> Iterator[tuple[str, Track]]:
    """(split, track), validation first.

    A group is held out if its hash is under `valid_fraction`, so that it stays where it is when others come
    or go. Small collections still get both splits: of two groups or more, the one of the lowest hash is
    held out in any case (unless `valid_fraction` is 0) and the one of the highest is not; a single group
    trains.
    """
    groups = itertools.groupby(tracks, key=lambda track: group_of(track.source, settings))
    waiting: list[Track] = []  # one group behind, to know the last
    first = True
    for _, members in groups:
        if waiting:
            drawn = _fraction(group_of(waiting[0].source, settings), settings.seed) < settings.valid_fraction
            held_out = drawn or (first and settings.valid_fraction > 0)
            yield from (("valid" if held_out else "train", track) for track in waiting)
            first = False
        waiting = list(members)
    yield from (("train", track) for track in waiting)


def cut_parts(placed: Iterable[tuple[str, Track]], settings: Settings) -> Iterator[PartPlan]:
    """As many tracks to a part as `shard_megabytes` hold, one at least."""
    for split, members in itertools.groupby(placed, key=lambda pair: pair[0]):
        index, used = 0, 0
        tracks: list[Track] = []
        for _, track in members:
            size = 2 * track.audio.samples
            if tracks and used + size > settings.shard_bytes:
                yield PartPlan(split, index, tuple(tracks))
                index, used, tracks = index + 1, 0, []
            used += size
            tracks.append(track)
        yield PartPlan(split, index, tuple(tracks))


def plan_parts(
    outcomes: Iterable[tuple[Source, Decoded | Rejected]],
    settings: Settings,
    found_duplicate: Callable[[Source, Source], None] = lambda copy, original: None,
) -> Iterator[PartPlan]:
    """The parts of the collection, from the outcomes in `arrange`'s order."""
    tracks = (Track(source, audio) for source, audio in outcomes if isinstance(audio, Decoded))
    return cut_parts(assign_splits(drop_duplicates(tracks, found_duplicate), settings), settings)


def _fraction(name: str, seed: int) -> float:
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56
