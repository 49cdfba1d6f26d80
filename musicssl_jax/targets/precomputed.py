"""Labels of whole tracks in files, for targets that cost too much to be computed in every step.

    FOLDER/labels-train.array_record-00000-of-00003   shards, one record a track, in the order of the collection
           codebooks/0_mfcc39/                        what each set's labels are numbers of
           labels.json                                what is here; written last: without it nothing is

A record is a line of JSON, {"labels": ID, "track": ID, "frames": T, "sets": S}, and T * S little-endian uint16: the
label of frame t in set s is number t * S + s. Frame t is the encoder's that begins at sample hop * t of the track.
"""

import dataclasses
import hashlib
import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter
from etils import epath

from data_pipelines.crops import Place
from data_pipelines.records import WRITER_OPTIONS, Collection, Shard, check_sizes
from musicssl_jax import __version__
from musicssl_jax.errors import UserError, shortened
from musicssl_jax.shapes import Int, UInt16
from musicssl_jax.targets.codebook import Codebook, codebook_id, differences, files_within, misfit, read_codebooks
from musicssl_jax.targets.features import Features
from musicssl_jax.targets.filter_bank import FrameGrid

DESCRIPTION = "labels.json"
FORMAT = 1
MOST_CLUSTERS = (1 << 16) - 1  # numbers of 16 bits, but for the one that features of NaN are given
SHARD_BYTES = 8 << 20
"""Of labels in a shard, which is what an interrupted command does again: 22 hours of one set at 50 frames a second."""
REMEDY = "copy it again, or remove it and run `musicssl label` again"


class LabelSet(NamedTuple):
    """What the labels of one set are: numbers of the clusters of a codebook, known by its id."""

    name: str
    clusters: int
    codebook: str
    front_end: Mapping[str, Any]
    """`front_end_of` the features that were labelled."""


@dataclasses.dataclass(frozen=True)
class SplitLabels:
    """Labels of the tracks of a split; safe to read from several threads."""

    folder: epath.Path
    labels: str
    """Id of the labels that all shards have to be of."""
    sets: int
    tracks: Sequence[str]
    frames: Int[np.ndarray, " tracks"]
    shards: Sequence[tuple[str, int]]
    """File and number of records of each."""

    @cached_property
    def _source(self) -> ArrayRecordDataSource:
        return ArrayRecordDataSource([f"{self.folder / file}[0:{records}]" for file, records in self.shards])

    def header(self, track: int) -> dict[str, Any]:
        """What the record of track number `track` says before its labels."""
        return {
            "labels": self.labels,
            "track": self.tracks[track],
            "frames": int(self.frames[track]),
            "sets": self.sets,
        }

    def read(self, track: int) -> UInt16[np.ndarray, "T S"]:
        """Labels of all frames of track number `track`.

        Raises UserError naming shard and record where it is damaged, of another track or other labels, or short.
        """
        try:
            record = self._source[track]
        except (RuntimeError, ValueError, OSError, IndexError) as error:  # chunks carry hashes
            raise self._damaged(track, str(error).split(" (")[0]) from error
        expected = self.header(track)
        line, _, labels = record.partition(b"\n")
        if line != _line(expected):
            raise self._damaged(track, _other(line, expected))
        if len(labels) != expected["frames"] * self.sets * 2:
            raise self._damaged(track, f"it has {len(labels)} bytes of labels")
        return np.frombuffer(labels, "<u2").reshape(-1, self.sets)

    def _damaged(self, track: int, reason: str) -> UserError:
        ends = np.cumsum([records for _, records in self.shards])
        shard = int(np.searchsorted(ends, track, side="right"))
        file, records = self.shards[shard]
        return UserError(
            f"record {track - (ends[shard] - records)} of {self.folder / file}, the labels of track "
            f"{self.tracks[track]}, cannot be used ({reason}): {REMEDY}"
        )


def _line(header: Mapping[str, Any]) -> bytes:
    return json.dumps(header).encode()


def _other(line: bytes, expected: Mapping[str, Any]) -> str:
    try:
        return shortened(differences(json.loads(line), expected))
    except (ValueError, AttributeError):
        return "it has no header"


@dataclasses.dataclass(frozen=True)
class Labels:
    """Labels of a collection: what they are, and each split's."""

    folder: epath.Path
    sets: Sequence[LabelSet]
    collection: Collection
    grid: FrameGrid
    splits: Mapping[str, SplitLabels]

    @property
    def id(self) -> str:
        return _id(self.sets, self.collection)

    @property
    def codebooks(self) -> tuple[str, ...]:
        """Ids of the codebooks."""
        return tuple(labelled.codebook for labelled in self.sets)


