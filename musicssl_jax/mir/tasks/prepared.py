"""Data sets as TFDS prepares them, opened without TensorFlow."""

from pathlib import Path

import tensorflow_datasets as tfds

from musicssl_jax.errors import UserError
from musicssl_jax.mir.tasks.listing import find_file


def find_prepared(folder: Path) -> Path | None:
    """The folder of a prepared data set: `folder` or one below it, as the version folder of TFDS is."""
    info = find_file(folder, "dataset_info.json")
    return info.parent if info and (info.parent / "features.json").is_file() else None


def prepared_names(folder: Path, split: str, feature: str) -> list[str]:
    """The text `feature` of each record of a split, in their order.

    TFDS itself writes audio as `features.Audio`, which only TensorFlow reads; a data set prepared with a `Tensor` in
    its place opens. Every record is read as a whole. Raises UserError: it does not open here, or has no such split or
    feature.
    """
    try:
        source = tfds.builder_from_directory(folder).as_data_source(split)
        return [record[feature].decode() for record in source]
    except ImportError as error:
        raise UserError(
            f"{folder}: TFDS reads this data set only with TensorFlow ({error}), which is never used here; "
            "put the original download beside it"
        ) from None
    except (ValueError, KeyError, AttributeError, NotImplementedError, OSError) as error:
        raise UserError(f"{folder}: no split {split!r} with a text {feature!r} that opens here: {error}") from None
