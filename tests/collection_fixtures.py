"""Small collections made with the package's own writer."""

from pathlib import Path

import numpy as np

from data_pipelines.records import RecordWriter, write_metadata
from data_pipelines.tf_example import encode_record


def noise_tracks(lengths: list[int], seed: int = 0) -> dict[str, np.ndarray]:
    """Tracks of random PCM, so that every sample tells where it came from."""
    rng = np.random.default_rng(seed)
    return {
        f"album {n}/tr\u00e4ck {n}.wav": rng.integers(-(2**15), 2**15, length, dtype=np.int16)
        for n, length in enumerate(lengths)
    }


def records_of(track: str, pcm: np.ndarray, record_samples: int) -> list[bytes]:
    waveform = pcm / 32768
    return [
        encode_record(
            pcm[start : start + record_samples],
            track=track,
            start=start,
            track_length=len(pcm),
            mean=float(waveform.mean()),
            std=float(waveform.std()),
        )
        for start in range(0, len(pcm), record_samples)
    ]


def write_collection(
    folder: Path,
    splits: dict[str, dict[str, np.ndarray]],
    *,
    record_samples: int = 1000,
    sample_rate: int = 16000,
    shard_bytes: int = 20_000,
) -> Path:
    parts = {}
    for split, tracks in splits.items():
        with RecordWriter(folder, split, shard_bytes=shard_bytes) as writer:
            for track, pcm in tracks.items():
                for record in records_of(track, pcm, record_samples):
                    writer.write(record)
        parts[split] = [writer.part]
    write_metadata(folder, sample_rate=sample_rate, record_samples=record_samples, splits=parts, build={"by": "tests"})
    return folder
