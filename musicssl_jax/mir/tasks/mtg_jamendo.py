"""MTG-Jamendo, split 0: four sets of tags of whole tracks.

A clone of github.com/MTG/mtg-jamendo-dataset and the audio that its download.py unpacks, `00..99/<id>.low.mp3` (or
`<id>.mp3`, full quality), both anywhere in `mtg_jamendo/`. Only `data/splits/split-0/autotagging_*.tsv` are read. Their
lines end in CR LF and have one column more for every further tag.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from musicssl_jax.errors import UserError
from musicssl_jax.mir.tasks.assembly import Listed, assemble, recordings_of, shipped_lines
from musicssl_jax.mir.tasks.listing import audio_below, by_key, data_set_folder, files_below, read_lines
from musicssl_jax.mir.tasks.marble_manifests import read_manifests
from musicssl_jax.mir.tasks.task import Part, Protocol, ProtocolName, Task, TaskData, Windows

_PARTS: dict[Part, str] = {"train": "train", "valid": "validation", "test": "test"}
_COLUMNS = ("TRACK_ID", "ARTIST_ID", "ALBUM_ID", "PATH", "DURATION", "TAGS")
_SUBSETS = (
    ("mtg_top50", "top 50 tags", "top50tags", "MTGTop50"),
    ("mtg_genre", "genre", "genre", "MTGGenre"),
    ("mtg_instrument", "instrument", "instrument", "MTGInstrument"),
    ("mtg_moodtheme", "mood and theme", "moodtheme", "MTGMood"),
)

_AUDIO = re.compile(r"(?:.*/)?(\d+)(\.low)?\.\w+")


def read(subset: str, manifest: str, data_dir: Path, protocol: ProtocolName) -> TaskData:
    """Label: numbers of the track's tags. Group: the track. Both protocols have one split.

    subset: as in the names of the split's files. manifest: as MARBLE v2 names it.
    """
    folder = data_set_folder(data_dir, "mtg_jamendo")
    tags = {tag: number for number, tag in enumerate(tags_of(subset))}
    manifests = read_manifests(
        folder, manifest, key=track_id, label=lambda label: tuple(sorted({tags[tag] for tag in label})), group=str
    )
    if manifests is not None:
        return manifests
    # Where a track is there in both qualities, the low one is taken, on which published scores are.
    audio = by_key(sorted(audio_below(folder), key=lambda file: ".low." not in file), track_id)
    listed = [item for part in _PARTS for item in _read_part(_split_file(folder, subset, part), part, tags)]
    data = assemble(listed, recordings_of(folder, audio), folder)
    low = sum(".low." in recording.path for recording in data.recordings.values())
    if 0 < low < len(data.recordings):
        return replace(data, notes=(f"{low} of {len(data.recordings)} tracks are in low quality, the others in full",))
    return data


def tags_of(subset: str) -> tuple[str, ...]:
    """Sorted."""
    return tuple(tag for name, tag in map(str.split, shipped_lines("mtg_jamendo_tags.txt")) if name == subset)


def track_id(path: str) -> str | None:
    """`track_0000214` of `.../214.low.mp3`, `.../214.mp3` and `14/214.low.flac`; None of others."""
    match = _AUDIO.fullmatch(path)
    return f"track_{int(match[1]):07}" if match else None


def _split_file(folder: Path, subset: str, part: Part) -> Path:
    """That of split 0: the clone has five splits, whose files have the same names."""
    name = f"autotagging_{subset}-{_PARTS[part]}.tsv"
    found = [Path(file) for file in files_below(folder, [name])]
    chosen = [file for file in found if file.parent.name == "split-0"] or [
        file for file in found if not file.parent.name.startswith("split-")
    ]
    if not chosen:
        raise UserError(
            f"{folder}: no split-0/{name} below it; git clone https://github.com/MTG/mtg-jamendo-dataset there"
        )
    return folder / chosen[0]


def _read_part(path: Path, part: Part, tags: Mapping[str, int]) -> Iterator[Listed]:
    (where, header), *lines = read_lines(path) or [(str(path), "")]
    if tuple(header.split("\t")) != _COLUMNS:
        raise UserError(f"{where}: the columns are not {', '.join(_COLUMNS)}; get the file anew")
    for where, line in lines:
        cells = [cell.strip() for cell in line.split("\t")]
        id = track_id(cells[3]) if len(cells) >= len(_COLUMNS) else None
        if id is None:
            raise UserError(f"{where}: not a track with a PATH such as 14/214.mp3 and tags; get the file anew")
        if unknown := [tag for tag in cells[5:] if tag not in tags]:
            raise UserError(f"{where}: {unknown[0]!r} is none of this subset's {len(tags)} tags; get the file anew")
        yield Listed(id, part, tuple(sorted({tags[tag] for tag in cells[5:]})), id)


_PROTOCOLS: dict[ProtocolName, Protocol] = {
    "ours": Protocol(Windows(30.0, min_seconds=15.0)),
    "marble-v1": Protocol(Windows(30.0, min_seconds=1.0)),
}

TASKS = tuple(
    Task(
        name=name,
        title=f"MTG-Jamendo: {title}",
        data_set="mtg_jamendo",
        kind="tags",
        outputs=tags_of(subset),
        metric="roc_auc",
        protocols=_PROTOCOLS,
        read=partial(read, subset, manifest),
    )
    for name, title, subset, manifest in _SUBSETS
)
