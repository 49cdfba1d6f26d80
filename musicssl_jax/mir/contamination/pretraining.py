"""Which collections a checkpoint was trained on."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from etils import epath
from ml_collections import ConfigDict

from musicssl_jax.errors import UserError
from musicssl_jax.interop.reading import read_pretrained
from musicssl_jax.targets.names import parse_layer
from musicssl_jax.training.data import cache_folder

RANDOM = "random:"


class Pretraining(NamedTuple):
    """folders: of the collections that are here. not_checked: why others are not, a line each."""

    folders: tuple[epath.Path, ...]
    not_checked: tuple[str, ...]


def pretraining_collections(checkpoint: str, *, given: Sequence[str] = ()) -> Pretraining:
    """The music that training the model at `checkpoint` saw, that of the models it began with or predicted included.

    checkpoint: as `load_encoder` takes it; the untrained (`random:CONFIG`) have seen none. A run knows its collections
    by their build's id. They are looked for among `given` folders, where the run says, and in the cache, where folders
    of audio were built. The `given` are taken at the user's word where a checkpoint does not say what it was trained
    on. Raises UserError: no checkpoint there.
    """
    folders: dict[epath.Path, None] = {}
    not_checked: dict[str, None] = {}
    seen: set[str] = set()
    waiting = [] if checkpoint.startswith(RANDOM) else [checkpoint]
    while waiting:
        path = waiting.pop(0)
        if path in seen:
            continue
        seen.add(path)
        try:
            model = read_pretrained(path)
        except UserError as error:
            if path == checkpoint:
                raise
            not_checked[f"{checkpoint} began with another model, which is not here any more: {error}"] = None
            continue
        waiting += _earlier_models(model.config)
        builds = [fingerprint["build_id"] for fingerprint in model.data.get("fingerprints", [])]
        if not builds and given:
            folders |= dict.fromkeys(map(epath.Path, given))
        elif not builds:
            not_checked[f"{path} does not say what it was trained on (--pretraining_data)"] = None
        places = [*given, *filter(None, model.config.data.path.split(","))]
        for build in builds:
            if folder := _find(build, places):
                folders[folder] = None
            else:
                where = ", ".join(places) or "nowhere that it says"
                not_checked[f"the music that {path} was trained on (build {build[:12]}, {where}) is not here"] = None
    return Pretraining(tuple(folders), tuple(not_checked))


def _earlier_models(config: ConfigDict) -> list[str]:
    """What the training began with, and whose layers it predicted."""
    layers = [layer.checkpoint for target in config.get("targets", ()) if (layer := parse_layer(target))]
    return [path for path in (config.get("init_from", ""), *layers) if path]


def _find(build: str, places: Sequence[str]) -> epath.Path | None:
    built = (path.parent for path in sorted(epath.Path(cache_folder()).glob("*/collection.json")))
    return next((folder for folder in (*map(epath.Path, places), *built) if _build_id(folder) == build), None)


def _build_id(folder: epath.Path) -> Any:
    try:
        return json.loads((folder / "collection.json").read_text())["build_id"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
