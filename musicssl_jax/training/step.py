"""The train step: gradients summed over micro-batches and devices, divided once, applied once."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AbstractMesh, Mesh
from jax.sharding import PartitionSpec as P

from musicssl_jax.parallel import BATCH_SPEC, PARTITION_RULES, partition_specs, shardings, state_specs
from musicssl_jax.shapes import Array, Int
from musicssl_jax.training.state import TrainState, init_state

Batch = dict[str, Array]
"""Rows of a global batch as (micro-batch, row, ...) arrays; see `Data2Vec.loss` for the names."""


STOP = "stop"
"""Name of the batch's column, and of the step's result, by which any process asks all to stop after the same step."""


def micro_batches(clips: int, per_device: int, devices: int) -> int:
    """Micro-batches in which `devices` devices, `per_device` clips each, do a global batch of `clips`."""
    return -(-clips // (per_device * devices))


def make_sums(
    objective,
    mesh: Mesh,
    seed: int | Int[Array, ""],
    *,
    grad: bool,
    on_micro_batch: Callable | None = None,
    prng: str = "threefry2x32",
):
    """A function (params, teacher, frozen, batch, step) -> (loss sum, weight, sums, gradient sums or None).

    Each device of the `data` axis adds up its own micro-batches; one reduction over `data` then joins them.
    The micro-batches stand in a `shard_map` over `data`, since plain jit would put that reduction inside
    their loop. Randomness follows from (seed, step, row) alone. `on_micro_batch(index)` is called on the
    host as each begins.
    """

    def local_sums(params, teacher, frozen, batch, step):
        specs = partition_specs(params, PARTITION_RULES, mesh.shape)
        key = jax.random.fold_in(jax.random.key(seed, impl=prng), step)

        def loss(params, teacher, frozen, rows, key):
            value, (weight, sums) = objective.loss(params, teacher, frozen, rows, key, train=grad)
            return value, (value, weight, sums)

        # Traced once, for the shape of its result and for the loop.
        @partial(jax.jit, inline=True)
        def micro_batch(rows, *others):
            rows = jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, P("fsdp")), rows)
            params, teacher, frozen, key = others
            if not grad:
                return loss(params, teacher, frozen, rows, key)[1], ()
            grads, aux = jax.grad(loss, has_aux=True)(params, teacher, frozen, rows, key)
            return aux, jax.tree.map(jax.lax.with_sharding_constraint, grads, specs)

        others = (params, teacher, frozen, key)

        def add(total, indexed):
            index, rows = indexed
            if on_micro_batch is not None:
                jax.debug.callback(on_micro_batch, index)
            return jax.tree.map(jnp.add, total, micro_batch(rows, *others)), None

        first = jax.tree.map(lambda x: x[0], batch)
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(micro_batch, first, *others))
        count = jax.tree.leaves(batch)[0].shape[0]
        if count == 1:
            # XLA undoes a loop of one round, and the TPU's compiler then runs the loops inside once for each use of
            # what they give: blocks three times forwards and twice backwards.
            total, _ = add(zeros, (jnp.int32(0), first))
        else:
            total, _ = jax.lax.scan(add, zeros, (jnp.arange(count), batch))
        # XLA rejects a reduction over a manual axis of one device beside an automatic one.
        return jax.lax.psum(total, "data") if mesh.shape["data"] > 1 else total

    return jax.shard_map(
        local_sums,
        mesh=mesh,
        in_specs=(P(), P(), P(), P(None, "data"), P()),
        out_specs=P(),
        axis_names={"data"},
        check_vma=False,  # else gradients of the replicated parameters are reduced in every micro-batch
    )


def make_train_step(
    objective,
    optimizer: optax.GradientTransformation,
    schedule: Callable,
    mesh: Mesh,
    seed: int | Int[Array, ""],
    on_micro_batch: Callable | None = None,
    prng: str = "threefry2x32",
) -> Any:
    """The update, as a `jax.jit` function (state, frozen, batch) -> (state, metrics) that reuses the old state.

    Gradients and loss are divided by the global weight (masked frames). An update whose loss or gradient is
    not finite leaves parameters, moments and teacher as they were; the step still counts. A batch may have a column
    STOP (micro-batch, row), of which the metrics hold the maximum.
    """
    sums_of = make_sums(objective, mesh, seed, grad=True, on_micro_batch=on_micro_batch, prng=prng)

    def train_step(state: TrainState, frozen: Any, batch: Batch):
        batch = dict(batch)
        asked = {STOP: jnp.max(batch.pop(STOP))} if STOP in batch else {}
        (loss, weight, sums), grads = sums_of(state.params, state.teacher, frozen, batch, state.step)
        weight = jnp.maximum(weight, 1.0)
        grads = jax.tree.map(lambda g: g / weight, grads)
        norm = optax.tree.norm(grads)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)

        def if_finite(new, old):
            return jax.tree.map(lambda new, old: jnp.where(finite, new, old), new, old)

        step = state.step + 1
        # Each choice stands in the scope of what it chooses from: compilers join the two, under the last one's name.
        with jax.named_scope("optimizer"):
            updates, moments = optimizer.update(grads, state.opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
            kept_params, kept_moments = if_finite((params, moments), (state.params, state.opt_state))
        with jax.named_scope("teacher_average"):
            teacher = if_finite(objective.update_teacher(state.teacher, params, step), state.teacher)
        metrics = {
            "train/loss": loss / weight,
            "train/grad_norm": norm,
            "train/learning_rate": schedule(state.step),
            **objective.metrics(sums, state.step),
            **asked,
        }
        return TrainState(step, kept_params, teacher, kept_moments), metrics

    return jax.jit(train_step, donate_argnums=0)


def make_valid_step(objective, mesh: Mesh, seed: int) -> Any:
    """A jitted function (state, frozen, batch, number) -> metrics of held-out rows without dropout.

    Masks follow from (seed, number), so every validation of a run sees the same ones.
    """
    sums_of = make_sums(objective, mesh, seed, grad=False)

    def valid_step(state: TrainState, frozen: Any, batch: Batch, number: Array):
        (loss, weight, sums), _ = sums_of(state.params, state.teacher, frozen, batch, number)
        return {"loss": loss / jnp.maximum(weight, 1.0), **objective.metrics(sums, state.step)}

    return jax.jit(valid_step)


def sharded_state(objective, optimizer, mesh: Mesh, seed: int) -> TrainState:
    """The initial state, born where the partition rules put it."""
    where = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(objective, optimizer, mesh))
    init = jax.jit(lambda key: init_state(objective, optimizer, key), out_shardings=where)
    return init(jax.random.key(seed))


def abstract_state(objective, optimizer: optax.GradientTransformation, mesh: Mesh | AbstractMesh) -> TrainState:
    """Shape, dtype and sharding of every leaf of the state; nothing is computed."""
    shapes = jax.eval_shape(lambda key: init_state(objective, optimizer, key), jax.random.key(0))
    where = shardings(state_specs(shapes, PARTITION_RULES, mesh.shape), mesh)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes, where
    )


def batch_sharding(mesh: Mesh | AbstractMesh):
    """Where a batch's rows lie."""
    return shardings(BATCH_SPEC, mesh)
