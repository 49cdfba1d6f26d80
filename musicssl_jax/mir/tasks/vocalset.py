"""VocalSet: technique and singer of unaccompanied singing.

As published: `FULL/<singer>/<context>/<technique>/<name>.wav` of VocalSet11.zip, or `data_by_singer/...` of version
1.2, in `vocalset/` or a folder below it. Technique and singer are those of the path and the name.

There is no official list of recordings. Our split, `vocalset-v1`: each recording falls into its part by a hash of its
name, so that nobody's part depends on which others are there. Technique is tested on the five singers that the
data set's authors held out; of the other fifteen, 60% of the recordings are train and 40% validation. Singer: 48, 32
and 20%. These are MARBLE v1's shares.

MARBLE v1's own split numbers recordings within a technique and shuffles the numbers, so that equal numbers of
different techniques share a part. It is taken from MARBLE's lists `{train,valid,test}_{t,s}.txt` where they lie in the
folder, else made by its rule; its lists lack recordings that are shorter than 3 s after trimming, which the rule cannot
know. By the rule a recording that is not here gives its number to the next one of its technique, which may be of
another part then. The data set has no list of its recordings that would show it: the counts are said, and what is known
to be in the data set and is not here.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.model_selection import GroupShuffleSplit

from musicssl_jax.errors import UserError, shortened
from musicssl_jax.mir.tasks.assembly import Listed, assemble, recordings_of, shipped_lines
from musicssl_jax.mir.tasks.listing import audio_below, data_set_folder, find_file, read_lines
from musicssl_jax.mir.tasks.task import PARTS, Part, Protocol, ProtocolName, Task, TaskData, Windows

TECHNIQUES = (
    *("belt", "breathy", "inhaled", "lip_trill", "spoken", "straight", "trill", "trillo", "vibrato", "vocal_fry"),
)
"""The classes. Recordings of the other seven techniques serve to tell singers."""

OTHER_TECHNIQUES = ("fast_forte", "fast_piano", "forte", "messa", "pp", "slow_forte", "slow_piano")
SINGERS = (*(f"f{number}" for number in range(1, 10)), *(f"m{number}" for number in range(1, 12)))
TEST_SINGERS = frozenset(["f2", "f8", "m3", "m5", "m10"])

_ROOTS = ("FULL", "data_by_singer", "data_by_technique", "data_by_vowel")
"""Version 1.2 has all recordings three times over: the first of these that is there is read."""

_LEFT_OUT = "-"  # in vocalset_names.txt
_MARBLE_SEED = 42617


class Sung(NamedTuple):
    technique: str
    singer: str
    file: str


class _Split(NamedTuple):
    """Of recordings that are here or that lists name. notes, doubts: of the task's data."""

    parts: dict[str, Part]
    notes: tuple[str, ...]
    doubts: tuple[str, ...] = ()


def read_technique(data_dir: Path, protocol: ProtocolName) -> TaskData:
    """Label: number of the technique. Group: the singer, of whom the test part has five."""

    def listed(id: str, part: Part) -> Listed | None:
        technique, singer = _sung(id)
        return Listed(id, part, TECHNIQUES.index(technique), singer) if technique in TECHNIQUES else None

    return _task_data(data_dir, protocol, "t", listed)


def read_singer(data_dir: Path, protocol: ProtocolName) -> TaskData:
    """Label: number of the singer. Group: the recording."""

    def listed(id: str, part: Part) -> Listed:
        return Listed(id, part, SINGERS.index(_sung(id)[1]), _without_chunk(id))

    return _task_data(data_dir, protocol, "s", listed)


def _task_data(
    data_dir: Path, protocol: ProtocolName, task: str, listed: Callable[[str, Part], Listed | None]
) -> TaskData:
    folder, sung, notes = _read(data_dir)
    split = _split(folder, sung, protocol, task)
    every = filter(None, (listed(id, part) for id, part in split.parts.items()))
    recordings = recordings_of(folder, {id: recording.file for id, recording in sung.items()})
    return replace(assemble(every, recordings, folder, notes + split.notes), doubts=split.doubts)


def technique_part(id: str, singer: str) -> Part:
    """Of `vocalset-v1`."""
    if singer in TEST_SINGERS:
        return "test"
    return "train" if _uniform("technique", id) < 0.6 else "valid"


