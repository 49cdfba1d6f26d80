"""A probe: its parameters, its answer, its loss. All of one probe; the training program runs many."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from musicssl_jax.mir.probing.problem import Kind
from musicssl_jax.shapes import Array, Float, Key, Shaped

Params = dict[str, Array]


def init_probe(seed: int, width: int, hidden: int | None, outputs: int, mixed_layers: int) -> dict[str, np.ndarray]:
    """Weights of an MLP with one hidden layer, or of a linear probe (hidden None), and the logits of a weighted sum of
    layers, which begins as their mean.

    Uniform in +-1 / sqrt(inputs), as PyTorch's Linear, whose probes the field has.
    """
    random = np.random.default_rng(seed)
    params = {"mix": np.zeros(mixed_layers, np.float32)} if mixed_layers else {}
    sizes = (width, outputs) if hidden is None else (width, hidden, outputs)
    for index, (inputs, size) in enumerate(itertools.pairwise(sizes)):
        limit = 1 / np.sqrt(inputs)
        params[f"kernel{index}"] = random.uniform(-limit, limit, (inputs, size)).astype(np.float32)
        params[f"bias{index}"] = random.uniform(-limit, limit, size).astype(np.float32)
    return params


def answer(
    params: Params, features: Float[Array, "*layers B D"], dropout: float, key: Key[Array, ""] | None
) -> Float[Array, "B K"]:
    """Logits, or numbers. features: of all mixed layers if the probe mixes. key: None outside of training."""
    if "mix" in params:
        features = jnp.tensordot(jax.nn.softmax(params["mix"]), features, axes=1)
    out = features @ params["kernel0"] + params["bias0"]
    if "kernel1" in params:
        out = jax.nn.relu(out)
        if key is not None and dropout:
            dropped = round(dropout * 2**16)
            kept = jax.random.bits(key, out.shape, jnp.uint16) >= dropped
            out = jnp.where(kept, out / (1 - dropout), 0.0)
        out = out @ params["kernel1"] + params["bias1"]
    return out


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
