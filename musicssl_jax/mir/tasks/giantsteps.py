"""GiantSteps: key of electronic dance music, trained on GiantSteps-MTG.

Clones of github.com/GiantSteps/giantsteps-key-dataset (test) and .../giantsteps-mtg-key-dataset (train, validation) in
`giantsteps/`, as they are named by git or by the archives that GitHub makes of them. Audio: `<id>.LOFI.mp3`, wherever
below `giantsteps/` it lies; each clone's audio_dl.sh puts it into its `audio/`.

Train and validation are told apart by artist, as in jukemir (Castellon, Donahue and Liang, 2021) and MARBLE. The
artists are in the clone's own `annotations/beatport_metadata.txt`: nothing else is needed.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from musicssl_jax.errors import UserError
from musicssl_jax.mir.tasks.assembly import Listed, assemble, recordings_of
from musicssl_jax.mir.tasks.listing import audio_below, by_key, data_set_folder, files_below, read_lines, read_table
from musicssl_jax.mir.tasks.marble_manifests import read_manifests
from musicssl_jax.mir.tasks.task import Part, Protocol, ProtocolName, Task, TaskData, Windows

TEST, TRAIN = "giantsteps-key-dataset", "giantsteps-mtg-key-dataset"

_TONICS = ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")
KEYS = tuple(f"{tonic} {mode}" for mode in ("major", "minor") for tonic in _TONICS)
"""As `mir_eval.key` names them."""

_FLATS = {"C#": "Db", "D#": "Eb", "F#": "Gb", "G#": "Ab", "A#": "Bb"}

_TRAIN, _VALID = 100, 16
"""Of 116 values of an artist's hash; aims at 4 songs in train to 1 in validation."""

_HOPS = 2
"""How often collaborators of validation artists are moved to validation: twice, so that theirs are, too."""


def read(data_dir: Path, protocol: ProtocolName) -> TaskData:
    """Label: number of the key. Group: the song. Both protocols have one split."""
    folder = data_set_folder(data_dir, "giantsteps")
    note = "scored by clips of 30 s, not by song: that is what the manifests list"
    manifests = read_manifests(folder, "GS", key=_clip_id, label=KEYS.index, group=_song_of_clip, note=note)
    if manifests is not None:
        return manifests
    listed = [*_train_and_valid(_clone(folder, TRAIN)), *_test(_clone(folder, TEST))]
    return assemble(listed, recordings_of(folder, by_key(audio_below(folder), song_id)), folder)


def song_id(path: str) -> str | None:
    """`1004923` of `.../1004923.LOFI.mp3`; None of others."""
    match = re.match(r"(\d+)\.LOFI\.", path.rpartition("/")[2])
    return match[1] if match else None


def parts_by_artist(artists: Iterable[tuple[str, ...]]) -> dict[str, Part]:
    """Part of every artist, given the artists of every song.

    By SHA-1 of the lower-cased name; who has worked with an artist of the validation part belongs to it, too.
    """
    songs = list(artists)
    parts: dict[str, Part] = {
        artist: "train" if _hash(artist) % (_TRAIN + _VALID) < _TRAIN else "valid" for song in songs for artist in song
    }
    for _ in range(_HOPS):
        for song in songs:
            if any(parts[artist] == "valid" for artist in song):
                parts.update(dict.fromkeys(song, "valid"))
    return parts


def _hash(artist: str) -> int:
    return int(hashlib.sha1(artist.lower().encode()).hexdigest(), 16)


def _train_and_valid(clone: Path) -> Iterator[Listed]:
    """Songs whose annotator was sure (C is 2) of one key; Korzeniowski and Widmer, 2018."""
    metadata = clone / "annotations" / "beatport_metadata.txt"
    artists: dict[str, tuple[str, ...]] = {}
    for where, cells in read_table(metadata, ["ID", "ARTIST"], quoted=False):
        if cells["ID"] in artists:
            raise UserError(f"{where}: song {cells['ID']} is listed twice; get the file anew")
        artists[cells["ID"]] = tuple(name.strip() for name in cells["ARTIST"].split(","))
    parts = parts_by_artist(artists.values())
    for where, cells in read_table(clone / "annotations" / "annotations.txt", ["ID", "MANUAL KEY", "C"], quoted=False):
        if cells["C"] not in ("0", "1", "2"):
            raise UserError(f"{where}: column C is {cells['C']!r}, none of 0, 1 and 2; get the file anew")
        if cells["C"] != "2" or "/" in cells["MANUAL KEY"]:
            continue
        if cells["ID"] not in artists:
            raise UserError(f"{where}: song {cells['ID']} has no line in {metadata}; get both files anew")
        valid = any(parts[artist] == "valid" for artist in artists[cells["ID"]])
        part: Part = "valid" if valid else "train"
        yield Listed(cells["ID"], part, _key_number(where, cells["MANUAL KEY"]), cells["ID"])


def _test(clone: Path) -> Iterator[Listed]:
    keys = by_key(files_below(clone / "annotations" / "key", [".key"]), song_id)
    if not keys:
        raise UserError(f"{clone}: no annotations/key/*.LOFI.key in it; clone it anew")
    for id, file in keys.items():
        lines = read_lines(clone / "annotations" / "key" / file)
        if len(lines) != 1:
            raise UserError(f"{clone}/annotations/key/{file}: {len(lines)} lines where one key is expected")
        yield Listed(id, "test", _key_number(*lines[0]), id)


def _key_number(where: str, text: str) -> int:
    tonic, _, mode = " ".join(text.split()).partition(" ")
    key = f"{_FLATS.get(tonic, tonic)} {mode}"
    if key not in KEYS:
        raise UserError(f"{where}: {text!r} is not a key such as 'D major' or 'F# minor'; get the file anew")
    return KEYS.index(key)


def _clone(folder: Path, name: str) -> Path:
    """`name`, or `name-<branch or commit>` as GitHub's archives unpack to."""
    clones = sorted(entry for entry in folder.iterdir() if entry.is_dir() and re.match(rf"{name}(-|$)", entry.name))
    if not clones:
        raise UserError(f"{folder / name}: no such folder; git clone https://github.com/GiantSteps/{name} there")
    return clones[0]


def _clip_id(path: str) -> str | None:
    match = re.match(r"(\d+-\d+)\.", path.rpartition("/")[2])
    return match[1] if match else None


def _song_of_clip(clip: str) -> str:
    return str(int(clip.partition("-")[0]))


TASKS = (
    Task(
        name="giantsteps_key",
        title="GiantSteps: key",
        data_set="giantsteps",
        kind="class",
        outputs=KEYS,
        metric="weighted_score",
        protocols={
            "ours": Protocol(Windows(30.0, min_seconds=15.0)),
            # v1 cuts clips first, drops what is shorter, and normalises each of them.
            "marble-v1": Protocol(
                Windows(30.0, min_seconds=30.0, normalize="window"), ensembles=("vote", "max", "gmean", "mean")
            ),
        },
        read=read,
    ),
)
