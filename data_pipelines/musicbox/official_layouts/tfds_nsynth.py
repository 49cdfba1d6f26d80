"""NSynth as TFDS prepares it: `nsynth/full/2.3.3/` with ArrayRecord shards, and the features of its public builder.

The records are written here from the wire format of tf.train.Example, with no code of the readers.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from data_pipelines.musicbox.official_layouts.layout import Size
from data_pipelines.musicbox.official_layouts.nsynth import (
    FAMILIES,
    QUALITIES,
    RATE,
    SOURCES,
    NSynthNote,
    note_seconds,
    note_sound,
    nsynth_notes,
)

VERSION = "2.3.3"
_FEATURES = "tensorflow_datasets.core.features"
_LISTS = {bytes: 1, float: 2, int: 3}  # fields of tf.train.Feature


def write_tfds_nsynth(
    folder: Path, seed: int, size: Size, *, audio: Literal["Audio", "Tensor"] = "Audio"
) -> dict[str, int]:
    """Writes `folder/nsynth/full/2.3.3`; the number of records of every split. Notes have one length, 4 s in TFDS.

    audio: the feature's class. Audio is the public builder's, and TFDS opens it with TensorFlow only.
    """
    target = folder / "nsynth" / "full" / VERSION
    target.mkdir(parents=True)
    splits: dict[str, list[bytes]] = {"train": [], "valid": [], "test": []}
    for note in nsynth_notes(size):
        splits[note.part].append(_example(_features(note, note_sound(note, seed, note_seconds(size)))))
    for split, records in splits.items():
        writer = ArrayRecordWriter(str(target / f"nsynth-{split}.array_record-00000-of-00001"), "group_size:1")
        for record in records:
            writer.write(record)
        writer.close()
    samples = round(note_seconds(size) * RATE)
    for file, content in {"dataset_info.json": _info(splits), "features.json": _feature_file(samples, audio)}.items():
        (target / file).write_text(json.dumps(content, indent=4))
    names = {"family": FAMILIES, "source": SOURCES}
    for field, labels in names.items():
        (target / f"instrument-{field}.labels.txt").write_text("".join(f"{label}\n" for label in labels))
    return {split: len(records) for split, records in splits.items()}


def _features(note: NSynthNote, wave: np.ndarray) -> dict[str, Sequence[Any]]:
    values: dict[str, Sequence[Any]] = {
        "audio": wave.astype(float).tolist(),
        "id": [note.name.encode()],
        "instrument/family": [note.family],
        "instrument/label": [int(note.instrument[-3:]) + 80 * note.family],
        "instrument/source": [note.source],
        "pitch": [note.pitch],
        "velocity": [note.velocity],
    }
    shown = "bright" if note.pitch > 60 else "dark"
    return values | {f"qualities/{name}": [int(name == shown)] for name in QUALITIES}


def _example(features: Mapping[str, Sequence[Any]]) -> bytes:
    """tf.train.Example: features (1), a map of name (1) to a feature (2), which is one of three lists of values (1)."""
    entries = b""
    for name, values in features.items():
        kind = type(values[0])
        if kind is bytes:
            content = b"".join(_field(1, value) for value in values)
        elif kind is float:
            content = _field(1, struct.pack(f"<{len(values)}f", *values))
        else:
            content = _field(1, b"".join(_varint(value) for value in values))
        entries += _field(1, _field(1, name.encode()) + _field(2, _field(_LISTS[kind], content)))
    return _field(1, entries)


def _field(number: int, payload: bytes) -> bytes:
    return bytes((number << 3 | 2,)) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    groups = []
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    return bytes([*groups, value])


def _info(splits: Mapping[str, Sequence[bytes]]) -> dict[str, Any]:
    entries = [
        {
            "name": name,
            "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            "shardLengths": [str(len(records))],
            "numBytes": str(sum(map(len, records))),
        }
        for name, records in splits.items()
    ]
    fields = {"configName": "full", "fileFormat": "array_record", "moduleName": "tensorflow_datasets.datasets.nsynth"}
    return {"name": "nsynth", "version": VERSION, "splits": entries} | fields


def _feature_file(samples: int, kind: str) -> dict[str, Any]:
    labels = {"family": _label(len(FAMILIES)), "label": _label(1006), "source": _label(len(SOURCES))}
    shape = {"dimensions": [str(samples)]}
    audio = {"shape": shape, "dtype": "float32", "sampleRate": str(RATE), "encoding": "NONE"}
    classes = {
        "Audio": {"pythonClassName": f"{_FEATURES}.audio_feature.Audio", "audio": audio},
        "Tensor": _tensor("float32", shape),
    }
    top = {
        "audio": classes[kind],
        "id": _tensor("string"),
        "instrument": _dictionary(labels),
        "pitch": _label(128),
        "qualities": _dictionary({name: _tensor("bool") for name in QUALITIES}),
        "velocity": _label(128),
    }
    return _dictionary(top)


def _dictionary(features: Mapping[str, Any]) -> dict[str, Any]:
    name = f"{_FEATURES}.features_dict.FeaturesDict"
    return {"pythonClassName": name, "featuresDict": {"features": dict(features)}}


def _label(classes: int) -> dict[str, Any]:
    return {
        "pythonClassName": f"{_FEATURES}.class_label_feature.ClassLabel",
        "classLabel": {"numClasses": str(classes)},
    }


def _tensor(dtype: str, shape: Mapping[str, Any] | None = None) -> dict[str, Any]:
    content = {"shape": dict(shape or {}), "dtype": dtype, "encoding": "none"}
    return {"pythonClassName": f"{_FEATURES}.tensor_feature.Tensor", "tensor": content}
