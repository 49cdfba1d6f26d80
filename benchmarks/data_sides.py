"""The sides of `benchmarks.data`: what each does for a second of cropped audio."""

import os
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.turns import memory, serve
from data_pipelines.records import open_collection

BATCH_SECONDS = 480
STEPS = 50
"""Over which waiting is averaged."""


class Task(NamedTuple):
    """folder: of `records` and `flat.s16`. audio_seconds: cropped in a piece of work. threads: that Grain reads in."""

    folder: str
    tracks: int
    track_samples: int
    sample_rate: int
    crop_samples: int
    audio_seconds: float
    threads: int

    @property
    def crops(self) -> int:
        return round(self.audio_seconds * self.sample_rate / self.crop_samples)

    @property
    def crop_seconds(self) -> float:
        return self.crop_samples / self.sample_rate


class Way(ABC):
    """A way to come to random crops."""

    @abstractmethod
    def take(self) -> float:
        """Takes crops and drops them; seconds of audio that they were."""


class Memmap(Way):
    """Copies crops out of one flat file."""

    def __init__(self, task: Task):
        self.task, self.rng = task, np.random.default_rng(1)
        self.tracks = np.memmap(Path(task.folder) / "flat.s16", np.int16, "r").reshape(task.tracks, -1)

    def take(self) -> float:
        task = self.task
        which = self.rng.integers(task.tracks, size=task.crops).tolist()
        starts = self.rng.integers(task.track_samples - task.crop_samples, size=task.crops).tolist()
        for track, start in zip(which, starts, strict=True):
            np.array(self.tracks[track, start : start + task.crop_samples])
        return task.crops * task.crop_seconds


class Reader(Way):
    """Reads, with a bare reader, the records that crops touch."""

    def __init__(self, task: Task):
        from array_record.python.array_record_module import ArrayRecordReader

        self.task, self.rng = task, np.random.default_rng(1)
        collection = open_collection(Path(task.folder) / "records")
        split, self.size = collection.splits["train"], collection.record_samples
        options = "readahead_buffer_size:0,max_parallelism:0"
        readers = [ArrayRecordReader(os.fspath(split.folder / shard.file), options) for shard in split.shards]
        self.where = [(reader, n) for reader in readers for n in range(reader.num_records())]

    def take(self) -> float:
        task = self.task
        tracks = self.rng.integers(task.tracks, size=task.crops) * (len(self.where) // task.tracks)
        starts = self.rng.integers(task.track_samples - task.crop_samples, size=task.crops)
        firsts, lasts = tracks + starts // self.size, tracks + (starts + task.crop_samples - 1) // self.size
        for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True):
            for reader, position in self.where[first : last + 1]:
                reader.read([position])
        return task.crops * task.crop_seconds


class Pipeline(Way):
    """`crop_batches`."""

    def __init__(self, task: Task):
        from data_pipelines.crops import crop_batches

        self.task = task
        clips = max(1, round(BATCH_SECONDS / task.crop_seconds))
        self.batches = crop_batches(
            [open_collection(Path(task.folder) / "records")],
            crop_samples=task.crop_samples,
            seed=0,
            clips=clips,
            rows=range(clips),
            threads=task.threads,
        )

    def take(self) -> float:
        samples = 0
        while samples < self.task.audio_seconds * self.task.sample_rate:
            samples += next(self.batches)["audio"].size
        return samples / self.task.sample_rate

    def waited(self, rate: float) -> float:
        """Share of its time that a step which hears `rate` seconds of audio a second waits for batches."""
        next(self.batches)
        waits, step = [], BATCH_SECONDS / rate
        for _ in range(STEPS):
            time.sleep(step)
            began = time.perf_counter()
            next(self.batches)
            waits.append(time.perf_counter() - began)
        return sum(waits) / len(waits) / step


WAYS = {"memmap": Memmap, "reader": Reader, "pipeline": Pipeline}


class Served:
    """One of WAYS; `prepare` first."""

    def prepare(self, way: str, **task: float) -> None:
        self.way = WAYS[way](Task(**task))

    def work(self, number: int) -> dict[str, float]:
        """rate: seconds of audio per CPU-second of the whole process."""
        del number
        began = time.process_time()
        audio_seconds = self.way.take()
        return {"rate": round(audio_seconds / (time.process_time() - began), 1)}

    def waited(self, rate: float) -> float:
        return self.way.waited(rate)


if __name__ == "__main__":
    side = Served()
    serve({"prepare": side.prepare, "work": side.work, "waited": side.waited, "memory": memory})
