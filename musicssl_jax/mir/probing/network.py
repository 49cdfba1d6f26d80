"""A probe: its parameters, its answer, its loss. All of one probe; the training program runs many."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from musicssl_jax.mir.probing.problem import Kind
from musicssl_jax.shapes import Array, Bool, Float, Shaped

Params = dict[str, Array]


def init_probe(seed: int, width: int, hidden: int | None, outputs: int, mixed_layers: int) -> dict[str, np.ndarray]:
    """Weights of an MLP with one hidden layer, or of a linear probe (hidden None), and the logits of a weighted sum of
    layers, which begins as their mean.

    Kernels are (outputs, inputs), uniform in +-1 / sqrt(inputs), as PyTorch's Linear, whose probes the field has.
    """
    random = np.random.default_rng(seed)
    params = {"mix": np.zeros(mixed_layers, np.float32)} if mixed_layers else {}
    sizes = (width, outputs) if hidden is None else (width, hidden, outputs)
    for index, (inputs, size) in enumerate(itertools.pairwise(sizes)):
        limit = 1 / np.sqrt(inputs)
        params[f"kernel{index}"] = random.uniform(-limit, limit, (size, inputs)).astype(np.float32)
        params[f"bias{index}"] = random.uniform(-limit, limit, size).astype(np.float32)
    return params


def answer(
    params: Params, features: Float[Array, "*layers B D"], dropout: float = 0.0, kept: Bool[Array, "H B"] | None = None
) -> Float[Array, "B K"]:
    """Logits, or numbers. features: of all mixed layers if the probe mixes. kept: which hidden units are not dropped;
    None outside of training."""
    if "mix" in params:
        # One product of matrices, of which a CPU is twice as fast as of `tensordot`.
        layers, *shape = features.shape
        features = (jax.nn.softmax(params["mix"])[None] @ features.reshape(layers, -1)).reshape(shape)
    # Rows are columns in here: a training step on a CPU takes a tenth less.
    out = params["kernel0"] @ features.T + params["bias0"][:, None]
    if "kernel1" in params:
        out = jax.nn.relu(out)
        if kept is not None:
            out = jnp.where(kept, out / (1 - dropout), 0.0)
        out = params["kernel1"] @ out + params["bias1"][:, None]
    return out.T


def loss_of(
    kind: Kind, logits: Float[Array, "B K"], labels: Shaped[Array, "B ..."], weights: Float[Array, " B"]
) -> Float[Array, ""]:
    """Mean over rows of positive weight: cross-entropy of classes, binary ones of tags, squared error of numbers (both
    means over outputs), as in MARBLE v1."""
    if kind == "class":
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    elif kind == "tags":
        losses = optax.sigmoid_binary_cross_entropy(logits, labels).mean(axis=-1)
    else:
        losses = jnp.square(logits - labels).mean(axis=-1)
    return jnp.sum(losses * weights) / jnp.maximum(jnp.sum(weights), 1.0)


def probabilities(kind: Kind, logits: Float[Array, "*rows K"]) -> Float[Array, "*rows K"]:
    """What an answer means: probabilities of classes and tags, numbers as they are."""
    if kind == "class":
        return jax.nn.softmax(logits)
    return jax.nn.sigmoid(logits) if kind == "tags" else logits
