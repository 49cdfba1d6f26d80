"""A split's name that cannot be wrong: a hash of what is in it."""

import hashlib
import json

from musicssl_jax.mir.tasks.task import TaskData


def split_sha256(data: TaskData) -> str:
    """SHA-256 of the sorted (recording, part, label): equal where the same recordings, in the same parts, have the
    same labels, wherever they lie on the disk. What is missing on this machine is not in it."""
    rows = sorted(json.dumps([example.recording, example.part, example.label]) for example in data.examples)
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()
