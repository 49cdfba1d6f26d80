"""What a music task is: recordings with labels, a split, and how they are cut into windows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

Part = Literal["train", "valid", "test"]
PARTS: tuple[Part, ...] = ("train", "valid", "test")

Kind = Literal["class", "tags", "numbers", "beats"]
"""class: one of `outputs`. tags: any of them. numbers: one real number for each. beats: times in seconds."""

ProtocolName = Literal["ours", "marble-v1"]
PROTOCOLS: tuple[ProtocolName, ...] = ("ours", "marble-v1")


class Recording(NamedTuple):
    """One piece of audio of a data set.

    id: unique in the data set, the same on every machine. path: an audio file; or, where `entry` says so, the folder
    of a prepared TFDS data set, whose `entry` (split, number) it is.
    """

    id: str
    path: str
    entry: tuple[str, int] | None = None


class Example(NamedTuple):
    """What a task says of a recording.

    label: of "class" its number; of "tags" a tuple of numbers, rising; of "numbers" a tuple of floats; of "beats" a
    tuple of seconds, rising. group: what is resampled in the bootstrap (a song, a singer, an instrument).
    """

    recording: str
    part: Part
    label: Any
    group: str


class Missing(NamedTuple):
    """A recording that the split lists and that cannot be used. known: the data set is known to lack it."""

    recording: str
    part: Part
    reason: str
    known: bool = False


@dataclass(frozen=True)
class TaskData:
    """A task on this machine. recordings: by id, each named by at least one example. notes: what was decided that the
    user should know, a line each. doubts: why the split cannot be the one that it is meant to be; notes say it, too."""

    recordings: Mapping[str, Recording]
    examples: tuple[Example, ...]
    missing: tuple[Missing, ...] = ()
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


Ensemble = Literal["mean", "vote", "max", "gmean"]
"""How probabilities of windows become a recording's."""


class Windows(NamedTuple):
    """How a recording is cut: windows of `seconds` that follow on each other, each encoded alone.

    seconds: None: the recording is one window. first_seconds: only the beginning of the recording is used.
    min_seconds: a last window that is shorter is left out, unless it is the only one.
    normalize: of what the statistics are that the encoder's input is normalised by.
    trim_silence: whether quiet ends of the recording are cut off first.
    """

    seconds: float | None
    first_seconds: float | None = None
    min_seconds: float = 0.0
    normalize: Literal["recording", "window"] = "recording"
    trim_silence: bool = False


@dataclass(frozen=True)
class Protocol:
    """How a task is run: everything that changes scores and is not the encoder.

    unit: whether a recording gets one answer, the mean over its windows, or every window its own. ensembles: instead of
    the mean, those ways to one answer of which validation chooses.
    """

    windows: Windows
    unit: Literal["recording", "window"] = "recording"
    ensembles: tuple[Ensemble, ...] = ()


WHOLE: Mapping[ProtocolName, Protocol] = dict.fromkeys(PROTOCOLS, Protocol(Windows(None)))
"""A recording is one window, in every protocol."""


@dataclass(frozen=True)
class Task:
    """One of the 13.

    data_set: tasks of the same data set and the same windows share features; folder of the data set in --data_dir.
    outputs: names of classes, tags or numbers; empty for beats. metric: the main one, a key of `metrics.score`'s.
    read(data_dir, protocol) gives what is there. Raises UserError: no such data set, or not as it should be.
    """

    name: str
    title: str
    data_set: str
    kind: Kind
    outputs: tuple[str, ...]
    metric: str
    protocols: Mapping[ProtocolName, Protocol]
    read: Callable[[Path, ProtocolName], TaskData]
