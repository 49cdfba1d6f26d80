"""Once through the encoder for every recording: from audio to the features that are kept."""

import collections
import contextlib
import fcntl
import json
import os
import re
import sys
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from data_pipelines.audio_files import Rejected
from musicssl_jax.embedding.shared_folder import make_folder, write_whole
from musicssl_jax.embedding.spool import as_dtype
from musicssl_jax.errors import UserError
from musicssl_jax.mir.features.encoders import Clips, Encoded, Representation
from musicssl_jax.mir.features.parts import Parts, PartWriter, remove_damaged
from musicssl_jax.mir.features.recordings import Decoded, decode_ahead, source_of, statistics
from musicssl_jax.mir.features.store import FeatureStore, frames_folder, windows_folder
from musicssl_jax.mir.features.windows import LIMITS, SILENCE_DB, cut, padded_size
from musicssl_jax.mir.tasks.task import Recording, Windows
from musicssl_jax.parallel import barrier
from musicssl_jax.shapes import Float

FORMAT = 2
"""Of what is in a store, and of how audio becomes features where nothing else names it (decoding, resampling)."""

SETTINGS = "features.json"

_SMALLEST_BLOCK = 16  # recordings; batches never reach from one block into the next


def ensure_features(
    representation: Representation,
    recordings: Collection[Recording],
    windows: Windows,
    folder: Path,
    *,
    data_set: str,
    frames_of_layers: Sequence[int] | None = None,
) -> FeatureStore:
    """The features of these recordings, of which only those are made that `folder` does not hold.

    Tasks on the same audio and windows share a store: FOLDER/<encoder>/<data set>/<windows>. Every window is encoded
    alone; the means of all its layers are kept, and, of `frames_of_layers`, every frame (float16, values clipped to its
    range). Recordings that cannot be used are in the store's `rejected` and are tried again the next time. With several
    JAX processes each does its share; the folder is then one that all of them see.

    Stopped anywhere, the same call goes on and ends with the same numbers: a batch is made up of recordings that are
    neighbours in the order of their ids, and these are kept together or not at all.
    Raises UserError: the folder cannot be written, a user's encoder fails, features are no numbers, or no frames.
    """
    chosen = tuple(frames_of_layers or ())
    _check_frames(representation, windows, chosen)
    place = folder / encoder_folder(representation) / data_set / windows_name(windows)
    make_folder(place, "--cache")
    with _alone(place):
        if jax.process_index() == 0:
            _prepare(place, representation, windows, data_set)
        _meet("features prepared")
        job = _Job(representation, windows, place, chosen)
        job.run(sorted(recordings, key=lambda recording: recording.id), data_set)
        write_whole(place / _rejects_name(jax.process_index()), json.dumps(job.rejected, indent=1))
        _meet("features made")
        rejects = [json.loads((place / _rejects_name(process)).read_text()) for process in range(jax.process_count())]
    return FeatureStore(
        place,
        layers=representation.layers,
        width=representation.width,
        frame_width=representation.frame_width,
        frame_rate=representation.frame_rate,
        first_frame=representation.first_frame,
        rejected={recording: reason for of_process in rejects for recording, reason in of_process.items()},
    )


def encoder_folder(representation: Representation) -> str:
    """Of its features: by what they follow from, so that a checkpoint may move."""
    name = representation.name if representation.kind in ("baseline", "function") else representation.kind
    return f"{re.sub(r'[^A-Za-z0-9]+', '_', name)}-{representation.sha256[:16]}"


def windows_name(windows: Windows) -> str:
    """As a folder's name: every field that is not the default."""
    parts = ["whole" if windows.seconds is None else f"{windows.seconds:.9g}s"]
    parts += [f"first_{windows.first_seconds:.9g}s"] if windows.first_seconds is not None else []
    parts += [f"at_least_{windows.min_seconds:.9g}s"] if windows.min_seconds else []
    parts += ["normalized_alone"] if windows.normalize == "window" else []
    return "-".join(parts + ([f"trimmed_{SILENCE_DB:g}dB"] if windows.trim_silence else []))


def _check_frames(representation: Representation, windows: Windows, chosen: tuple[int, ...]) -> None:
    if chosen and (windows.seconds is not None or windows.trim_silence):
        raise ValueError("frames are kept of recordings that are one window, untrimmed: their times are then one grid")
    if chosen and not representation.frame_rate:
        raise UserError(f"{representation.name} has no frames, which beats are read from")
    if not all(0 <= layer < representation.layers for layer in chosen):
        raise ValueError(f"frames of layers {chosen}: want some of 0 to {representation.layers - 1}")


