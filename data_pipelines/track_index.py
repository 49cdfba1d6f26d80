"""The index of a split: one row a track, so that a collection of 100,000 tracks opens at once."""

import io
import json
import zipfile
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from etils import epath

from data_pipelines.tf_example import Header
from musicssl_jax.errors import UserError
from musicssl_jax.shapes import Float, Int


class Tracks(NamedTuple):
    """The tracks of a split in record order; lengths in samples, mean and std of the waveform in [-1, 1]."""

    ids: list[str]
    lengths: Int[np.ndarray, " tracks"]
    means: Float[np.ndarray, " tracks"]
    stds: Float[np.ndarray, " tracks"]


def read_tracks(path: epath.Path) -> Tracks:
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            ids = json.loads(arrays["ids"].tobytes())
            return Tracks(ids, arrays["lengths"], arrays["means"], arrays["stds"])
    except FileNotFoundError:
        raise UserError(f"index {path} is missing: copy it again or rebuild the collection") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
        raise UserError(f"index {path} is damaged ({error}): copy it again or rebuild the collection") from error


def pack_tracks(tracks: Tracks) -> bytes:
    buffer = io.BytesIO()
    ids = np.frombuffer(json.dumps(tracks.ids).encode(), np.uint8)
    np.savez(buffer, ids=ids, lengths=tracks.lengths, means=tracks.means, stds=tracks.stds)
    return buffer.getvalue()


def tracks_of(headers: Sequence[Header]) -> Tracks:
    return Tracks(
        [header.track for header in headers],
        np.array([header.track_length for header in headers], np.int64),
        np.array([header.mean for header in headers], np.float32),
        np.array([header.std for header in headers], np.float32),
    )
