"""MagnaTagATune: the 50 most frequent tags of 29-second clips.

As published: `annotations_final.csv` (tabs, whatever its name says) and `{0..9,a..f}/<track>-<start>-<end>.mp3`,
which the three parts of mp3.zip unpack to, in `magnatagatune/` or a folder below it.
Split 12:1:3 by the folder's hexadecimal digit, clips without a tag among the 50 kept (their label is empty).
"""

import re
from pathlib import Path

from musicssl_jax.errors import UserError
from musicssl_jax.mir.tasks.assembly import Listed, assemble, recordings_of, shipped_lines
from musicssl_jax.mir.tasks.listing import audio_below, by_key, data_set_folder, find_file, read_table
from musicssl_jax.mir.tasks.marble_manifests import read_manifests
from musicssl_jax.mir.tasks.task import Part, Protocol, ProtocolName, Task, TaskData, Windows

TAGS = tuple(shipped_lines("magnatagatune_top50.txt"))

DEAD = frozenset(
    [
        "6/norine_braun-now_and_zen-08-gently-117-146.mp3",
        "8/jacob_heringman-josquin_des_prez_lute_settings-19-gintzler__pater_noster-204-233.mp3",
        "9/american_baroque-dances_and_suites_of_rameau_and_couperin-25-le_petit_rien_xiveme_ordre_couperin-88-117.mp3",
    ]
)
"""Clips whose published files hold no audio."""

_PATH = re.compile(r"(?:.*/)?([0-9a-f]/[^/]+)\.\w+")


def read(data_dir: Path, protocol: ProtocolName) -> TaskData:
    """Label: numbers of the clip's tags. Group: the track that the clip is from. Both protocols have one split."""
    folder = data_set_folder(data_dir, "magnatagatune")
    manifests = read_manifests(folder, "MTT", key=clip_id, label=_tag_numbers, group=track_of)
    if manifests is not None:
        return manifests
    path = find_file(folder, "annotations_final.csv")
    if path is None:
        raise UserError(f"{folder}: annotations_final.csv is missing; it is a download of its own, beside the audio")
    listed = []
    for where, cells in read_table(path, ["clip_id", "mp3_path", *TAGS]):
        clip = clip_id(cells["mp3_path"])
        if clip is None:
            raise UserError(f"{where}: mp3_path {cells['mp3_path']!r} is not <hexadecimal digit>/<name>.mp3")
        if wrong := [tag for tag in TAGS if cells[tag] not in ("0", "1")]:
            raise UserError(f"{where}: column {wrong[0]!r} is {cells[wrong[0]]!r}, neither 0 nor 1; get the file anew")
        label = tuple(number for number, tag in enumerate(TAGS) if cells[tag] == "1")
        problem = "its published file holds no audio" if clip in DEAD else ""
        listed.append(Listed(clip, part_of(clip), label, track_of(clip), problem, clip in DEAD))
    return assemble(listed, recordings_of(folder, by_key(audio_below(folder), clip_id)), path)


def clip_id(path: str) -> str | None:
    """`<digit>/<name>.mp3`, of a path that ends so, whatever its suffix; None of others."""
    match = _PATH.fullmatch(path)
    return f"{match[1]}.mp3" if match else None


def part_of(clip: str) -> Part:
    """0 to b train, c validation, d to f test."""
    digit = int(clip[0], 16)
    return "train" if digit < 12 else "valid" if digit == 12 else "test"


def track_of(clip: str) -> str:
    """A clip's name without its start and end."""
    return re.sub(r"-\d+-\d+\.mp3$", "", clip)


def _tag_numbers(tags: list[str]) -> tuple[int, ...]:
    return tuple(sorted({TAGS.index(tag) for tag in tags}))


TASKS = (
    Task(
        name="mtt_top50",
        title="MagnaTagATune: top 50 tags",
        data_set="magnatagatune",
        kind="tags",
        outputs=TAGS,
        metric="roc_auc",
        protocols={"ours": Protocol(Windows(None)), "marble-v1": Protocol(Windows(None))},
        read=read,
    ),
)