def _prepare(place: Path, representation: Representation, windows: Windows, data_set: str) -> None:
    """Says what is in the folder, and takes out of it what is damaged, or was made by other rules."""
    settings = {
        "format": FORMAT,
        "encoder": representation.name,
        "encoder_sha256": representation.sha256,
        "data_set": data_set,
        "windows": windows._asdict(),
        **LIMITS,
        "layers": representation.layers,
        "width": representation.width,
        "sample_rate": representation.sample_rate,
        "frame_rate": representation.frame_rate,
        "first_frame": representation.first_frame,
    }
    _discard_others(place, settings)
    write_whole(place / SETTINGS, json.dumps(settings, indent=2) + "\n")
    for folder in sorted(path for path in place.iterdir() if path.is_dir()):
        for path in remove_damaged(folder):
            tqdm.write(f"{path} was damaged and is made anew", file=sys.stderr)


def _discard_others(place: Path, settings: dict[str, Any]) -> None:
    """Takes the parts out of a store whose settings are not these, but for the encoder's name."""
    parts = list(place.glob("*/part-*"))
    try:
        same = json.loads((place / SETTINGS).read_text()) | {"encoder": settings["encoder"]} == settings
    except (OSError, ValueError, TypeError):
        same = False
    if parts and not same:
        tqdm.write(f"{place} holds features of another version: they are made anew", file=sys.stderr)
        for path in parts:
            path.unlink()


class _InWork:
    """A recording of which some windows are still to come. start, end: of its windows, in seconds."""

    def __init__(self, decoded: Decoded, spans: list[tuple[int, int]], representation: Representation):
        self.decoded = decoded
        self.start, self.end = (decoded.start + np.array(spans, np.float64) / representation.sample_rate).T
        self.pooled = np.empty((len(spans), representation.layers, representation.width), np.float16)
        self.frames: np.ndarray | None = None
        self.left = len(spans)


class _Window(NamedTuple):
    """A window on its way through the encoder: number, and samples [begin, end) of the recording's used part."""

    item: _InWork
    number: int
    begin: int
    end: int


