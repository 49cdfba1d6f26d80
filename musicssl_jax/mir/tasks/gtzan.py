"""GTZAN: genre, and the beats of GTZAN-Rhythm, on the fault-filtered split.

Audio: `<genre>.NNNNN.wav` (.au in older copies) anywhere below `gtzan/`: `genres/<genre>/` as published,
`Data/genres_original/<genre>/` from Kaggle, or a data set prepared by TFDS.
Beats: the JAMS files of GTZAN-Rhythm v2, or `beats/gtzan_<genre>_NNNNN.beats` of github.com/TempoBeatDownbeat.
They lack reggae.00086, which is not in the split.
"""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path

import soundfile

from musicssl_jax.errors import UserError
from musicssl_jax.mir.tasks.assembly import Listed, assemble, recordings_of, shipped_lines
from musicssl_jax.mir.tasks.listing import audio_below, by_key, data_set_folder, files_below, read_lines, read_text
from musicssl_jax.mir.tasks.marble_manifests import read_manifests
from musicssl_jax.mir.tasks.prepared import find_prepared, prepared_names
from musicssl_jax.mir.tasks.task import WHOLE, Part, ProtocolName, Recording, Task, TaskData

GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")

BROKEN = "jazz.00054"
"""Not readable in the copy on Kaggle; MARBLE v1 deletes it from its list."""

_NAME = re.compile(rf"(?:gtzan_)?({'|'.join(GENRES)})[._](\d{{5}})")


def read_genre(data_dir: Path, protocol: ProtocolName) -> TaskData:
    """Label: number of the genre. Group: the recording."""
    folder = data_set_folder(data_dir, "gtzan")
    manifests = read_manifests(folder, "GTZANGenre", key=recording_id, label=GENRES.index, group=str)
    if manifests is not None:
        return manifests
    recordings = _recordings(folder)
    listed = [
        Listed(id, part, GENRES.index(genre), id, _problem(id, recordings), known=id == BROKEN)
        for id, genre, part in fault_filtered(protocol)
    ]
    return assemble(listed, recordings, folder)


def read_beats(data_dir: Path, protocol: ProtocolName) -> TaskData:
    """Label: seconds of the beats as annotated, also past the end of the audio. Group: the recording."""
    folder = data_set_folder(data_dir, "gtzan")
    manifests = read_manifests(
        folder, "GTZANBeatTracking", key=recording_id, label=lambda label: _beats(label["beat"]), group=str
    )
    if manifests is not None:
        return manifests
    annotations = {
        **by_key(files_below(folder, [".beats"]), recording_id),
        **by_key(files_below(folder, [".jams"]), recording_id),
    }
    if not annotations:
        raise UserError(
            f"{folder}: no beats: neither *.jams of GTZAN-Rhythm v2 nor *.beats of "
            "github.com/TempoBeatDownbeat/gtzan_tempo_beat; unpack or clone one of them there"
        )
    recordings = _recordings(folder)
    listed = []
    for id, _, part in fault_filtered(protocol):
        if id in annotations:
            beats = _read_beats(folder / annotations[id])
            listed.append(Listed(id, part, beats, id, _problem(id, recordings), known=id == BROKEN))
        else:
            listed.append(Listed(id, part, (), id, "no annotation of its beats"))
    return assemble(listed, recordings, folder)


def fault_filtered(protocol: ProtocolName) -> Iterator[tuple[str, str, Part]]:
    """(id, genre, part) of the 930 recordings; of 929 by MARBLE v1's list."""
    for line in shipped_lines("gtzan_fault_filtered.txt"):
        part, genre, *runs = line.split()
        for run in runs:
            first, _, last = run.partition("-")
            for number in range(int(first), int(last or first) + 1):
                id = f"{genre}.{number:05}"
                if protocol == "ours" or id != BROKEN:
                    yield id, genre, part  # type: ignore[misc]


def recording_id(path: str) -> str | None:
    """`blues.00029` of `.../blues.00029.wav`, `blues.00029.wav.jams` or `gtzan_blues_00029.beats`; None of others."""
    match = _NAME.match(path.rpartition("/")[2])
    return f"{match[1]}.{match[2]}" if match else None


def _recordings(folder: Path) -> dict[str, Recording]:
    found = by_key(audio_below(folder), recording_id)
    if not found and (prepared := find_prepared(folder)):
        ids = map(recording_id, prepared_names(prepared, "train", "audio/filename"))
        return {id: Recording(id, str(prepared), ("train", number)) for number, id in enumerate(ids) if id}
    return recordings_of(folder, found)


def _problem(id: str, recordings: dict[str, Recording]) -> str:
    """Of the one recording that is there in many copies and holds no audio; "" of all others."""
    if id != BROKEN or id not in recordings or recordings[id].entry is not None:
        return ""
    try:
        readable = soundfile.info(recordings[id].path).frames > 0
    except soundfile.SoundFileError:
        readable = False
    return "" if readable else "cannot be read, as in every copy from Kaggle"


def _read_beats(path: Path) -> tuple[float, ...]:
    try:
        if path.suffix == ".jams":
            return _beats(_jams_times(json.loads(read_text(path))))
        return _beats([line.split()[0] for _, line in read_lines(path)])
    except (ValueError, TypeError, KeyError, AttributeError):
        raise UserError(f"{path}: no beats in it that can be read; get the file anew") from None


def _jams_times(jams: dict) -> list[float]:
    """JAMS 0.2: observations one by one, or column by column."""
    for annotation in jams["annotations"]:
        kind = annotation.get("sandbox", {}).get("annotation_type", "beat")
        if annotation["namespace"] == "beat" and kind == "beat":
            data = annotation["data"]
            return data["time"] if isinstance(data, dict) else [observation["time"] for observation in data]
    raise ValueError("no beats")


def _beats(times: list) -> tuple[float, ...]:
    beats = sorted(float(time) for time in times)
    if not beats or not all(math.isfinite(time) and time >= 0 for time in beats):
        raise ValueError("not times of beats")
    return tuple(beats)


# v1 trains beats on random crops of 10 s and tests on 30 s; here a recording is always encoded as a whole.
TASKS = (
    Task("gtzan_genre", "GTZAN: genre", "gtzan", "class", GENRES, "accuracy", WHOLE, read_genre),
    Task("gtzan_beats", "GTZAN-Rhythm: beats", "gtzan", "beats", (), "f_measure", WHOLE, read_beats),
)
