"""From audio files to their features in an output folder."""

import contextlib
import errno
import functools
import sys
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, cast, runtime_checkable

import numpy as np
from tqdm import tqdm

from data_pipelines.decode import Rejected
from data_pipelines.sources import Source
from musicssl_jax.embedding.array_record import ArrayRecords
from musicssl_jax.embedding.batching import Track, encode_windows
from musicssl_jax.embedding.decoding import Decoding, decode_ahead
from musicssl_jax.embedding.npz import NpzFiles
from musicssl_jax.embedding.parquet import Parquet
from musicssl_jax.embedding.parts import Parts
from musicssl_jax.embedding.pooling import bounds_in_seconds, make_pool
from musicssl_jax.embedding.shared_folder import SharedFolder
from musicssl_jax.embedding.spool import Spool
from musicssl_jax.embedding.windows import Window
from musicssl_jax.errors import UserError
from musicssl_jax.frozen_encoder import FrozenEncoder
from musicssl_jax.shapes import Float

FORMATS = ("npz", "parquet", "array_record")
POOLS = ("mean", "window", "none")


class Options(NamedTuple):
    """What is made of a file. layers: numbers. pool: of POOLS; pool_seconds: a vector's span of "window".

    dtype: float16 or float32. window_seconds, context_seconds: what the encoder sees at once, and how much of it on
    either side is left out. per_device: windows in a batch, on each device; None: by the kind of device.
    """

    layers: Sequence[int]
    pool: str = "mean"
    pool_seconds: float = 5.0
    dtype: str = "float16"
    window_seconds: float = 30.0
    context_seconds: float | None = None
    per_device: int | None = None


@dataclass
class Summary:
    """What became of the files. skipped: their features were there. elsewhere: left to other commands that fill the
    same folder and had them in hand until the end."""

    embedded: int = 0
    skipped: int = 0
    elsewhere: int = 0
    seconds_of_audio: float = 0.0
    bytes_written: int = 0
    rejects: list[dict[str, str]] = field(default_factory=list)


@runtime_checkable
class Writer(Protocol):
    """A format. `write` and `close` return the tracks that are safe on the disk now."""

    bytes_written: int

    def done(self, track: str) -> bool: ...

    def write(self, track: str, spool: Spool, bounds: Float[np.ndarray, "n 2"]) -> list[str]: ...

    def close(self) -> list[str]: ...


def open_writer(name: str, folder: SharedFolder, encoder: FrozenEncoder, options: Options) -> Writer:
    """The writer of a format of FORMATS. Raises UserError: its package is missing, or `folder` will not do for it."""
    layers = list(options.layers)
    if name == "npz":
        return NpzFiles(folder, layers, encoder.sample_rate)
    kind = Parquet if name == "parquet" else ArrayRecords
    return Parts(folder, kind(layers, encoder.width, options.dtype))


def embed_files(
    encoder: FrozenEncoder, sources: Sequence[Source], folder: SharedFolder, writer: Writer, options: Options
) -> Summary:
    """Writes the features of each source that can be decoded and that nobody else has done; the others are named.

    Raises UserError where the folder cannot be written.
    """
    with tqdm(total=len(sources), unit="file", disable=None) as bar:
        job = _Job(encoder, folder, writer, options, bar)
        try:
            try:
                job.run(sources)
            finally:
                folder.release(writer.close())
        except OSError as error:
            raise UserError(f"cannot write to {folder.path}: {error}; --skip_existing goes on from here") from None
    job.summary.bytes_written = writer.bytes_written
    return job.summary


class _Job:
    """One call of `embed_files`: who is asked, and what became of the files so far."""

    def __init__(self, encoder: FrozenEncoder, folder: SharedFolder, writer: Writer, options: Options, bar: tqdm):
        self._encoder, self._folder, self._writer, self._options = encoder, folder, writer, options
        self._bar = bar
        self.summary = Summary()

    def run(self, sources: Sequence[Source]) -> None:
        encoder, options = self._encoder, self._options
        size, context = encoder.window_frames(options.window_seconds, options.context_seconds)
        # Sums are divided here: they come as they are.
        dtype = options.dtype if options.pool == "none" else "float32"
        decodings = decode_ahead(self._to_do(sources), encoder.sample_rate, encoder.receptive_field)
        spools: dict[Hashable, Spool] = {}
        try:
            for track, window, features in encode_windows(
                functools.partial(encoder.states, layers=tuple(options.layers), dtype=dtype),
                encoder.grid,
                self._tracks(decodings, size),
                size=size,
                context=context,
                rows=encoder.rows(options.per_device),
            ):
                if track.name not in spools:
                    shape = len(options.layers), track.pool.rows, encoder.width
                    spools[track.name] = Spool(self._folder.path, *shape, options.dtype)
                spools[track.name].write(*features)
                self._heard(window)
                if features.first + features.values.shape[1] == track.pool.rows:
                    with contextlib.closing(spools.pop(track.name)) as spool:
                        self._finish(track, spool)
        finally:
            for spool in spools.values():
                spool.close()

    def _to_do(self, sources: Sequence[Source]) -> Iterator[Source]:
        """The sources that this command has claimed; at the end those once more that were others' when we came by."""
        others = []
        for source in sources:
            if self._is_done(source):
                self._pass_over()
            elif not self._folder.claim(source.track):
                others.append(source)
            elif self._is_done(source):  # since we looked
                self._folder.release([source.track])
                self._pass_over()
            else:
                yield source
        for source in others:
            if self._is_done(source):
                self._pass_over()
            elif not self._folder.claim(source.track):
                self.summary.elsewhere += 1
                self._bar.update()
            else:
                yield source

    def _is_done(self, source: Source) -> bool:
        return self._writer.done(source.track) or source.path in self._folder.rejected()

    def _pass_over(self) -> None:
        self.summary.skipped += 1
        self._bar.update()

    def _tracks(self, decodings: Iterable[Decoding], size: int) -> Iterator[Track]:
        """What was decoded, with the pool that was asked for."""
        options, encoder = self._options, self._encoder
        span = max(1, round(options.pool_seconds * encoder.sample_rate / encoder.hop))
        for source, decoded, pcm in decodings:
            if isinstance(decoded, Rejected):
                self._reject(source, decoded)
                continue
            pool = make_pool(options.pool, encoder.grid.count(decoded.samples), span, size)
            yield Track(source, pcm, decoded.mean, decoded.std, pool)

    def _heard(self, window: Window) -> None:
        self.summary.seconds_of_audio += (window.end - window.begin) * self._encoder.hop / self._encoder.sample_rate
        self._bar.set_postfix_str(f"{self.summary.seconds_of_audio / 60:.0f} min of audio", refresh=False)
        self._bar.update(0)

    def _finish(self, track: Track, spool: Spool) -> None:
        source = cast(Source, track.name)
        try:
            safe = self._writer.write(source.track, spool, bounds_in_seconds(track.pool.bounds(), self._encoder.grid))
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            self._reject(source, Rejected("name too long", "its features cannot have that name and a suffix"))
            return
        self._folder.release(safe)
        self.summary.embedded += 1
        self._bar.update()

    def _reject(self, source: Source, rejected: Rejected) -> None:
        row = {"file": source.path, "reason": rejected.reason, "detail": rejected.detail}
        self.summary.rejects.append(row)
        self._folder.reject(row)
        tqdm.write(f"{source.path}: {rejected.reason}, {rejected.detail}", file=sys.stderr)
        self._bar.update()
