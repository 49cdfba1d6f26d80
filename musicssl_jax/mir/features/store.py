"""Features of a data set's recordings on the disk, and their layers as arrays."""

import dataclasses
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from musicssl_jax.embedding.shared_folder import make_folder
from musicssl_jax.embedding.spool import Spool
from musicssl_jax.errors import UserError, shortened
from musicssl_jax.mir.features.parts import Parts
from musicssl_jax.shapes import Float, Int


@dataclasses.dataclass(frozen=True)
class Layers:
    """Windows of some recordings, recording after recording, in `count` layers of `width`.

    recording: number of each row's, in the order in which they were asked for. start, end: of the windows, in seconds
    of the recording as it is; NaN where they are not known.
    """

    recording: Int[np.ndarray, " rows"]
    start: Float[np.ndarray, " rows"]
    end: Float[np.ndarray, " rows"]
    values: Float[np.ndarray, "count rows width"]

    @property
    def count(self) -> int:
        return self.values.shape[0]

    @property
    def rows(self) -> int:
        return self.values.shape[1]

    @property
    def width(self) -> int:
        return self.values.shape[2]

    def layer(self, index: int) -> Float[np.ndarray, "rows width"]:
        """float16, mapped from the disk."""
        return self.values[index]


Content = tuple[int, Float[np.ndarray, "count n width"], Float[np.ndarray, " n"], Float[np.ndarray, " n"]]
"""Number of a recording, its windows in all layers (float16), their begins and ends."""


@dataclasses.dataclass(frozen=True)
class Frames:
    """Frames of one layer of some recordings, one recording after the other.

    values: float16, mapped from the disk. offsets: recording i has rows offsets[i] to offsets[i + 1]. Frame n of a
    recording has its centre at first_frame + n / frame_rate seconds.
    """

    values: Float[np.ndarray, "rows width"]
    offsets: Int[np.ndarray, " bounds"]
    frame_rate: float
    first_frame: float


class FeatureStore:
    """Features that `ensure_features` has made: in FOLDER/windows of every window the mean of each layer, in
    FOLDER/frames-06 every frame of layer 6. `rejected`: recordings that were asked for and cannot be used, and why."""

    def __init__(
        self,
        folder: Path,
        *,
        layers: int,
        width: int,
        frame_width: int,
        frame_rate: float,
        first_frame: float,
        rejected: dict[str, str],
    ):
        self.folder, self.rejected = folder, rejected
        self._shape = layers, width
        self._frames = frame_width, frame_rate, first_frame
        self._windows = Parts(windows_folder(folder))

    def layers_for(self, recordings: Sequence[str]) -> Layers:
        """Their windows. The array is put together on the disk of the store, and leaves it with the last user of it.

        Raises UserError: a recording is not here, or the disk is full.
        """
        counts = self._counts(self._windows, recordings)
        return assembled(self.folder, self._read_windows(recordings), counts, *self._shape)

    def _read_windows(self, recordings: Sequence[str]) -> Iterator[Content]:
        layers, width = self._shape
        number = {recording: place for place, recording in enumerate(recordings)}
        for recording, record in self._windows.read(recordings):
            start, end = (np.frombuffer(record[name], "<f8") for name in ("start", "end"))
            values = np.frombuffer(record["features"], "<f2").reshape(-1, layers, width)
            yield number[recording], values.swapaxes(0, 1), start, end

    def frames_for(self, recordings: Sequence[str], layer: int) -> Frames:
        """The frames of one layer, put together as by `layers_for`."""
        width, frame_rate, first_frame = self._frames
        parts = Parts(frames_folder(self.folder, layer))
        offsets = np.cumsum([0, *self._counts(parts, recordings)])
        number = {recording: place for place, recording in enumerate(recordings)}
        spool = Spool(self.folder, 1, int(offsets[-1]), width, "float16")
        for recording, record in parts.read(recordings):
            values = np.frombuffer(record["features"], "<f2").reshape(1, -1, width)
            _write(spool, int(offsets[number[recording]]), values)
        return Frames(spool.mapped()[0], offsets, frame_rate, first_frame)

    def _counts(self, parts: Parts, recordings: Sequence[str]) -> list[int]:
        absent = [recording for recording in recordings if recording not in parts.entries]
        if absent:
            raise UserError(f"{parts.folder} has no features of {shortened(absent)}")
        if len(set(recordings)) < len(recordings):
            raise ValueError("a recording is asked for twice")
        return [parts.entries[recording].rows for recording in recordings]


def assembled(folder: Path | None, contents: Iterable[Content], counts: list[int], layers: int, width: int) -> Layers:
    """The layers of recordings that have `counts` windows, from what comes in any order.

    The array is in a file without a name in `folder`, by default where temporary files are.
    Raises UserError: the folder cannot be written, or the disk is full.
    """
    if folder is not None:
        make_folder(folder, "--cache")
    offsets = np.cumsum([0, *counts])
    start, end = np.empty((2, offsets[-1]))
    spool = Spool(folder or Path(tempfile.gettempdir()), layers, int(offsets[-1]), width, "float16")
    for number, values, begins, ends in contents:
        first, last = offsets[number], offsets[number + 1]
        start[first:last], end[first:last] = begins, ends
        _write(spool, int(first), values)
    return Layers(np.repeat(np.arange(len(counts)), counts), start, end, spool.mapped())


def windows_folder(folder: Path) -> Path:
    return folder / "windows"


def frames_folder(folder: Path, layer: int) -> Path:
    return folder / f"frames-{layer:02d}"


def _write(spool: Spool, first: int, values: Float[np.ndarray, "count n width"]) -> None:
    try:
        spool.write(first, values)
    except OSError as error:
        raise UserError(f"no room to put features together ({error.strerror}): free some disk, then again") from error
