"""Audio files as PCM16 on the disk, decoded ahead by other processes."""

import itertools
import os
import tempfile
from collections.abc import Hashable, Iterable, Iterator
from pathlib import Path

import numpy as np

from data_pipelines.decode import Decoded, Limits, Rejected, decode_track
from data_pipelines.pool import Died, WorkerPool
from data_pipelines.sources import Source
from musicssl_jax.shapes import Int16

TIME_LIMIT = 60.0  # seconds without progress
AHEAD = 4  # files that wait, decoded, on the disk

Decoding = tuple[Source, Decoded | Rejected, Int16[np.ndarray, " samples"]]


def decode_ahead(sources: Iterable[Source], sample_rate: int, min_samples: int) -> Iterator[Decoding]:
    """Each source with what is known of it and its samples, in the order in which worker processes have decoded them.

    The samples are read from the disk when they are looked at. `sources` is asked for the next one as late as can be.
    """
    limits = Limits(min_seconds=min_samples / sample_rate, min_level=-np.inf, max_clipped=1.0)
    waiting = enumerate(sources)
    pending: dict[Hashable, tuple[Source, Path]] = {}
    with (
        tempfile.TemporaryDirectory(prefix="musicssl-embed-") as folder,
        WorkerPool(workers=min(2, os.cpu_count() or 1), time_limit=TIME_LIMIT) as workers,
    ):

        def submit(count: int) -> None:
            for number, source in itertools.islice(waiting, count):
                pending[number] = source, Path(folder, f"{number}.pcm")
                workers.submit(number, decode_track, source.path, pending[number][1], sample_rate, limits)

        submit(AHEAD)
        while workers.busy:
            number, decoded = workers.next()
            submit(1)
            source, pcm = pending.pop(number)
            if isinstance(decoded, Died):
                reason = "hangs its decoder" if decoded.hung else "crashes its decoder"
                decoded = Rejected(reason, decoded.detail)
            # A mapping stays valid when its file has lost its name.
            samples = np.memmap(pcm, "<i2", mode="r") if isinstance(decoded, Decoded) else np.zeros(0, np.int16)
            pcm.unlink(missing_ok=True)
            yield source, decoded, samples