def singer_part(id: str) -> Part:
    """Of `vocalset-v1`."""
    place = _uniform("singer", id)
    return "train" if place < 0.48 else "valid" if place < 0.8 else "test"


def _uniform(task: str, id: str) -> float:
    """In [0, 1), by the recording's name alone."""
    return int(hashlib.sha256(f"vocalset-v1 {task} {id}".encode()).hexdigest()[:8], 16) / 2**32


def _read(data_dir: Path) -> tuple[Path, dict[str, Sung], tuple[str, ...]]:
    """The folder, and what is in it by id: `<technique>/<name>`, where the name begins with the singer."""
    folder = data_set_folder(data_dir, "vocalset")
    root = _root(folder)
    corrections = dict(line.rsplit(" ", 1) for line in shipped_lines("vocalset_names.txt"))
    sung: dict[str, Sung] = {}
    strange = []
    for file in audio_below(root):
        *folders, name = file.rpartition(".")[0].split("/")
        technique = next((f for f in reversed(folders) if f in TECHNIQUES + OTHER_TECHNIQUES), None)
        singer = corrections.get(f"{technique} {name}") or _singer(name, folders)
        if singer == _LEFT_OUT:
            continue
        if technique is None or singer not in SINGERS:
            strange.append(file)
            continue
        id = f"{technique}/{name if name.startswith(f'{singer}_') else f'{singer}_{name}'}"
        sung.setdefault(id, Sung(technique, singer, str((root / file).relative_to(folder))))
    if not sung:
        raise UserError(f"{folder}: no <technique>/<singer>_*.wav below it; unpack VocalSet11.zip there")
    told = f"{len(strange)} recordings of no known technique or singer left out: {shortened(strange)}"
    return folder, sung, (told,) if strange else ()


def _root(folder: Path) -> Path:
    for name in _ROOTS:
        for place in (folder, *sorted(entry for entry in folder.iterdir() if entry.is_dir())):
            if (place / name).is_dir():
                return place / name
    return folder


def _singer(name: str, folders: list[str]) -> str:
    """By the name, else by a folder such as `f3` or `female3`."""
    if match := re.match(r"([fm]\d+)_", name):
        return match[1]
    matches = [re.fullmatch(r"([fm])(?:emale|ale)?_?(\d+)", folder) for folder in folders]
    return next((f"{match[1]}{match[2]}" for match in matches if match), "")


def _sung(id: str) -> tuple[str, str]:
    """Technique and singer, which are in an id."""
    technique, _, name = id.partition("/")
    return technique, name.partition("_")[0]


def _split(folder: Path, sung: Mapping[str, Sung], protocol: ProtocolName, task: str) -> _Split:
    """Part of every recording, and how that was found."""
    if protocol == "ours":
        parts = {id: singer_part(id) if task == "s" else technique_part(id, sung[id].singer) for id in sung}
        return _Split(parts, ("split vocalset-v1: by a hash of each recording's name",))
    if listed := _marble_lists(folder, sung, task):
        return _Split(listed, (f"the split is that of MARBLE's lists *_{task}.txt",))
    counts = Counter(recording.technique for recording in sung.values())
    said = ", ".join(f"{technique} {counts[technique]}" for technique in sorted(counts))
    notes = (
        "split by MARBLE v1's rule, not its lists: recordings that v1 drops as too short are kept",
        "the rule numbers the recordings of a technique: one that is not here moves others to other parts, and the "
        f"data set has no list to see that by. Here are {len(sung)}: {said}",
    )
    lacking = _lacking(sung)
    doubts = (f"MARBLE v1's rule needs the whole data set, which has {shortened(lacking)} as well",) if lacking else ()
    return _Split(marble_parts(sung)[task], notes + doubts, doubts)


def _lacking(sung: Mapping[str, Sung]) -> list[str]:
    """What VocalSet is known to have and is not here: singers, techniques, and the files whose names are corrected."""
    singers = {recording.singer for recording in sung.values()}
    techniques = {recording.technique for recording in sung.values()}
    every = [*SINGERS, *TECHNIQUES, *OTHER_TECHNIQUES]
    lacking = [name for name in every if name not in singers | techniques]
    known = (line.split(" ") for line in shipped_lines("vocalset_names.txt"))
    ids = [f"{technique}/{singer}_{name}" for technique, name, singer in known if singer != _LEFT_OUT]
    return lacking + [id for id in ids if id not in sung]


