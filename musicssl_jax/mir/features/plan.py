"""What the features of some tasks will take, before anything runs: audio, windows, disk, hours."""

import itertools
import math
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import soundfile

from musicssl_jax.flops import PEAKS
from musicssl_jax.mir.features.encoders import Clips, Representation
from musicssl_jax.mir.features.extract import windows_name
from musicssl_jax.mir.features.windows import cut, padded_size, used_part
from musicssl_jax.mir.tasks.task import ProtocolName, Recording, Task, TaskData

OFFICIAL: Mapping[str, tuple[int, float]] = {
    "mtt_top50": (25860, 209.0),
    "gtzan_genre": (930, 7.75),
    "giantsteps_key": (1763, 58.8),
    "emomusic": (744, 9.3),
    "nsynth_pitch": (305979, 340.0),
    "nsynth_instrument": (305979, 340.0),
    "vocalset_technique": (3560, 10.1),
    "vocalset_singer": (3560, 10.1),
    "mtg_top50": (54380, 3689.0),
    "mtg_genre": (55094, 3735.0),
    "mtg_instrument": (24976, 1629.0),
    "mtg_moodtheme": (17982, 1095.0),
    "gtzan_beats": (930, 7.75),
}
"""(recordings, hours) of each task as the data sets' authors publish them: the three parts of its split together, and
where only lengths of clips are given (29.1, 30, 120, 45 and 4 s) the product. VocalSet: all of it, for both tasks."""

LARGEST: Mapping[str, tuple[int, float]] = {"mtg_jamendo": (55525, 3764.0)}
"""Of the union of a data set's tasks; elsewhere its largest task has all recordings of the others."""

THIS_MACHINE = "this machine"
ACCELERATORS = ("NVIDIA A100", "NVIDIA H100", "TPU v5 lite")
PEAK_SHARE = 0.3
DECODE_SPEED = 400.0
HOST_CORES = 16
ASSUMPTIONS = (
    f"accelerators: one device at {PEAK_SHARE:.0%} of its bfloat16 peak (data sheet), or the decoding of {HOST_CORES} "
    f"cores at {DECODE_SPEED:.0f} x real time each, whichever takes longer",
    "*: size as published, not of what is here; GB: kept on the disk, where a task's are twice while it is probed",
)

_MEASURE_SECONDS = 2.0
_MEASURED_FILES = 200


class Pass(NamedTuple):
    """One pass of an encoder over a data set, which serves `tasks`.

    from_files: whether recordings and hours are of what is here, not the published ones. speed: of this machine, in
    seconds of audio a second. hours_on: by device; None: not known of this encoder.
    """

    encoder: str
    data_set: str
    windows: str
    tasks: tuple[str, ...]
    recordings: int
    hours_of_audio: float
    from_files: bool
    window_count: int
    gigabytes: float
    speed: float
    hours_on: dict[str, float | None]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return self._asdict() | {"tasks": list(self.tasks)}


def plan_features(
    representation: Representation,
    tasks: Sequence[Task],
    protocol: ProtocolName,
    found: Mapping[str, TaskData],
    frames_of_layers: Sequence[int] = (),
) -> list[Pass]:
    """The passes that `tasks` ask for. found: of tasks whose data are here; their lengths are read from the files, of
    200 evenly spaced ones. frames_of_layers: kept for tasks of beats. This machine's speed is measured on noise.
    """
    together: dict[tuple[str, str], list[Task]] = {}
    for task in tasks:
        key = task.data_set, windows_name(task.protocols[protocol].windows)
        together.setdefault(key, []).append(task)
    speeds: dict[int, float] = {}
    return [
        _plan_pass(representation, of_set, protocol, found, tuple(frames_of_layers), speeds)
        for of_set in together.values()
    ]


def _plan_pass(
    representation: Representation,
    tasks: list[Task],
    protocol: ProtocolName,
    found: Mapping[str, TaskData],
    frames_of_layers: tuple[int, ...],
    speeds: dict[int, float],
) -> Pass:
    windows = tasks[0].protocols[protocol].windows
    recordings, hours, from_files = _audio(tasks, found)
    rate = representation.sample_rate
    mean = math.ceil(hours * 3600 * rate / max(1, recordings))  # samples of a recording
    used = np.diff(used_part(np.empty(mean, np.int16), rate, windows._replace(trim_silence=False)))[0]
    spans = cut(int(used), rate, windows)
    size = padded_size(spans[0][1] - spans[0][0], rate, windows) if spans else rate
    count = recordings * len(spans)
    seconds = count * size / rate  # that go through the encoder
    if size not in speeds:
        speeds[size] = measure_speed(representation, size)
    frames = len(frames_of_layers) * representation.frame_width if any(task.kind == "beats" for task in tasks) else 0
    values = count * representation.layers * representation.width + hours * 3600 * representation.frame_rate * frames
    return Pass(
        encoder=representation.name,
        data_set=tasks[0].data_set,
        windows=windows_name(windows),
        tasks=tuple(task.name for task in tasks),
        recordings=recordings,
        hours_of_audio=hours,
        from_files=from_files,
        window_count=count,
        gigabytes=2 * values / 1e9,
        speed=speeds[size],
        hours_on={
            THIS_MACHINE: seconds / speeds[size] / 3600,
            **{name: _hours_on(name, representation, size, count, hours) for name in ACCELERATORS},
        },
    )


