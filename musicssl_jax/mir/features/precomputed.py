"""Features that were made elsewhere: `--features=DIR`, a file for every recording.

    DIR/<id>.npz    as `musicssl embed` writes it: features (layers, windows, dims); start, end (windows,) in seconds
    DIR/<id>.npy    the array alone, as MARBLE v1 keeps [13, windows, 768]

<id> is the recording's in the task (`jazz.00001`, `belt/f1_x`); the name of its audio file does too, with its suffix or
without. Windows are as the file has them.
"""

import hashlib
import zipfile
from collections.abc import Collection, Sequence
from pathlib import Path, PurePath

import numpy as np
from tqdm import tqdm

from musicssl_jax.embedding.spool import as_dtype
from musicssl_jax.errors import UserError
from musicssl_jax.mir.features.encoders import EncoderKind
from musicssl_jax.mir.features.store import Layers, assembled
from musicssl_jax.mir.tasks.task import Recording
from musicssl_jax.shapes import Float, Shaped

WANTED = "want numbers (layers, windows, dims), layers and dims the same in every file"


class PrecomputedFeatures:
    """The files of a folder that belong to these recordings. `rejected`: those that have none, and what was looked for.

    sha256: of names, sizes and times of the files. scratch: where arrays are put together, by default where temporary
    files are. Raises UserError: there is no file for any of them, or they are
    not such arrays.
    """

    kind: EncoderKind = "files"

    def __init__(self, folder: Path, recordings: Collection[Recording], scratch: Path | None = None):
        if not folder.is_dir():
            raise UserError(f"--features={folder}: no such folder")
        found = {recording.id: _file_of(folder, recording) for recording in recordings}
        self.name = folder.name
        self.folder, self._scratch = folder, scratch
        self._files = {id: path for id, path in found.items() if path is not None}
        self.rejected = {id: f"no {folder / id}.npz or .npy" for id, path in found.items() if path is None}
        if not self._files:
            example = next(iter(found), "ID")
            raise UserError(
                f"--features={folder} has features of none of the {len(found)} recordings; want a file for each, such "
                f"as {folder / example}.npy or .npz: {WANTED}"
            )
        self._shapes = {id: _shape(path) for id, path in tqdm(self._files.items(), desc=self.name, disable=None)}
        first = next(iter(self._shapes))
        self.layers, _, self.width = self._shapes[first]
        for id, (layers, _, width) in self._shapes.items():
            if (layers, width) != (self.layers, self.width):
                one, other = (
                    f"{self._files[id]} holds {self._shapes[id]}",
                    f"{self._files[first]} {self._shapes[first]}",
                )
                raise UserError(f"{one} and {other}: {WANTED}")

    @property
    def sha256(self) -> str:
        digest = hashlib.sha256()
        for id, path in sorted(self._files.items()):
            status = path.stat()
            digest.update(repr((id, path.name, status.st_size, status.st_mtime_ns)).encode())
        return digest.hexdigest()

    def layers_for(self, recordings: Sequence[str]) -> Layers:
        """Their windows, put together in a temporary file. Raises UserError: a recording has no file or a bad one."""
        counts = []
        for recording in recordings:
            if recording not in self._shapes:
                raise UserError(f"--features={self.folder}: {self.rejected.get(recording, f'nothing of {recording}')}")
            counts.append(self._shapes[recording][1])
        contents = ((place, *_read(self._files[recording])) for place, recording in enumerate(recordings))
        return assembled(self._scratch, contents, counts, self.layers, self.width)


def _file_of(folder: Path, recording: Recording) -> Path | None:
    file = PurePath(recording.path).name
    names = [recording.id] if recording.entry else [recording.id, file, PurePath(file).stem]
    for name in names:
        for suffix in (".npz", ".npy"):
            path = folder / f"{name}{suffix}"
            if path.is_file():
                return path
    return None


def _opened(path: Path) -> tuple[Shaped[np.ndarray, "..."], np.ndarray | None, np.ndarray | None]:
    """The features, and begin and end of the windows where the file says them."""
    try:
        content = np.load(path, mmap_mode="r")
        if isinstance(content, np.ndarray) != (path.suffix == ".npy"):
            suffix = ".npy" if isinstance(content, np.ndarray) else ".npz"
            raise UserError(f"{path} is an {suffix} by its content: rename it {path.with_suffix(suffix).name}")
        if isinstance(content, np.ndarray):
            return content, None, None
        with content as archive:
            names = archive.files
            name = names[0] if len(names) == 1 else "features"
            start, end = (archive[field] if field in names else None for field in ("start", "end"))
            features = archive[name]
    except KeyError:
        raise UserError(f"{path} has no array named features: {WANTED}") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} cannot be read ({error}): {WANTED}") from None
    if not isinstance(features, np.ndarray):  # a zip of other things
        raise UserError(f"{path} holds {name}, which is no array: {WANTED}")
    return features, start, end


def _shape(path: Path) -> tuple[int, int, int]:
    features, _, _ = _opened(path)
    if features.ndim != 3 or 0 in features.shape or features.dtype.kind != "f":
        raise UserError(f"{path} holds {features.dtype} of shape {features.shape}: {WANTED}")
    layers, windows, width = features.shape
    return layers, windows, width


def _read(
    path: Path,
) -> tuple[Float[np.ndarray, "layers n width"], Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    features, start, end = _opened(path)
    if not np.isfinite(features).all():
        raise UserError(f"{path} holds NaN or infinite values: {WANTED}")
    windows = features.shape[1]
    return as_dtype(np.asarray(features), np.dtype("float16")), _times(start, windows), _times(end, windows)


def _times(given: np.ndarray | None, windows: int) -> Float[np.ndarray, " n"]:
    """NaN where the file does not say them."""
    if not isinstance(given, np.ndarray) or given.shape != (windows,) or given.dtype.kind not in "fiu":
        return np.full(windows, np.nan)
    return given.astype(np.float64)
