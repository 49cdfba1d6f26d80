"""The compiled programs: batches of training, and answers, of a group of probes."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from musicssl_jax.mir.probing.feed import Chunk
from musicssl_jax.mir.probing.network import Params, answer, loss_of, probabilities
from musicssl_jax.mir.probing.problem import Kind
from musicssl_jax.shapes import Array, Bool, Float, Int, Shaped

ADAM = optax.scale_by_adam()
# A group's program stays on one thread: XLA runs those of several groups at once, which scales better on a CPU than
# threads within products that take half a millisecond.
_OPTIONS: Any = {"xla_cpu_multi_thread_eigen": False}


class State(NamedTuple):
    """Of the probes of a group, stacked. params: as `init_probe` gives them."""

    params: Any
    moments: Any


class Roles(NamedTuple):
    """Of each probe of a group its place among the chunk's layers and seeds, and its rate."""

    layer: Int[np.ndarray, " G"]
    seed: Int[np.ndarray, " G"]
    rate: Float[np.ndarray, " G"]


@functools.partial(jax.jit, static_argnames=("shape", "dropout"))
def kept_units(
    seeds: Int[Array, " seeds"], epoch: int | Array, chunk: int | Array, *, shape: tuple[int, ...], dropout: float
) -> Bool[Array, "seeds S H B"]:
    """Which hidden units are not dropped in a chunk: those of a seed are the same for all of its probes."""

    def of_seed(seed: Int[Array, ""]) -> Bool[Array, "S H B"]:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), epoch), chunk)
        return jax.random.bits(key, shape, jnp.uint16) >= round(dropout * 2**16)

    return jax.vmap(of_seed)(seeds)


@functools.partial(jax.jit, donate_argnums=0, static_argnames=("kind", "dropout", "mixed"), compiler_options=_OPTIONS)
def train_group(
    state: State,
    chunk: Chunk,
    kept: Bool[Array, "seeds S H B"] | None,
    standards: tuple[Float[Array, "layers D"], Float[Array, "layers D"]],
    roles: Roles,
    *,
    kind: Kind,
    dropout: float,
    mixed: bool,
) -> tuple[State, Float[Array, " G"]]:
    """A step for every batch of the chunk; and the sums of the probes' losses."""

    def one(state: State, role: Any) -> tuple[State, Array]:
        def step(state: State, index: Array) -> tuple[State, Array]:
            features = _standardised(chunk.features[role.seed, :, index], standards, role.layer, mixed)
            labels = chunk.labels[role.seed, index]
            of_batch = None if kept is None else kept[role.seed, index]

            def loss(params: Params) -> Array:
                return loss_of(kind, answer(params, features, dropout, of_batch), labels, chunk.weights[index])

            value, gradients = jax.value_and_grad(loss)(state.params)
            updates, moments = ADAM.update(gradients, state.moments)
            return State(jax.tree.map(lambda p, u: p - role.rate * u, state.params, updates), moments), value

        state, losses = jax.lax.scan(step, state, jnp.arange(len(chunk.weights)))
        return state, jnp.sum(losses)

    with jax.default_matmul_precision("float32"):
        return jax.vmap(one)(state, roles)


@functools.partial(jax.jit, static_argnames=("units", "kind", "mixed", "average"), compiler_options=_OPTIONS)
def unit_sums(
    params: Params,
    features: Shaped[Array, "layers N D"],
    rows: tuple[Int[Array, " N"], Float[Array, " N"]],
    standards: tuple[Float[Array, "layers D"], Float[Array, "layers D"]],
    layer: Int[Array, " G"],
    *,
    units: int,
    kind: Kind,
    mixed: bool,
    average: str,
) -> Float[Array, "G units K"]:
    """Sums of a group's answers over the rows of each unit. rows: of each its unit and weight."""
    unit, weight = rows

    def one(params: Params, layer: Int[Array, ""]) -> Float[Array, "units K"]:
        logits = answer(params, _standardised(features, standards, layer, mixed))
        values = probabilities(kind, logits) if average == "probabilities" else logits
        return jax.ops.segment_sum(values * weight[:, None], unit, units)

    with jax.default_matmul_precision("float32"):
        return jax.vmap(one)(params, layer)


def _standardised(
    features: Any,
    standards: tuple[Float[Array, "layers D"], Float[Array, "layers D"]],
    layer: Int[Array, ""],
    mixed: bool,
) -> Float[Array, "*layers B D"]:
    """All layers for a probe that mixes them, else its own."""
    shift, scale = standards
    if mixed:
        return (features.astype(jnp.float32) - shift[:, None]) * scale[:, None]
    return (features[layer].astype(jnp.float32) - shift[layer]) * scale[layer]
