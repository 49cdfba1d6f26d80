"""The two JSON files that make a folder of shards a data set for `tfds.builder_from_directory`."""

from collections.abc import Mapping, Sequence
from typing import Any


def tfds_files(name: str, version: str, splits: Mapping[str, Sequence[tuple[int, int]]]) -> dict[str, Any]:
    """File name -> content, given (records, bytes) of every shard of every split.

    Format: TFDS 4.9, core/proto/dataset_info.proto and core/proto/feature.proto.
    """
    entries = [
        {
            "name": split,
            "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            "shardLengths": [str(records) for records, _ in shards],
            "numBytes": str(sum(size for _, size in shards)),
        }
        for split, shards in splits.items()
    ]
    info = {"name": name, "version": version, "fileFormat": "array_record", "splits": entries}
    features = {
        "audio": _tensor("tensor_feature.Tensor", "int16", {"dimensions": ["-1"]}, "bytes"),
        "track": {"pythonClassName": "tensorflow_datasets.core.features.text_feature.Text", "text": {}},
        "start": _tensor("scalar.Scalar", "int64"),
        "track_length": _tensor("scalar.Scalar", "int64"),
        "mean": _tensor("scalar.Scalar", "float32"),
        "std": _tensor("scalar.Scalar", "float32"),
    }
    features_dict = {
        "pythonClassName": "tensorflow_datasets.core.features.features_dict.FeaturesDict",
        "featuresDict": {"features": features},
    }
    return {"dataset_info.json": info, "features.json": features_dict}


def _tensor(kind: str, dtype: str, shape: dict | None = None, encoding: str = "none") -> dict[str, Any]:
    return {
        "pythonClassName": f"tensorflow_datasets.core.features.{kind}",
        "tensor": {"shape": shape or {}, "dtype": dtype, "encoding": encoding},
    }