def marble_parts(sung: Mapping[str, Sung]) -> dict[str, dict[str, Part]]:
    """MARBLE v1's split by its rule, of technique ("t") and of singer ("s"), from one stream of random numbers."""
    number: dict[str, int] = {}
    for technique in TECHNIQUES + OTHER_TECHNIQUES:
        recordings = sorted((id for id in sung if sung[id].technique == technique), key=lambda id: f"{id}.wav")
        number.update({id: place for place, id in enumerate(recordings)})
    random = np.random.RandomState(_MARBLE_SEED)
    known = [id for id in sung if sung[id].technique in TECHNIQUES]
    train, valid = _shuffled([id for id in known if sung[id].singer not in TEST_SINGERS], number, 0.4, random)
    of_technique = _by_id(train, valid, [id for id in known if sung[id].singer in TEST_SINGERS])
    rest, test = _shuffled(list(sung), number, 0.2, random)
    train, valid = _shuffled(rest, number, 0.4, random)
    return {"t": of_technique, "s": _by_id(train, valid, test)}


def _by_id(*ids_of_parts: list[str]) -> dict[str, Part]:
    return {id: part for part, ids in zip(PARTS, ids_of_parts, strict=True) for id in ids}


def _shuffled(
    ids: list[str], number: Mapping[str, int], share: float, random: np.random.RandomState
) -> tuple[list[str], list[str]]:
    groups = [number[id] for id in ids]
    if len(set(groups)) < 2:
        raise UserError("vocalset: too few recordings for MARBLE v1's split; get the whole data set")
    (first, second), *_ = GroupShuffleSplit(1, test_size=share, random_state=random).split(ids, groups=groups)
    return [ids[place] for place in first], [ids[place] for place in second]


def _marble_lists(folder: Path, sung: Mapping[str, Sung], task: str) -> dict[str, Part]:
    """Parts by MARBLE's lists, which name chunks of 3 s; empty if there are none."""
    found = {part: find_file(folder, f"{part}_{task}.txt") for part in PARTS}
    parts: dict[str, Part] = {}
    if not any(found.values()):
        return parts
    for part, path in found.items():
        if path is None:
            raise UserError(f"{folder}: of MARBLE's lists *_{task}.txt {part}_{task}.txt is missing")
        for where, id in _listed_ids(path, sung):
            if parts.setdefault(id, part) != part:
                raise UserError(f"{where}: {id} is also in the {parts[id]} part; get the lists anew")
    return parts


def _listed_ids(path: Path, sung: Mapping[str, Sung]) -> Iterator[tuple[str, str]]:
    """Recordings that a list has chunks of, whether they are here or not."""
    for where, line in read_lines(path):
        chunk = line.removesuffix(".wav")
        id = chunk if chunk in sung else _without_chunk(chunk)
        technique, singer = _sung(id)
        if technique not in TECHNIQUES + OTHER_TECHNIQUES or singer not in SINGERS:
            raise UserError(f"{where}: {line} is not <technique>/<singer>_<name>_<chunk>.wav; get the lists anew")
        yield where, id


def _without_chunk(id: str) -> str:
    """MARBLE's chunk 7 of `belt/f1_x` is `belt/f1_x_07`."""
    return re.sub(r"_\d\d$", "", id)


_PROTOCOLS: dict[ProtocolName, Protocol] = {
    "ours": Protocol(Windows(3.0, min_seconds=1.5, trim_silence=True)),
    # v1's 3 s are 132 000 samples at 44.1 kHz; it drops tails, normalises every chunk and scores it alone.
    "marble-v1": Protocol(
        Windows(132000 / 44100, min_seconds=132000 / 44100, normalize="window", trim_silence=True), unit="window"
    ),
}

TASKS = (
    Task(
        name="vocalset_technique",
        title="VocalSet: technique",
        data_set="vocalset",
        kind="class",
        outputs=TECHNIQUES,
        metric="accuracy",
        protocols=_PROTOCOLS,
        read=read_technique,
    ),
    Task(
        name="vocalset_singer",
        title="VocalSet: singer",
        data_set="vocalset",
        kind="class",
        outputs=SINGERS,
        metric="accuracy",
        protocols=_PROTOCOLS,
        read=read_singer,
    ),
)
