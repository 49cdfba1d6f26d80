"""A codebook, and the folder that holds it: `centroids.safetensors`, `codebook.json` and `codebook.png`.

A checkpoint holds those of its run as folders `codebooks/0_mfcc39`, `codebooks/1_cqt84` ..., without the picture, and
a folder of precomputed labels those that the labels are of.
"""

import dataclasses
import hashlib
import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import jax
import numpy as np
from etils import epath

from musicssl_jax import __version__
from musicssl_jax.errors import UserError, shortened
from musicssl_jax.object_store import is_remote
from musicssl_jax.shapes import Float, Int
from musicssl_jax.targets.features import Features

CENTROIDS = "centroids.safetensors"
DESCRIPTION = "codebook.json"
PICTURE = "codebook.png"
WITHIN = "codebooks"
FORMAT = 1
FRAME_RATE = ("sample_rate", "hop")  # fields of a front end's description


@dataclasses.dataclass(frozen=True, eq=False)
class Codebook:
    """Clusters of a front end's frames. Label k is that of the frames nearest to centroid k."""

    centroids: Float[np.ndarray, "K W"]
    front_end: Mapping[str, Any]
    """`front_end_of` the features that were clustered."""
    data: Any
    """Fingerprint of the collections that they were made of."""
    settings: Mapping[str, Any]
    """How the clusters were fitted."""
    inertia_curve: Float[np.ndarray, " batches"]
    """Mean squared distance to the nearest centroid, of each batch of the fit."""
    usage: Int[np.ndarray, " K"]
    """Frames of the fit that were nearest to each centroid at the time."""
    agreement: float | None = None
    """Of a layer, which sees its crop and nothing else: the share of equal labels where two crops overlap by half."""


def front_end_of(features: Features) -> dict[str, Any]:
    """All that tells a front end from another, as JSON gives it back."""
    return json.loads(json.dumps({**features.description, "width": features.width}))


def codebook_id(codebook: Codebook) -> str:
    """SHA-256 of the centroids and of what they are centroids of: two codebooks with one id give the same labels."""
    front_end = json.dumps(codebook.front_end, sort_keys=True)
    return hashlib.sha256(front_end.encode() + codebook.centroids.astype("<f4").tobytes()).hexdigest()


def check_fits(codebook: Codebook, features: Features, clusters: int, name: str | os.PathLike) -> None:
    """UserError, with the reason: the codebook was not fitted to frames of `features`, or has other `clusters`.

    `name`: by which the message calls it.
    """
    if reason := misfit(codebook.front_end, len(codebook.centroids), features, clusters):
        raise UserError(f"the codebook {name} {reason}; fit a new one, or change the config to what it was fitted with")


def misfit(have: Mapping[str, Any], clusters: int, features: Features, wanted: int) -> str | None:
    """Why so many clusters of the front end that `have` describes are not the `wanted` ones of `features`."""
    want, name = front_end_of(features), features.name
    if any(have.get(field) != want.get(field) for field in FRAME_RATE):
        rates = " and ".join(f"{_get(x, 'sample_rate')} Hz with a hop of {_get(x, 'hop')}" for x in (have, want))
        return f"has another frame rate than this run ({rates})"
    if have.get("width") != features.width:
        return f"has {_get(have, 'width')} dimensions and {name} has {features.width}"
    if changed := differences(have, want):
        return f"was fitted to another front end than {name}: {shortened(changed)}"
    return f"has {clusters} clusters and {wanted} are asked for" if clusters != wanted else None


def differences(have: Mapping[str, Any], want: Mapping[str, Any]) -> list[str]:
    """The fields in which two descriptions differ, with both values."""
    fields = [field for field in {**want, **have} if have.get(field) != want.get(field)]
    return [f"{field} {_get(have, field)} instead of {_get(want, field)}" for field in fields]


def _get(description: Mapping[str, Any], field: str) -> str:
    return json.dumps(description[field]) if field in description else "nothing"


