"""The two JSON files that make a folder of shards a data set for `tfds.builder_from_directory`."""

from collections.abc import Mapping, Sequence
from typing import Any


def tfds_files(name: str, version: str, splits: Mapping[str, Sequence[tuple[int, int]]]) -> dict[str, Any]:
    """File name -> content of a collection's, given (records, bytes) of every shard of every split."""
    features = {
        "audio": tensor("int16", [-1]),
        "track": text(),
        "start": _scalar("int64"),
        "track_length": _scalar("int64"),
        "mean": _scalar("float32"),
        "std": _scalar("float32"),
    }
    return data_set_files(name, version, splits, features)


def data_set_files(
    name: str,
    version: str,
    splits: Mapping[str, Sequence[tuple[int, int]]],
    features: Mapping[str, Any],
    *,
    template: str = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
) -> dict[str, Any]:
    """File name -> content, given (records, bytes) of every shard of every split, and the features of a record.

    Format: TFDS 4.9, core/proto/dataset_info.proto and core/proto/feature.proto.
    """
    entries = [
        {
            "name": split,
            "filepathTemplate": template,
            "shardLengths": [str(records) for records, _ in shards],
            "numBytes": str(sum(size for _, size in shards)),
        }
        for split, shards in splits.items()
    ]
    info = {"name": name, "version": version, "fileFormat": "array_record", "splits": entries}
    features_dict = {
        "pythonClassName": "tensorflow_datasets.core.features.features_dict.FeaturesDict",
        "featuresDict": {"features": dict(features)},
    }
    return {"dataset_info.json": info, "features.json": features_dict}


def tensor(dtype: str, dimensions: Sequence[int]) -> dict[str, Any]:
    """An array as raw bytes; one dimension may be -1."""
    return _feature("tensor_feature.Tensor", dtype, {"dimensions": [str(size) for size in dimensions]}, "bytes")


def text() -> dict[str, Any]:
    """A string."""
    return {"pythonClassName": "tensorflow_datasets.core.features.text_feature.Text", "text": {}}


def _scalar(dtype: str) -> dict[str, Any]:
    return _feature("scalar.Scalar", dtype, {}, "none")


def _feature(kind: str, dtype: str, shape: dict, encoding: str) -> dict[str, Any]:
    return {
        "pythonClassName": f"tensorflow_datasets.core.features.{kind}",
        "tensor": {"shape": shape, "dtype": dtype, "encoding": encoding},
    }
