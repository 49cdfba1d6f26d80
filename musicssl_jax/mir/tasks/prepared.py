"""Data sets as TFDS prepares them, opened without TensorFlow."""

import contextlib
import hashlib
import json
from pathlib import Path

import tensorflow_datasets as tfds

from musicssl_jax.embedding.shared_folder import write_whole
from musicssl_jax.errors import UserError
from musicssl_jax.mir.tasks.listing import find_file
from musicssl_jax.training.data import cache_folder


def find_prepared(folder: Path) -> Path | None:
    """The folder of a prepared data set: `folder` or one below it, as the version folder of TFDS is."""
    info = find_file(folder, "dataset_info.json")
    return info.parent if info and (info.parent / "features.json").is_file() else None


def prepared_names(folder: Path, split: str, feature: str) -> list[str]:
    """The text `feature` of each record of a split, in their order.

    Every record is read as a whole, audio and all (of NSynth 78 GB), so that the texts are kept in the cache for as
    long as the data set's files stay the same.
    Raises UserError: it does not open here, or has no such split or feature.
    """
    kept = cache_folder() / "prepared" / f"{_fingerprint(folder, split, feature)}.json"
    with contextlib.suppress(OSError, ValueError):  # not there yet, or half written
        return json.loads(kept.read_text(encoding="utf-8"))
    names = _read_names(folder, split, feature)
    with contextlib.suppress(OSError):  # a home without a place to write costs time alone
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_whole(kept, json.dumps(names))
    return names


def _fingerprint(folder: Path, split: str, feature: str) -> str:
    """Of the names, sizes and times of its files: description, features and shards."""
    stats = [(path.name, path.stat()) for path in sorted(folder.iterdir()) if path.is_file()]
    files = [(name, status.st_size, status.st_mtime_ns) for name, status in stats]
    return hashlib.sha256(json.dumps([str(folder.resolve()), split, feature, files]).encode()).hexdigest()


def _read_names(folder: Path, split: str, feature: str) -> list[str]:
    """TFDS itself writes audio as `features.Audio`, which only TensorFlow reads; a data set prepared with a `Tensor` in
    its place opens."""
    try:
        source = tfds.builder_from_directory(folder).as_data_source(split)
        return [record[feature].decode() for record in source]
    except ImportError as error:
        raise UserError(
            f"{folder}: TFDS reads this data set only with TensorFlow ({error}), which is never used here; "
            "put the original download beside it"
        ) from None
    except (ValueError, KeyError, AttributeError, RuntimeError, OSError) as error:  # RuntimeError: a damaged shard
        raise UserError(f"{folder}: no split {split!r} with a text {feature!r} that opens here: {error}") from None
