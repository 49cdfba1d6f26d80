"""From whatever path a user gives to a model."""

from collections.abc import Sequence
from pathlib import Path

from musicssl_jax.interop.fairseq_file import read_fairseq
from musicssl_jax.interop.hub import HUB, hub_folder
from musicssl_jax.interop.pretrained import Pretrained
from musicssl_jax.interop.recognise import kind_of
from musicssl_jax.interop.runs import read_run
from musicssl_jax.interop.transformers_folder import read_transformers


def read_pretrained(
    path: str, *, download: bool = False, clusters: Sequence[int] = (), dictionary_rows: int | None = None
) -> Pretrained:
    """The model of a run's folder, one of its checkpoints, a transformers folder, a fairseq file, or hf:OWNER/NAME.

    download: whether a model of the hub may be fetched. clusters, dictionary_rows: see `read_fairseq`.
    Raises UserError: nothing there, something else (it says what it seems to be), damaged, or a model of another kind.
    """
    if folder := transformers_folder_of(path, download=download):
        return read_transformers(folder)
    if "://" in path:  # object stores hold runs alone: transformers and fairseq read local files
        return read_run(path)
    where = Path(path).expanduser()
    if kind_of(where) == "run":
        return read_run(str(where))
    return read_fairseq(where, clusters=clusters, dictionary_rows=dictionary_rows)


def transformers_folder_of(path: str, *, download: bool = False) -> Path | None:
    """The transformers folder that `path` names, on the hub or here; None if it names something else."""
    if path.startswith(HUB):
        return hub_folder(path, download=download)
    where = Path(path).expanduser()
    return where if "://" not in path and kind_of(where) == "transformers" else None
