"""Writes the decoded tracks of a part as records."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from data_pipelines.journal import pcm_path
from data_pipelines.plan import PartPlan, Settings, Track
from data_pipelines.records import Part, RecordWriter
from data_pipelines.tf_example import encode_record

# A part's PCM fits a shard; the writer counts record headers too, and must not begin a second shard for
# these.
_HEADROOM = 1.1


def write_part(
    plan: PartPlan, pcm_folder: Path, output: Path, settings: Settings, progress: Callable[[float], None]
) -> Part:
    """Writes the part's shards into `output` under temporary names. Raises UserError where it cannot."""
    with open_writer(plan.split, plan.index, output, settings) as writer:
        for track in plan.tracks:
            for record in _records(track, pcm_path(pcm_folder, track.source), settings.record_samples):
                writer.write(record)
                progress(0.0)
    return writer.part


def open_writer(split: str, index: int, output: Path, settings: Settings) -> RecordWriter:
    """A writer of the shards of one part."""
    shard_bytes = round(_HEADROOM * settings.shard_bytes)
    return RecordWriter(output, split, shard_bytes=shard_bytes, part=f"{index:05d}")


def encode(track: Track, start: int, pcm: bytes) -> bytes:
    """The record of `track` that begins at sample `start`, from its PCM16 bytes."""
    return encode_record(
        np.frombuffer(pcm, "<i2"),
        track=track.source.track,
        start=start,
        track_length=track.audio.samples,
        mean=track.audio.mean,
        std=track.audio.std,
    )


def _records(track: Track, pcm: Path, record_samples: int) -> Iterator[bytes]:
    with open(pcm, "rb") as file:
        for start in range(0, track.audio.samples, record_samples):
            yield encode(track, start, file.read(2 * record_samples))