def save_codebook(folder: str | os.PathLike, codebook: Codebook) -> None:
    """Writes the folder, whole or not at all. UserError: there is something already, or it cannot be written."""
    from musicssl_jax.targets.codebook_figures import codebook_picture
    from musicssl_jax.training.figures import png

    whole = epath.Path(folder).expanduser()
    # An object store renames no folders: there the description, which comes last, makes the folder whole.
    unfinished = whole if is_remote(whole) else whole.parent / f".{whole.name}.unfinished"
    files = {PICTURE: png(codebook_picture(codebook)), **_files(codebook)}
    try:
        if is_there(whole):
            raise UserError(f"{whole} is there already: choose another folder, or remove it")
        unfinished.rmtree(missing_ok=True)
        unfinished.mkdir(parents=True)
        for name, content in files.items():
            (unfinished / name).write_bytes(content)
        if unfinished != whole:
            unfinished.rename(whole)
    except OSError as error:
        raise UserError(f"cannot write the codebook {whole}: {error.strerror}; give another folder") from error


def is_there(folder: epath.PathLike) -> bool:
    """Whether the folder is taken, by a codebook or anything else."""
    return (epath.Path(folder) / DESCRIPTION if is_remote(folder) else epath.Path(folder)).exists()


def _files(codebook: Codebook) -> dict[str, bytes]:
    """All that `load_codebook` reads, by file name; the description is the last."""
    from safetensors.numpy import save

    centroids = save({"centroids": codebook.centroids, "usage": codebook.usage})
    description = json.dumps(_description(codebook, centroids), indent=2) + "\n"
    return {CENTROIDS: centroids, DESCRIPTION: description.encode()}


def _description(codebook: Codebook, centroids: bytes) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "id": codebook_id(codebook),
        "clusters": len(codebook.centroids),
        "front_end": codebook.front_end,
        "data": codebook.data,
        "settings": codebook.settings,
        "inertia_curve": codebook.inertia_curve.tolist(),
        "usage": codebook.usage.tolist(),
        "agreement": codebook.agreement,
        "empty_clusters": np.flatnonzero(codebook.usage == 0).tolist(),
        "sha256": {CENTROIDS: hashlib.sha256(centroids).hexdigest()},
        "versions": {
            "musicssl_jax": __version__,
            "jax": jax.__version__,
            "numpy": version("numpy"),
            "python": platform.python_version(),
        },
    }


def load_codebook(folder: str | os.PathLike) -> Codebook:
    """The codebook in `folder`. UserError names the file that is missing, damaged or of another format."""
    from safetensors.numpy import load

    path = epath.Path(folder).expanduser() / DESCRIPTION
    arrays = path.parent / CENTROIDS
    try:
        content = json.loads(_read(path))
        if content["format"] != FORMAT:
            raise UserError(f"{path} has format {content['format']}, and this version reads {FORMAT}: fit it again")
        stored = _read(arrays)
        if hashlib.sha256(stored).hexdigest() != content["sha256"][CENTROIDS]:
            raise UserError(f"{arrays} is damaged (other SHA-256): copy it again, or fit it again")
        codebook = Codebook(
            front_end=content["front_end"],
            data=content["data"],
            settings=content["settings"],
            inertia_curve=np.asarray(content["inertia_curve"], np.float32),
            agreement=content.get("agreement"),
            **load(stored),
        )
        if codebook_id(codebook) != content["id"]:
            raise ValueError("other id")
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error!r}): copy it again, or fit it again") from error
    return codebook


def _read(path: epath.Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; give the folder of a codebook") from error


def files_within(codebooks: Sequence[Codebook]) -> dict[str, bytes]:
    """The files, by their path in a checkpoint's or a labels' folder, from which `read_codebooks` gives these back."""
    return {
        f"{WITHIN}/{number}_{codebook.front_end['front_end']}/{name}": content
        for number, codebook in enumerate(codebooks)
        for name, content in _files(codebook).items()
    }


def read_codebooks(folder: str | os.PathLike) -> list[Codebook]:
    """The codebooks in a checkpoint's folder (RUN/checkpoints/STEP) or one of labels, in the order of the label sets.

    None in those of other objectives, or of versions that did not keep them. UserError as of `load_codebook`.
    """
    within = epath.Path(folder).expanduser() / WITHIN
    numbered = sorted(within.glob("[0-9]*_*"), key=lambda path: int(path.name.split("_")[0]))
    return [load_codebook(path) for path in numbered]
