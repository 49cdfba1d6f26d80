"""Features as a Parquet data set: one row for each track, time and layer."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from musicssl_jax.embedding.spool import Spool
from musicssl_jax.errors import UserError
from musicssl_jax.shapes import Float

ROW_GROUP_BYTES = 32 << 20


class Parquet:
    """Columns: file (string), start and end (double, seconds), layer (int16), features (fixed-size list of `width`
    float16 or float32). Rows in the order of file, start, layer."""

    def __init__(self, layers: list[int], width: int, dtype: str):
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError:
            raise UserError("--format=parquet needs pyarrow: pip install 'musicssl_jax[parquet]'") from None
        self.arrow, self._parquet = pa, pq
        self.layers = np.array(layers, np.int16)
        values = pa.float16() if dtype == "float16" else pa.float32()
        columns = {"file": pa.string(), "start": pa.float64(), "end": pa.float64(), "layer": pa.int16()}
        self.schema = pa.schema([*columns.items(), ("features", pa.list_(values, width))])

    def name(self, number: int) -> str:
        return f"part-{number:05d}.parquet"

    def open(self, path: Path) -> "ParquetPart":
        # Features take more room in a dictionary than without.
        return ParquetPart(self, self._parquet.ParquetWriter(path, self.schema, use_dictionary=["file"]))

    def published(self, folder: Path, parts: list[dict[str, Any]]) -> None:
        """A folder of parts is a data set as it is."""


class ParquetPart:
    """One file that is being written, in row groups of some 32 MB."""

    def __init__(self, kind: Parquet, writer: Any):
        self._kind, self._writer = kind, writer
        self._waiting: list[Any] = []
        self._waiting_bytes = self._rows = 0

    def write(self, track: str, spool: Spool, bounds: Float[np.ndarray, "n 2"]) -> None:
        for first, block in spool.blocks():
            self._waiting.append(self._rows_of(track, block, bounds[first : first + block.shape[1]]))
            self._waiting_bytes += block.nbytes
            if self._waiting_bytes >= ROW_GROUP_BYTES:
                self._flush()

    def close(self) -> Mapping[str, Any]:
        self._flush()
        self._writer.close()
        return {"rows": self._rows}

    def _rows_of(self, track: str, block: Float[np.ndarray, "layers n width"], bounds: Float[np.ndarray, "n 2"]) -> Any:
        pa = self._kind.arrow
        layers, rows, width = block.shape
        values = np.ascontiguousarray(block.swapaxes(0, 1)).reshape(-1)
        columns = [
            pa.array([track] * (rows * layers)),
            *(pa.array(np.repeat(bounds[:, side], layers)) for side in (0, 1)),
            pa.array(np.tile(self._kind.layers, rows)),
            pa.FixedSizeListArray.from_arrays(pa.array(values), width),
        ]
        return pa.record_batch(columns, schema=self._kind.schema)

    def _flush(self) -> None:
        if self._waiting:
            table = self._kind.arrow.Table.from_batches(self._waiting, schema=self._kind.schema)
            self._writer.write_table(table, row_group_size=max(1, len(table)))
            self._rows += len(table)
        self._waiting, self._waiting_bytes = [], 0