class _Job:
    """One call of `ensure_features`: what there is, what is written, and what was rejected."""

    def __init__(self, representation: Representation, windows: Windows, place: Path, chosen: tuple[int, ...]):
        self._representation, self._windows, self._chosen = representation, windows, chosen
        folders = [windows_folder(place), *(frames_folder(place, layer) for layer in chosen)]
        self._parts = [Parts(folder) for folder in folders]
        self._writers = [PartWriter(folder, jax.process_index()) for folder in folders]
        self.rejected: dict[str, str] = {}
        self._seconds = 0.0

    def run(self, recordings: list[Recording], data_set: str) -> None:
        """Makes what is missing of this process's share."""
        self._sources = {recording.id: source_of(recording) for recording in recordings}
        size = max(_SMALLEST_BLOCK, self._representation.rows(self._windows.seconds or 30.0))
        blocks = [recordings[first : first + size] for first in range(0, len(recordings), size)]
        ours = blocks[jax.process_index() :: jax.process_count()]
        to_do = [left for block in ours if (left := [one for one in block if self._missing(one)])]
        if not to_do:
            return
        title = f"{self._representation.name} on {data_set}"
        try:
            with tqdm(total=sum(map(len, to_do)), desc=title, unit="recording", disable=None) as self._bar:
                self._encode(to_do)
            self._close_parts()
        finally:
            for writer in self._writers:
                writer.discard()

    def _missing(self, recording: Recording) -> list[int]:
        """Of which folders it has no record, or one that was made of another audio file: 0 is that of windows."""
        kept = [parts.entries.get(recording.id) for parts in self._parts]
        source = self._sources[recording.id]
        return [number for number, entry in enumerate(kept) if entry is None or entry.source != source]

    def _encode(self, blocks: list[list[Recording]]) -> None:
        """While a batch is computed, the one before it is kept and the next one is read."""
        running: collections.deque[tuple[list[_Window], Future[Encoded]]] = collections.deque()
        with ThreadPoolExecutor(1) as thread, contextlib.closing(self._batches(blocks)) as batches:

            def keep_all_but(count: int) -> None:
                while len(running) > count:
                    batch, encoded = running.popleft()
                    self._keep(batch, encoded.result())

            for batch in batches:
                if batch:
                    running.append(
                        (batch, thread.submit(self._representation.encode, self._clips(batch), self._chosen))
                    )
                    keep_all_but(1)
                elif any(writer.full for writer in self._writers):
                    keep_all_but(0)
                    self._close_parts()
            keep_all_but(0)

    def _close_parts(self) -> None:
        for writer in self._writers:
            writer.close()

    def _batches(self, blocks: list[list[Recording]]) -> Generator[list[_Window], None, None]:
        """Windows of one size, up to a batch of them; and no windows where a block ends."""
        rate, windows = self._representation.sample_rate, self._windows
        cores = os.cpu_count() or 1
        workers = min(2, cores) if jax.local_devices()[0].platform == "cpu" else cores
        every = (recording for block in blocks for recording in block)
        with contextlib.closing(decode_ahead(every, rate, windows, workers=workers)) as decoded:
            for block in blocks:
                waiting: dict[int, list[_Window]] = collections.defaultdict(list)
                for window in self._windows_of(next(decoded) for _ in block):
                    size = padded_size(window.end - window.begin, rate, windows)
                    waiting[size].append(window)
                    if len(waiting[size]) == self._representation.rows(size / rate):
                        yield waiting.pop(size)
                yield from waiting.values()
                yield []

    def _windows_of(self, decoded: Iterable[Decoded | tuple[Recording, Rejected]]) -> Iterator[_Window]:
        for one in decoded:
            if isinstance(one, Decoded):
                spans = cut(len(one.pcm), self._representation.sample_rate, self._windows)
                item = _InWork(one, spans, self._representation)
                yield from (_Window(item, number, *span) for number, span in enumerate(spans))
            else:
                self._reject(*one)

    def _clips(self, batch: list[_Window]) -> Clips:
        lengths = [window.end - window.begin for window in batch]
        size = padded_size(lengths[0], self._representation.sample_rate, self._windows)
        audio = np.zeros((len(batch), size), np.int16)
        measures = []
        for row, (item, _, begin, end) in enumerate(batch):
            audio[row, : end - begin] = item.decoded.pcm[begin:end]
            if self._windows.normalize == "window":
                measures.append(statistics(audio[row, : end - begin]))
            else:
                measures.append((item.decoded.mean, item.decoded.std))
        mean, std = np.array(measures, np.float32).T
        return Clips(audio, mean, std, np.array(lengths, np.int32))

    def _keep(self, batch: list[_Window], encoded: Encoded) -> None:
        for row, (item, number, begin, end) in enumerate(batch):
            item.pooled[number] = self._as_float16(encoded.pooled[:, row], item)
            if self._chosen:
                item.frames = self._as_float16(encoded.frames[row], item)
            self._seconds += (end - begin) / self._representation.sample_rate
            item.left -= 1
            if not item.left:
                self._write(item)
        self._bar.set_postfix_str(f"{self._seconds / 3600:.2f} h of audio", refresh=False)

    def _as_float16(self, values: Float[np.ndarray, "*shape"], item: _InWork) -> Float[np.ndarray, "*shape"]:
        if not np.isfinite(values).all():
            name, recording = self._representation.name, item.decoded.recording
            raise UserError(f"{name} gives NaN or infinite features of {recording.id} ({recording.path})")
        return as_dtype(values, np.dtype("float16"))

    def _write(self, item: _InWork) -> None:
        recording = item.decoded.recording
        times = {"start": item.start.astype("<f8").tobytes(), "end": item.end.astype("<f8").tobytes()}
        values = [item.pooled] if item.frames is None else [item.pooled, *item.frames]
        for number in self._missing(recording):
            fields = {"features": values[number].astype("<f2").tobytes(), **times}
            self._writers[number].write(recording.id, self._sources[recording.id], len(values[number]), fields)
        self._bar.update()

    def _reject(self, recording: Recording, rejected: Rejected) -> None:
        self.rejected[recording.id] = f"{rejected.reason}: {rejected.detail}"
        tqdm.write(f"{recording.path}: {rejected.reason}, {rejected.detail}", file=sys.stderr)
        self._bar.update()


def _rejects_name(process: int) -> str:
    return f"rejects-{process:03d}.json"


def _meet(name: str) -> None:
    if jax.process_count() > 1:
        barrier(name)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """No other command fills the folder; where one does, waits for its end. File systems without locks have none."""
    with (folder / f".lock-{jax.process_index():03d}").open("a") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            print(f"another command makes features in {folder}: waiting for it", file=sys.stderr, flush=True)
            fcntl.lockf(file, fcntl.LOCK_EX)
        except OSError:
            pass
        yield