def new_labels(folder: str | os.PathLike, sets: Sequence[LabelSet], collection: Collection, grid: FrameGrid) -> Labels:
    """The labels that `folder` is going to hold: a split is divided into shards between tracks.

    Raises UserError: more clusters than 16 bits tell apart; other labels, or something else, in the folder.
    """
    for labelled in sets:
        if labelled.clusters > MOST_CLUSTERS:
            raise UserError(
                f"{labelled.name} has {labelled.clusters} clusters, and labels of 16 bits tell {MOST_CLUSTERS} apart: "
                "let training compute them"
            )
    path = epath.Path(folder).expanduser()
    labels_id = _id(sets, collection)
    splits = {}
    for name, split in collection.splits.items():
        frames = _frames(split.tracks.lengths, grid)
        begins = (np.cumsum(frames) - frames) * len(sets) * 2
        counts = np.unique(begins // SHARD_BYTES, return_counts=True)[1].tolist()
        files = [f"labels-{name}.array_record-{i:05d}-of-{len(counts):05d}" for i in range(len(counts))]
        shards = list(zip(files, counts, strict=True))
        splits[name] = SplitLabels(path, labels_id, len(sets), split.tracks.ids, frames, shards)
    return Labels(path, sets, collection, grid, splits)


def _id(sets: Sequence[LabelSet], collection: Collection) -> str:
    """SHA-256 of what decides labels: of which music, front ends and codebooks they are."""
    content = {"collection": collection.fingerprint, "sets": [labelled._asdict() for labelled in sets]}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _frames(lengths: Int[np.ndarray, " tracks"], grid: FrameGrid) -> Int[np.ndarray, " tracks"]:
    return np.maximum(0, (lengths - grid.receptive_field) // grid.hop + 1)


def is_described(labels: Labels) -> bool:
    """Whether the folder says that these labels are in it. UserError: it holds others."""
    path = labels.folder / DESCRIPTION
    if not path.exists():
        return False
    if _read_description(path)["id"] != labels.id:
        raise UserError(f"{labels.folder} holds other labels: choose another --output, or remove it")
    return True


def missing_shards(labels: Labels) -> list[tuple[str, str, range]]:
    """(split, file, numbers of its tracks) of the shards that are not there yet.

    UserError: one that is there is not of these labels, or the folder cannot be made.
    """
    missing = []
    try:
        labels.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {labels.folder}: {error.strerror}; give another --output") from error
    for name, split in labels.splits.items():
        first = 0
        for file, records in split.shards:
            if (labels.folder / file).exists():
                _check_left_over(split, first, labels.folder / file)
            else:
                missing.append((name, file, range(first, first + records)))
            first += records
    return missing


def _check_left_over(split: SplitLabels, track: int, path: epath.Path) -> None:
    try:
        split.read(track)
    except UserError as error:
        raise UserError(f"{path} is not of these labels: choose another --output, or remove it") from error


def write_shard(
    labels: Labels, split: str, file: str, tracks: Sequence[int], values: Sequence[UInt16[np.ndarray, "_ S"]]
) -> None:
    """Writes the labels of these tracks, whole or not at all.

    Raises UserError: a label that is none, which a front end's NaN is given; the file cannot be written.
    """
    for track, of_track in zip(tracks, values, strict=True):
        for labelled, of_set in zip(labels.sets, of_track.T, strict=True):
            if len(of_set) and of_set.max() >= labelled.clusters:
                raise UserError(
                    f"{labelled.name} gives NaN or infinite values for track {labels.splits[split].tracks[track]}: "
                    "check the audio, or the run that the features come from"
                )
    path = labels.folder / file
    unfinished = path.parent / f".{file}.unfinished"
    header = labels.splits[split].header
    try:
        writer = ArrayRecordWriter(os.fspath(unfinished), WRITER_OPTIONS)
        for track, of_track in zip(tracks, values, strict=True):
            writer.write(_line(header(track)) + b"\n" + of_track.astype("<u2").tobytes())
        writer.close()
        unfinished.replace(path)
    except (OSError, RuntimeError, ValueError) as error:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise UserError(
            f"cannot write {path} ({str(error).splitlines()[0]}): make room or permit writing, then run it again"
        ) from error


def finish_labels(labels: Labels, codebooks: Sequence[Codebook], agreement: Mapping[str, float]) -> None:
    """Reads all shards back and describes them; from then on training takes the labels.

    `codebooks`: of the sets. `agreement`: for each, the share of equal labels where two crops overlap by half.
    Raises UserError: a record is not what was written, or the description cannot be written.
    """
    description = {
        "format": FORMAT,
        "id": labels.id,
        **labels.grid._asdict(),
        "sets": [labelled._asdict() for labelled in labels.sets],
        "agreement": dict(agreement),
        "collection": labels.collection.fingerprint,
        "splits": {name: [shard._asdict() for shard in _proven(split)] for name, split in labels.splits.items()},
        "versions": {
            "musicssl_jax": __version__,
            "jax": version("jax"),
            "numpy": version("numpy"),
            "python": platform.python_version(),
        },
    }
    path = labels.folder / DESCRIPTION
    unfinished = labels.folder / f".{DESCRIPTION}.unfinished"
    try:
        for name, content in files_within(codebooks).items():
            (labels.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (labels.folder / name).write_bytes(content)
        unfinished.write_text(json.dumps(description, indent=1) + "\n")
        unfinished.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror}): make room or permit writing") from error


def _proven(split: SplitLabels) -> list[Shard]:
    """The shards, with the SHA-256 of their labels, one track's after the other's."""
    shards, first = [], 0
    for file, records in split.shards:
        digest = hashlib.sha256()
        for track in range(first, first + records):
            digest.update(split.read(track).tobytes())
        shards.append(Shard(file, records, (split.folder / file).stat().length, digest.hexdigest()))
        first += records
    return shards


def open_labels(
    folder: str | os.PathLike, collection: Collection, targets: Sequence[tuple[Features, int]], grid: FrameGrid
) -> Labels:
    """The labels in `folder`, proven to be of this music and of these front ends and numbers of clusters.

    Records are checked when they are read. Raises UserError, with the reason: nothing there, or it is damaged; labels
    of other music, another frame rate, front end, checkpoint or number of clusters.
    """
    path = epath.Path(folder).expanduser()
    content = _read_description(path / DESCRIPTION)
    try:
        sets = [LabelSet(**labelled) for labelled in content["sets"]]
        shards = {name: [Shard(**shard) for shard in of_split] for name, of_split in content["splits"].items()}
        fingerprint = content["collection"]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path / DESCRIPTION} is damaged ({error!r}): {REMEDY}") from error
    if fingerprint != collection.fingerprint:
        raise UserError(
            f"the labels {path} are of other music than {collection.folder}: give config.labels in the order of "
            "config.data.path, or make labels of it with `musicssl label`"
        )
    _check_sets(path, sets, targets)
    labels_id = _id(sets, collection)
    if labels_id != content["id"]:
        raise UserError(f"{path / DESCRIPTION} is damaged (other id): {REMEDY}")
    splits = {}
    for name, split in collection.splits.items():
        of_split = shards.get(name, [])
        if sum(shard.records for shard in of_split) != len(split.tracks.ids):
            raise UserError(f"{path / DESCRIPTION} is damaged (not every track of {name} has labels): {REMEDY}")
        check_sizes(path, of_split, REMEDY)
        files = [(shard.file, shard.records) for shard in of_split]
        frames = _frames(split.tracks.lengths, grid)
        splits[name] = SplitLabels(path, labels_id, len(sets), split.tracks.ids, frames, files)
    return Labels(path, sets, collection, grid, splits)


