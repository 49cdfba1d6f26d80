"""Adam as the reference runs it, its schedules, and clipping."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from musicssl_jax.shapes import Array, Float, Int

Schedule = Callable[[Int[Array, ""]], Float[Array, ""]]


def tri_stage(
    steps: int,
    *,
    peak: float,
    warmup: float,
    hold: float,
    decay: float,
    init_scale: float,
    final_scale: float,
) -> Schedule:
    """fairseq's tri_stage: linear from init_scale * peak, hold, exponential to final_scale * peak, constant.

    Stages are fractions of `steps`. With .03/.9/.07 of 400k, .01 and .01: f(0) = 5e-6, f(12000) = 5e-4,
    f(371999) = 5e-4, f(400000) = 5e-6.
    """
    rise, flat, fall = int(steps * warmup), int(steps * hold), int(steps * decay)

    def schedule(step):
        rising = peak * (init_scale + (1 - init_scale) * step / max(rise, 1))
        into_fall = (step - rise - flat) / max(fall, 1)
        falling = peak * jnp.exp(jnp.log(final_scale) * jnp.clip(into_fall, 0, 1))
        return jnp.where(step < rise, rising, falling)

    return schedule


def polynomial(steps: int, *, peak: float, warmup: float, power: float) -> Schedule:
    """fairseq's polynomial_decay: step / (warmup * steps) of the peak, then to 0 at `steps`."""
    rise = int(steps * warmup)

    def schedule(step):
        left = jnp.clip((steps - step) / max(steps - rise, 1), 0, 1)
        return peak * jnp.where(step < rise, step / max(rise, 1), left**power)

    return schedule


def cosine(steps: int, *, peak: float, warmup: float, final_scale: float) -> Schedule:
    """Linear warm-up from 0, then half a cosine to final_scale * peak at `steps`."""
    rise = int(steps * warmup)

    def schedule(step):
        done = jnp.clip((step - rise) / max(steps - rise, 1), 0, 1)
        falling = final_scale + (1 - final_scale) * 0.5 * (1 + jnp.cos(jnp.pi * done))
        return peak * jnp.where(step < rise, step / max(rise, 1), falling)

    return schedule


def make_schedule(config, steps: int) -> Schedule:
    """The schedule of `config.schedule`: learning rate of the update after `step` updates."""
    c = config
    if c.name == "tri_stage":
        stages = {"warmup": c.warmup, "hold": c.hold, "decay": c.decay}
        return tri_stage(steps, peak=c.peak, init_scale=c.init_scale, final_scale=c.final_scale, **stages)
    if c.name == "polynomial":
        return polynomial(steps, peak=c.peak, warmup=c.warmup, power=c.power)
    if c.name == "cosine":
        return cosine(steps, peak=c.peak, warmup=c.warmup, final_scale=c.final_scale)
    raise ValueError(f"schedule.name is {c.name!r}; known: tri_stage, polynomial, cosine")


class AdamState(NamedTuple):
    """Updates done, first and second moments."""

    updates: Int[Array, ""]
    mean: dict
    square: dict


def scale_by_fairseq_adam(b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """fairseq's Adam: sqrt(1 - b2^n) / (1 - b1^n) * m / (sqrt(v) + eps).

    eps is added to the root of v before its bias is corrected, unlike in PyTorch and optax: the two differ
    in early steps, where v is small.
    """

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return AdamState(jnp.zeros((), jnp.int32), zeros, jax.tree.map(jnp.copy, zeros))

    def update(grads, state, params=None):
        del params
        count = state.updates + 1
        mean = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mean, grads)
        square = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * jnp.square(g), state.square, grads)
        n = count.astype(jnp.float32)
        correction = jnp.sqrt(1 - b2**n) / (1 - b1**n)
        updates = jax.tree.map(lambda m, v: correction * m / (jnp.sqrt(v) + eps), mean, square)
        return updates, AdamState(count, mean, square)

    return optax.GradientTransformation(init, update)


def clip_by_norm(limit: float) -> optax.GradientTransformation:
    """fairseq's clip: gradients times min(1, limit / (norm + 1e-6))."""

    def update(grads, state, params=None):
        del params
        factor = jnp.minimum(1.0, limit / (optax.tree.norm(grads) + 1e-6))
        return jax.tree.map(lambda g: g * factor, grads), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def make_optimizer(config, schedule: Schedule) -> optax.GradientTransformation:
    """The optimizer of `config.optimizer`: decoupled weight decay on every parameter, as the reference.

    name "adam_fairseq" or "adamw" (PyTorch's form); clip_norm 0 clips nothing.
    """
    if config.name == "adam_fairseq":
        adam = scale_by_fairseq_adam(config.b1, config.b2, config.eps)
    elif config.name == "adamw":
        adam = optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps)
    else:
        raise ValueError(f"optimizer.name is {config.name!r}; known: adam_fairseq, adamw")
    clip = [clip_by_norm(config.clip_norm)] if config.clip_norm else []
    decay = optax.add_decayed_weights(config.weight_decay)
    return optax.chain(*clip, adam, decay, optax.scale_by_learning_rate(schedule))