def _audio(tasks: Sequence[Task], found: Mapping[str, TaskData]) -> tuple[int, float, bool]:
    """Recordings, hours, and whether they are those of what is here."""
    if all(task.name in found for task in tasks):
        every = {id: recording for task in tasks for id, recording in found[task.name].recordings.items()}
        if hours := hours_of(list(every.values())):
            return len(every), hours, True
    return *_published(tasks), False


def _published(tasks: Sequence[Task]) -> tuple[int, float]:
    largest = max(OFFICIAL[task.name] for task in tasks)
    union = LARGEST.get(tasks[0].data_set)
    if len(tasks) == 1 or union is None:
        return largest
    return min(union[0], sum(OFFICIAL[task.name][0] for task in tasks)), min(
        union[1], sum(OFFICIAL[task.name][1] for task in tasks)
    )


def hours_of(recordings: Sequence[Recording]) -> float:
    """Of audio, by the headers of some of the files; those that do not say it count as the mean of the others."""
    step = max(1, len(recordings) // _MEASURED_FILES)
    seconds = []
    for recording in recordings[::step]:
        try:
            seconds.append(soundfile.info(recording.path).duration)
        except (soundfile.SoundFileError, OSError):
            continue
    return float(np.mean(seconds)) * len(recordings) / 3600 if seconds else 0.0


def measure_speed(representation: Representation, size: int) -> float:
    """Seconds of audio a second, in full batches of windows of `size` samples, compilation left out."""
    rows = representation.rows(size / representation.sample_rate)
    audio = np.random.default_rng(0).integers(-3000, 3000, (rows, size), dtype=np.int16)
    clips = Clips(audio, np.zeros(rows, np.float32), np.full(rows, 0.05, np.float32), np.full(rows, size, np.int32))
    representation.encode(clips, ())
    began, times = time.monotonic(), 0
    while time.monotonic() - began < _MEASURE_SECONDS:
        representation.encode(clips, ())
        times += 1
    return times * rows * size / representation.sample_rate / (time.monotonic() - began)


def _hours_on(name: str, representation: Representation, size: int, count: int, hours: float) -> float | None:
    if representation.flops is None:
        return None
    encode = count * representation.flops(size) / (PEAKS[name][0] * 1e12 * PEAK_SHARE) / 3600
    return max(encode, hours / DECODE_SPEED / HOST_CORES)


def plan_table(passes: Sequence[Pass]) -> str:
    """The passes of each encoder and their sums, for people."""
    machine = f"this machine ({os.cpu_count()} cores)"
    rows = [["data set", "tasks", "hours", "windows", "GB", machine, *ACCELERATORS]]
    for encoder, of_encoder in itertools.groupby(passes, key=lambda one: one.encoder):
        some = list(of_encoder)
        rows += [[encoder], *(_row(one) for one in some), _sums("all", some)]
    if len({one.encoder for one in passes}) > 1:
        rows.append(_sums("all of all", passes))
    table = [row for row in rows if len(row) > 1]  # the others are titles
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip() for row in rows]
    return "\n".join([*lines, *ASSUMPTIONS])


def _row(one: Pass) -> list[str]:
    return [
        f"{one.data_set} {one.windows}",
        ",".join(one.tasks),
        f"{one.hours_of_audio:.4g}" + ("" if one.from_files else "*"),
        str(one.window_count),
        f"{one.gigabytes:.2f}",
        f"{_time(one.hours_on[THIS_MACHINE])} ({one.speed:.0f} x)",
        *(_time(one.hours_on[name]) for name in ACCELERATORS),
    ]


def _sums(name: str, passes: Sequence[Pass]) -> list[str]:
    return [
        name,
        "",
        f"{sum(one.hours_of_audio for one in passes):.4g}",
        str(sum(one.window_count for one in passes)),
        f"{sum(one.gigabytes for one in passes):.2f}",
        *(_time(_sum([one.hours_on[device] for one in passes])) for device in (THIS_MACHINE, *ACCELERATORS)),
    ]


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _time(hours: float | None) -> str:
    if hours is None:
        return "?"
    return f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.1f} min"
