"""Files of the experiment's folder: each is there whole or not at all, so that the same command goes on."""

import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from benchmarks.learning.evaluation import Answers

AllAnswers = dict[str, dict[str, Answers]]
"""Probe -> question -> answers."""


def once(path: Path, make: Callable[[], Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The arrays in the file, which is made if it is not there."""
    if not path.exists():
        write_arrays(path, make())
    return read_arrays(path)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Of an npz file."""
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """An npz file."""
    content = io.BytesIO()
    np.savez(content, **arrays)
    write_whole(path, content.getbuffer())


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Several processes may write the same at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_bytes(content)
    unfinished.replace(path)


def flat(answers: AllAnswers) -> dict[str, np.ndarray]:
    """As arrays by name."""
    return {
        f"{probe}|{question}|{field}": np.asarray(value)
        for probe, of_probe in answers.items()
        for question, one in of_probe.items()
        for field, value in one._asdict().items()
    }


def nested(arrays: Mapping[str, np.ndarray]) -> AllAnswers:
    """What `flat` made arrays of."""
    found: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    for name, value in arrays.items():
        probe, question, field = name.split("|")
        found.setdefault(probe, {}).setdefault(question, {})[field] = value
    return {
        probe: {
            question: Answers(float(one["score"]), one["draws"], int(one["layer"]), one["layers"])
            for question, one in of_probe.items()
        }
        for probe, of_probe in found.items()
    }