def codebooks_of(labels: Labels) -> list[Codebook]:
    """Those of the sets, from the labels' folder; none in folders of versions that did not keep them.

    UserError: they are damaged, or are not those of the labels.
    """
    codebooks = read_codebooks(labels.folder)
    if codebooks and tuple(map(codebook_id, codebooks)) != labels.codebooks:
        raise UserError(f"the codebooks in {labels.folder} are not those of its labels: {REMEDY}")
    return codebooks


def _check_sets(path: epath.Path, sets: Sequence[LabelSet], targets: Sequence[tuple[Features, int]]) -> None:
    have, want = ([x.name for x in named] for named in (sets, [features for features, _ in targets]))
    if have != want:
        raise UserError(
            f"the labels {path} are of {', '.join(have)} and config.targets are {', '.join(want)}: give the labels of "
            "these, or change config.targets"
        )
    for labelled, (features, clusters) in zip(sets, targets, strict=True):
        if reason := misfit(labelled.front_end, labelled.clusters, features, clusters):
            raise UserError(
                f"the codebook of the labels {path} {reason}; make labels again, or change the config to what they "
                "were made with"
            )


def _read_description(path: epath.Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
        kind, _ = content["format"], content["id"]
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror}; give a folder that `musicssl label` made, or run that again if it "
            "was interrupted"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error!r}): {REMEDY}") from error
    if kind != FORMAT:
        raise UserError(f"{path} has format {kind}, and this version reads {FORMAT}: make the labels again")
    return content


def label_reader(
    labels: Sequence[Labels], *, frames: int, hop: int
) -> Callable[[Sequence[Place]], dict[str, np.ndarray]]:
    """`annotate` of `crop_batches`: "labels" uint16 (rows, frames, sets) of crops that begin at multiples of `hop`."""
    splits = {(of_one.collection.build_id, name): split for of_one in labels for name, split in of_one.splits.items()}

    def read(places: Sequence[Place]) -> dict[str, np.ndarray]:
        of_crops = []
        for collection, split, track, start in places:
            first = start // hop
            of_crops.append(splits[collection, split].read(track)[first : first + frames])
        return {"labels": np.stack(of_crops)}

    return read
