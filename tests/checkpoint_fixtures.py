"""A tiny training state, and a folder with two checkpoints of it."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from musicssl_jax.training.checkpointing import open_checkpoints
from musicssl_jax.training.state import TrainState

META = {"config": {"steps": 10, "seed": 0}, "versions": {"jax": jax.__version__}, "data": {"records": 3}}


def policy(**changes) -> SimpleNamespace:
    defaults = {"every": 1, "keep": 2, "keep_every": 0, "keep_hours": 0.0, "minutes": 0.0}
    return SimpleNamespace(**(defaults | changes))


def tiny_state(step: int, width: int = 4) -> TrainState:
    """Leaves of all kinds that a state may hold; values depend on the step."""
    params = {"conv": {"0": {"kernel": jnp.arange(3 * width, dtype=jnp.float32).reshape(3, width) + step}}}
    moments = (
        {"count": jnp.int32(step), "mu": jnp.full((width,), step, jnp.bfloat16)},
        (),
        {
            "mask": jnp.array([True, False]),
            "key": jax.random.key(step),
            "bits": jnp.uint32([step, 2**32 - 1]),
        },
    )
    return TrainState(jnp.int32(step), params, jax.tree.map(jnp.negative, params), moments)


def abstract(state: Any) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)


def save_steps(folder: Path, *steps: int, **changes) -> None:
    checkpoints = open_checkpoints(folder, policy(**changes))
    for step in steps:
        checkpoints.save(step, tiny_state(step), META)
    checkpoints.close()


def restore(folder: Path, like: Any = None) -> tuple[Any, dict] | None:
    checkpoints = open_checkpoints(folder, policy())
    restored = checkpoints.restore(abstract(tiny_state(0)) if like is None else like)
    checkpoints.close()
    return restored


def same_imports() -> dict[str, str]:
    """Environment in which a child process imports what this one does."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}


def assert_same(a: Any, b: Any) -> None:
    """Same tree, types and bits."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))
