"""Data sets as TFDS prepares them, opened without TensorFlow."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from musicssl_jax.errors import UserError
from musicssl_jax.mir.tasks.listing import find_file


def find_prepared(folder: Path) -> Path | None:
    """The folder of a prepared data set: `folder` or one below it, as the version folder of TFDS is."""
    info = find_file(folder, "dataset_info.json")
    return info.parent if info and (info.parent / "features.json").is_file() else None


def prepared_entries(folder: Path, split: str, features: Mapping[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number and `features` (names as for `tfds.decode.PartialDecoding`) of each record of a split.

    TFDS itself writes audio as `features.Audio`, which only TensorFlow reads; a data set prepared with a `Tensor` in
    its place opens. Raises UserError: it does not open here, or has no such split or features.
    """
    try:
        source = tfds.builder_from_directory(folder).as_data_source(
            split, decoders=tfds.decode.PartialDecoding(dict(features))
        )
        yield from enumerate(source)
    except ImportError as error:
        raise UserError(
            f"{folder}: TFDS reads this data set only with TensorFlow ({error}), which is never used here; "
            "put the original download beside it"
        ) from None
    except (ValueError, KeyError, NotImplementedError, OSError) as error:
        raise UserError(f"{folder}: not a data set with a split {split!r} that can be read here: {error}") from None


def as_text(value: bytes | str) -> str:
    """TFDS gives text as bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)
