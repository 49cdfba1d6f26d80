"""One .npz a track: what `numpy.load` opens, written without ever holding the features in memory."""

import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from musicssl_jax.embedding.shared_folder import SharedFolder
from musicssl_jax.embedding.spool import Spool
from musicssl_jax.shapes import Float


class NpzFiles:
    """OUT/<track>.npz with features (layers, n, width); start, end and times (their mean), (n,) in seconds; layers;
    sample_rate."""

    def __init__(self, folder: SharedFolder, layers: Sequence[int], sample_rate: int):
        self._folder = folder
        self._constants = {"layers": np.array(layers), "sample_rate": np.array(sample_rate)}
        self.bytes_written = 0

    def done(self, track: str) -> bool:
        """Whether its features are there."""
        return self._folder.counts(self._path(track))

    def write(self, track: str, spool: Spool, bounds: Float[np.ndarray, "n 2"]) -> list[str]:
        """Writes a track's features; returns the tracks that are safe on the disk now. Raises OSError."""
        path = self._path(track)
        path.parent.mkdir(parents=True, exist_ok=True)
        # The suffix of a track stays in its name, since a.wav and a.mp3 may lie side by side; and names may be as long
        # as they can be.
        partial = path.with_name(f".{hashlib.sha256(path.name.encode()).hexdigest()[:16]}.partial")
        times = {"times": bounds.mean(axis=1), "start": bounds[:, 0], "end": bounds[:, 1]}
        try:
            with zipfile.ZipFile(partial, "w") as archive:
                _write_spool(archive, "features", spool)
                for name, array in (times | self._constants).items():
                    with archive.open(f"{name}.npy", "w") as file:
                        np.lib.format.write_array(file, array)
            partial.replace(path)
        except OSError:
            partial.unlink(missing_ok=True)
            raise
        self.bytes_written += path.stat().st_size
        return [track]

    def close(self) -> list[str]:
        """Everything is on the disk."""
        return []

    def _path(self, track: str) -> Path:
        return self._folder.path / f"{track}.npz"


def _write_spool(archive: zipfile.ZipFile, name: str, spool: Spool) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(spool.dtype), "fortran_order": False, "shape": spool.shape}
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for chunk in spool.chunks():
            file.write(chunk)
