"""How much memory an update's activations take, where there is no compiler to ask."""

import math
from typing import Any

import jax

from musicssl_jax.models.conv_encoder import frame_count
from musicssl_jax.planning.abstract import crop_samples, device_bytes
from musicssl_jax.planning.compiled import Inputs
from musicssl_jax.training.step import STOP


def residual_bytes(inputs: Inputs) -> int:
    """Bytes of what the forward pass of one device's micro-batch keeps for the backward pass, as JAX traces it.

    A compiler keeps less (it computes cheap parts again and joins others) and needs more beside (what an operation is
    at work on). Parameters, which are kept as well, are not counted.
    """
    per_device = inputs.rows[1] // inputs.mesh.size
    rows = {
        name: jax.ShapeDtypeStruct((per_device, *leaf.shape[2:]), leaf.dtype)
        for name, leaf in inputs.batch.items()
        if name != STOP
    }
    bare = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype),
        (inputs.state.params, inputs.state.teacher, inputs.frozen),
    )

    def backward(params, teacher, frozen, rows, key):
        return jax.vjp(lambda p: inputs.objective.loss(p, teacher, frozen, rows, key), params, has_aux=True)[1]

    key = jax.eval_shape(lambda: jax.random.key(0, impl=inputs.config.prng))
    kept = jax.eval_shape(backward, *bare, rows, key)
    shapes = {leaf.shape for leaf in jax.tree.leaves(bare)}
    leaves: list[Any] = [leaf for leaf in jax.tree.leaves(kept) if leaf.shape not in shapes]
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)


def score_bytes(inputs: Inputs) -> int:
    """Bytes of one block's attention scores and of their gradient, float32, while the backward pass is at work on them;
    a fused kernel has none."""
    model = inputs.objective.model
    if model.attention != "xla":
        return 0
    frames = frame_count(crop_samples(inputs.config), model.conv_layers)
    return 2 * 4 * (inputs.rows[1] // inputs.mesh.size) * model.heads * frames**2


def estimated_activations(inputs: Inputs) -> int:
    """Residuals, one block's scores, and two copies of the gradients: a micro-batch's and their sum."""
    return residual_bytes(inputs) + score_bytes(inputs) + 2 * device_bytes(inputs.state.params)
