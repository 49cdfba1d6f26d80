"""Crops per CPU-second through the pipeline, beside what the format and the machine allow.

    python -m benchmarks.data [--record_seconds=2,6,30] [--crop_seconds=5,30] [--output=FILE.md]

Files lie in the page cache. A row's `memmap` copies the crops out of one flat file of samples, the limit of the
machine; `reader` reads the records that a crop touches with a bare ArrayRecordReader and drops them, the limit of the
format; `pipeline` is `crop_batches` with all it does (order, proof of every record, crop out of neighbours, batch).
Rates are seconds of cropped audio per CPU-second of the whole process, the median over repetitions taken in turns.

`wait` is what a step that takes as long as a chip's would waits for its batch, as a share of the step, with training's
two reading threads. A chip's rate is an estimate: base model, 40% of its peak, 52 GFLOP for a second of audio.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import grain
import numpy as np
from absl import app, flags
from array_record.python.array_record_module import ArrayRecordReader

from benchmarks.machine import machine
from data_pipelines.crops import crop_batches
from data_pipelines.records import Collection, RecordWriter, open_collection, write_metadata
from data_pipelines.tf_example import encode_record

PACKAGES = ("grain", "array_record", "numpy")
RATE = 16000
TRACKS, TRACK_SECONDS = 180, 200  # 10 hours, 1.15 GB
BATCH_SECONDS = 480
CHIPS = {"H200": 0.4 * 989e12 / 52e9, "v5e host of 8": 0.4 * 8 * 197e12 / 52e9}
"""Audio seconds a second."""
GOALS = {5.0: 20_000, 30.0: 40_000}  # audio seconds per CPU-second

_RECORDS = flags.DEFINE_list("record_seconds", ["2", "3", "4", "6", "10", "30"], "Record lengths.")
_CROPS = flags.DEFINE_list("crop_seconds", ["5", "30"], "Crop lengths.")
_THREADS = flags.DEFINE_integer("threads", 1, "Grain's reading threads.")
_REPEATS = flags.DEFINE_integer("repeats", 5, "Repetitions of each measurement.")
_AUDIO = flags.DEFINE_float("audio_seconds", 15_000, "Audio cropped in one measurement.")
_OUTPUT = flags.DEFINE_string("output", None, "Markdown file to write the result to.")


class Row(NamedTuple):
    record: float
    crop: float
    memmap: float
    reader: float
    pipeline: float
    waits: tuple[float, ...]

    @property
    def read_seconds(self) -> float:
        """Audio read for a crop, on average: as many records as it touches."""
        return self.crop + self.record - 1 / RATE

    @property
    def share(self) -> float:
        return self.pipeline / self.reader


def build(folder: Path, record_seconds: float) -> Collection:
    record_samples = round(record_seconds * RATE)
    pcm = np.random.default_rng(0).integers(-(2**15), 2**15, TRACK_SECONDS * RATE, dtype=np.int16)
    with RecordWriter(folder, "train") as writer:
        for number in range(TRACKS):
            for start in range(0, len(pcm), record_samples):
                part = pcm[start : start + record_samples]
                track, length = f"{number:05d}", len(pcm)
                writer.write(encode_record(part, track=track, start=start, track_length=length, mean=0.0, std=0.5))
    write_metadata(folder, sample_rate=RATE, record_samples=record_samples, splits={"train": [writer.part]}, build={})
    return open_collection(folder)


def cpu_rate(work: Callable[[], float]) -> float:
    """Seconds of audio that `work` says it made, per CPU-second of this process."""
    began = time.process_time()
    audio_seconds = work()
    return audio_seconds / (time.process_time() - began)


def reader_alone(collection: Collection, crop_seconds: float) -> Callable[[], float]:
    """Reads, with a bare reader, the records that random crops touch."""
    split = collection.splits["train"]
    options = "readahead_buffer_size:0,max_parallelism:0"
    readers = [ArrayRecordReader(os.fspath(split.folder / shard.file), options) for shard in split.shards]
    where = [(reader, n) for reader in readers for n in range(reader.num_records())]
    per_track = len(where) // TRACKS
    size, crop_samples = collection.record_samples, round(crop_seconds * RATE)
    rng = np.random.default_rng(1)
    crops = round(_AUDIO.value / crop_seconds)

    def work() -> float:
        tracks = rng.integers(TRACKS, size=crops)
        starts = rng.integers(TRACK_SECONDS * RATE - crop_samples, size=crops)
        firsts, lasts = (
            tracks * per_track + starts // size,
            tracks * per_track + (starts + crop_samples - 1) // size,
        )
        for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True):
            for reader, position in where[first : last + 1]:
                reader.read([position])
        return crops * crop_seconds

    return work


def memmap_alone(folder: Path, crop_seconds: float) -> Callable[[], float]:
    """Copies random crops out of the same hours of music in one flat file."""
    file, crop_samples = folder / "flat.s16", round(crop_seconds * RATE)
    if not file.exists():
        track = np.random.default_rng(0).integers(-(2**15), 2**15, TRACK_SECONDS * RATE, dtype=np.int16)
        with file.open("wb") as opened:
            for _ in range(TRACKS):
                opened.write(track.tobytes())
    tracks = np.memmap(file, np.int16, "r").reshape(TRACKS, -1)
    rng = np.random.default_rng(1)
    crops = round(_AUDIO.value / crop_seconds)

    def work() -> float:
        which = rng.integers(TRACKS, size=crops).tolist()
        starts = rng.integers(TRACK_SECONDS * RATE - crop_samples, size=crops).tolist()
        for track, start in zip(which, starts, strict=True):
            np.array(tracks[track, start : start + crop_samples])
        return crops * crop_seconds

    return work


def open_pipeline(collection: Collection, crop_seconds: float, threads: int) -> grain.DatasetIterator:
    clips = round(BATCH_SECONDS / crop_seconds)
    return crop_batches(
        [collection],
        crop_samples=round(crop_seconds * RATE),
        seed=0,
        clips=clips,
        rows=range(clips),
        threads=threads,
    )


def pipeline(batches: grain.DatasetIterator) -> Callable[[], float]:
    """Takes batches and drops them."""

    def work() -> float:
        samples = 0
        while samples < _AUDIO.value * RATE:
            samples += next(batches)["audio"].size
        return samples / RATE

    return work


def waited(collection: Collection, crop_seconds: float, rate: float) -> float:
    """Share of its time that a step which hears `rate` seconds of audio a second waits for batches."""
    with closing(open_pipeline(collection, crop_seconds, threads=2)) as batches:
        next(batches)
        waits = []
        step = BATCH_SECONDS / rate
        for _ in range(50):
            time.sleep(step)
            began = time.perf_counter()
            next(batches)
            waits.append(time.perf_counter() - began)
    return sum(waits) / len(waits) / step


def measure(collection: Collection, folder: Path, record_seconds: float, crop_seconds: float) -> Row:
    with closing(open_pipeline(collection, crop_seconds, _THREADS.value)) as batches:
        works = [memmap_alone(folder, crop_seconds), reader_alone(collection, crop_seconds), pipeline(batches)]
        rates = [[cpu_rate(work) for work in works] for _ in range(_REPEATS.value + 1)][1:]  # the first warms up
    medians = (statistics.median(column) for column in zip(*rates, strict=True))
    waits = tuple(waited(collection, crop_seconds, rate) for rate in CHIPS.values())
    return Row(record_seconds, crop_seconds, *medians, waits)


def table(rows: list[Row]) -> str:
    lines = [
        "| record | crop | audio read for a crop | memmap | reader alone | pipeline | pipeline / reader | goal | wait, "
        + " | wait, ".join(f"{chip} ({rate:,.0f})" for chip, rate in CHIPS.items())
        + " |",
        "|---|---|---|---|---|---|---|---|" + "---|" * len(CHIPS),
    ]
    for row in rows:
        goal = f"{GOALS[row.crop]:,}" if row.crop in GOALS else ""
        lines.append(
            f"| {row.record:g} s | {row.crop:g} s | {row.read_seconds:.1f} s | {row.memmap:,.0f} | {row.reader:,.0f} "
            f"| {row.pipeline:,.0f} | {row.share:.2f} | {goal} | {' | '.join(f'{wait:.1%}' for wait in row.waits)} |"
        )
    return "\n".join(lines)


def verdict(rows: list[Row]) -> str:
    """The record length whose worst crop length is furthest above its goal."""
    margins: dict[float, float] = {}
    for row in rows:
        over = row.pipeline / GOALS.get(row.crop, row.reader)
        margins[row.record] = min(over, margins.get(row.record, over))
    best = max(margins, key=lambda record: margins[record])
    return f"Best record length: {best:g} s, {margins[best]:.2f} times the goal at its worst crop length."


def main(_: list[str]) -> None:
    rows = []
    for record_seconds in map(float, _RECORDS.value):
        with tempfile.TemporaryDirectory() as folder:
            collection = build(Path(folder) / "records", record_seconds)
            rows += [measure(collection, Path(folder), record_seconds, float(crop)) for crop in _CROPS.value]
    command = "python -m benchmarks.data " + " ".join(sys.argv[1:])
    report = f"{__doc__}\nMachine: {machine(PACKAGES)}\nCommand: `{command}`\n\n{table(rows)}\n\n{verdict(rows)}\n"
    print(report)
    if _OUTPUT.value:
        Path(_OUTPUT.value).write_text(report)
    worst = min(rows, key=lambda row: row.share)
    print(f"lowest ratio {worst.share:.2f} (pipeline/reader, {worst.crop:g} s of {worst.record:g} s records)")


if __name__ == "__main__":
    app.run(main)
