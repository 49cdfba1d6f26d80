"""The collections that a config trains on."""

import os
from collections.abc import Sequence
from pathlib import Path

from data_pipelines.records import Collection, open_collection
from musicssl_jax.errors import UserError
from musicssl_jax.object_store import reach
from musicssl_jax.parallel import in_turns

MUSICBOX = "musicbox"


def cache_folder() -> Path:
    """Where built collections are kept: `MUSICSSL_CACHE`, else the user's cache folder."""
    if folder := os.environ.get("MUSICSSL_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "musicssl"


def open_data(config) -> list[Collection]:
    """The collections of `data.path`: built data sets as they are, folders of audio built once into the cache.

    "musicbox" is the embedded synthetic music. Of several processes the first that sees a folder builds.
    Raises UserError naming the path that will not do.
    """
    if not config.data.path:
        raise UserError(
            "data.path is empty: give --config.data.path=FOLDER (audio files, or the output of "
            "data_pipelines.build), or name no variant to see the demo on synthetic music"
        )
    return in_turns(lambda: [_open(path, config.data.sample_rate) for path in config.data.path.split(",")])


def _open(path: str, sample_rate: int) -> Collection:
    from data_pipelines.build import ensure_collection
    from data_pipelines.musicbox import ensure_musicbox

    if path == MUSICBOX:
        print(f"data: the embedded synthetic music (musicbox, kept in {cache_folder()})", flush=True)
        path = str(ensure_musicbox(cache_folder(), sample_rate))
    reach(path)
    return open_collection(ensure_collection(path, cache_folder(), sample_rate), sample_rate=sample_rate)


def held_out(collections: Sequence[Collection], crop_samples: int) -> list[Collection]:
    """The collections that have a validation track as long as a crop."""
    return [c for c in collections if "valid" in c.splits and any(c.splits["valid"].tracks.lengths >= crop_samples)]
