"""EmoMusic: arousal and valence of 45-second excerpts.

As published: `songs_info.csv` and `static_annotations.csv` from annotations.tar.gz, `clips_45seconds/<song_id>.mp3`
from clips_45sec.tar.gz, in `emomusic/` or folders below it. Test: the evaluation set of MediaEval 2013. The rest is
split 8:2 by artist, as in jukemir (Castellon, Donahue and Liang, 2021) and MARBLE.
"""

import hashlib
import math
import re
from pathlib import Path

from musicssl_jax.errors import UserError
from musicssl_jax.mir.tasks.assembly import Listed, assemble, recordings_of
from musicssl_jax.mir.tasks.listing import Row, audio_below, by_key, data_set_folder, find_file, read_table
from musicssl_jax.mir.tasks.marble_manifests import read_manifests
from musicssl_jax.mir.tasks.task import Part, Protocol, ProtocolName, Task, TaskData, Windows

DIMENSIONS = ("arousal", "valence")
_SETS = {"evaluation", "development"}


def read(data_dir: Path, protocol: ProtocolName) -> TaskData:
    """Label: mean arousal and valence as annotated, on a scale of 1 to 9. Group: the song. Both protocols have one
    split."""
    folder = data_set_folder(data_dir, "emomusic")
    manifests = read_manifests(folder, "EMO", key=song_id, label=_numbers, group=str)
    if manifests is not None:
        return manifests
    songs = _rows(folder, "songs_info.csv", ["song_id", "Artist", "Mediaeval 2013 set"])
    ratings = _rows(folder, "static_annotations.csv", ["song_id", "mean_arousal", "mean_valence"])
    if strange := ratings.keys() - songs.keys():
        id = min(strange)
        raise UserError(f"{ratings[id].where}: song {id} is not in songs_info.csv; get both files anew")
    listed = [Listed(id, _part(row), _label(id, ratings), id) for id, row in songs.items()]
    return assemble(listed, recordings_of(folder, by_key(audio_below(folder), song_id)), folder)


def song_id(path: str) -> str | None:
    """`5` of `.../5.mp3` and `.../0005.wav`; None of others."""
    stem = path.rpartition("/")[2].rpartition(".")[0]
    return str(int(stem)) if stem.isascii() and stem.isdigit() else None


def part_by_artist(artist: str) -> Part:
    """By SHA-1 of the name's lower-case ASCII letters, words one space apart."""
    letters = re.sub(r"[^a-z\s]", "", artist.lower(), flags=re.ASCII)
    name = " ".join(letters.split())
    return "train" if int(hashlib.sha1(name.encode()).hexdigest(), 16) % 10 < 8 else "valid"


def _rows(folder: Path, name: str, columns: list[str]) -> dict[str, Row]:
    path = find_file(folder, name)
    if path is None:
        raise UserError(f"{folder}: {name} is missing; annotations.tar.gz holds it")
    rows: dict[str, Row] = {}
    # Artists' names are not all UTF-8, and only their ASCII letters count.
    for row in read_table(path, columns, errors="replace"):
        id = song_id(row.cells["song_id"] + ".")
        if id is None or id in rows:
            fault = "is no number" if id is None else "is there twice"
            raise UserError(f"{row.where}: song_id {row.cells['song_id']!r} {fault}; get the file anew")
        rows[id] = row
    return rows


def _part(row: Row) -> Part:
    kind = row.cells["Mediaeval 2013 set"]
    if kind not in _SETS:
        raise UserError(f"{row.where}: 'Mediaeval 2013 set' is {kind!r}, none of {' and '.join(sorted(_SETS))}")
    return "test" if kind == "evaluation" else part_by_artist(row.cells["Artist"])


def _label(id: str, ratings: dict[str, Row]) -> tuple[float, ...]:
    if id not in ratings:
        raise UserError(f"static_annotations.csv: no line for song {id}, which songs_info.csv has; get both files anew")
    where, cells = ratings[id]
    try:
        return _numbers([cells["mean_arousal"], cells["mean_valence"]])
    except ValueError:
        raise UserError(f"{where}: mean_arousal and mean_valence are not numbers; get the file anew") from None


def _numbers(label: list) -> tuple[float, ...]:
    arousal, valence = (float(number) for number in label)
    if not (math.isfinite(arousal) and math.isfinite(valence)):
        raise ValueError("not finite")
    return arousal, valence


TASKS = (
    Task(
        name="emomusic",
        title="EmoMusic: arousal and valence",
        data_set="emomusic",
        kind="numbers",
        outputs=DIMENSIONS,
        metric="r2",
        protocols={
            "ours": Protocol(Windows(5.0, min_seconds=2.5)),
            "marble-v1": Protocol(Windows(5.0, first_seconds=30.0, min_seconds=1.0)),
        },
        read=read,
    ),
)
