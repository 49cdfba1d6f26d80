"""The whole state of a run: one pytree of arrays."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from musicssl_jax.shapes import Array, Int, Key


class TrainState(NamedTuple):
    """`step` updates are done. params, teacher: nested dicts of float32 arrays; opt_state: optax's."""

    step: Int[Array, ""]
    params: dict
    teacher: dict
    opt_state: Any


def init_state(objective, optimizer: optax.GradientTransformation, key: Key[Array, ""]) -> TrainState:
    """The state before the first update; its teacher equals its student."""
    params = objective.init(key)
    teacher = objective.init_teacher(params)
    return TrainState(jnp.zeros((), jnp.int32), params, teacher, optimizer.init(params))


def parameter_count(params: dict) -> int:
    """Number of scalars in a pytree of arrays or shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
