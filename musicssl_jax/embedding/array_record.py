"""Features as ArrayRecord shards that form a TFDS data set: a record holds some seconds of one track."""

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.tf_example import encode_bytes
from data_pipelines.tfds_metadata import data_set_files, tensor, text
from musicssl_jax.embedding.shared_folder import write_whole
from musicssl_jax.embedding.spool import Spool
from musicssl_jax.shapes import Float

_NAME, _SPLIT, _VERSION = "features", "music", "1.0.0"


class ArrayRecords:
    """Each record is a tf.Example of file (text), features (n, layers, width), start and end (n,) float64 in seconds,
    as raw little-endian bytes. n is what some 4 MB hold, or what is left of the track."""

    def __init__(self, layers: list[int], width: int, dtype: str):
        self._features = {
            "file": text(),
            "features": tensor(dtype, [-1, len(layers), width]),
            "start": tensor("float64", [-1]),
            "end": tensor("float64", [-1]),
        }

    def name(self, number: int) -> str:
        return f"{_NAME}-{_SPLIT}-{number:05d}.array_record"

    def open(self, path: Path) -> "ArrayRecordPart":
        return ArrayRecordPart(path)

    def published(self, folder: Path, parts: list[dict[str, Any]]) -> None:
        """Says to TFDS how many records there are."""
        shards = [(part["records"], part["bytes"]) for part in parts]
        template = "{DATASET}-{SPLIT}-{SHARD_INDEX}.{FILEFORMAT}"
        for name, content in data_set_files(
            _NAME, _VERSION, {_SPLIT: shards}, self._features, template=template
        ).items():
            write_whole(folder / name, json.dumps(content, indent=2))


class ArrayRecordPart:
    """One shard that is being written."""

    def __init__(self, path: Path):
        from array_record.python.array_record_module import ArrayRecordWriter

        self._writer = ArrayRecordWriter(os.fspath(path), "group_size:1,uncompressed")
        self._records = self._bytes = 0

    def write(self, track: str, spool: Spool, bounds: Float[np.ndarray, "n 2"]) -> None:
        for first, block in spool.blocks():
            start, end = bounds[first : first + block.shape[1]].T.astype("<f8")
            little = block.dtype.newbyteorder("<")
            record = encode_bytes(
                {
                    "file": track.encode(),
                    "features": block.swapaxes(0, 1).astype(little).tobytes(),
                    "start": start.tobytes(),
                    "end": end.tobytes(),
                }
            )
            try:
                self._writer.write(record)
            except (RuntimeError, ValueError) as error:  # what its C++ code makes of a full disk
                raise OSError(errno.EIO, str(error)) from error
            self._records += 1
            self._bytes += len(record)

    def close(self) -> Mapping[str, Any]:
        self._writer.close()
        return {"records": self._records, "bytes": self._bytes}
