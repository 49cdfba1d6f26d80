"""Every formulation of attention is the same function; what "auto" takes follows devices, precision and dropout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from run_fixtures import tiny_config

from musicssl_jax.errors import UserError
from musicssl_jax.models.attention import _splash, attend, choose_kernel
from musicssl_jax.models.layers import dropout
from musicssl_jax.models.objective import make_objective
from musicssl_jax.train import train

# Products in bfloat16 keep 8 bits: 2^-8 of values near 1.
TOLERANCE = {jnp.float32: 1e-5, jnp.bfloat16: 1e-2}


def inputs(frames: int, dtype):
    keys = jax.random.split(jax.random.key(0), 4)
    query, key, value, weights = (jax.random.normal(k, (2, frames, 2, 64)) for k in keys)
    return (*(part.astype(dtype) for part in (query, key, value)), weights)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("padded", [False, True])
def test_the_tpu_kernel_gives_the_same_values_and_gradients(dtype, padded):
    """Interpreted, on lengths that are filled up. Padded frames themselves mean nothing."""
    query, key, value, weights = inputs(150, dtype)
    padding = jnp.arange(150)[None] >= jnp.array([[150], [90]]) if padded else None
    real = 1.0 if padding is None else ~padding[..., None, None]

    def total(attention, query, key, value):
        out = attention(query, key, value)
        return jnp.sum(out.astype(jnp.float32) * weights * real), out

    def plain(query, key, value):
        return attend(query, key, value, padding, 0.0, None)

    def fused(query, key, value):
        return _splash(query, key, value, padding, interpret=True)

    grads, outs = zip(
        *(jax.grad(total, (1, 2, 3), has_aux=True)(f, query, key, value) for f in (plain, fused)), strict=True
    )
    scale = {name: float(jnp.abs(part).max()) for name, part in zip("qkv", grads[0], strict=True)}
    np.testing.assert_allclose(*(np.asarray(out * real, np.float32) for out in outs), atol=TOLERANCE[dtype])
    for name, ours, theirs in zip("qkv", *grads, strict=True):
        ours, theirs = (np.asarray(part, np.float32) / scale[name] for part in (ours, theirs))
        np.testing.assert_allclose(ours, theirs, atol=TOLERANCE[dtype])


def softmax_of_products(query, key, value, padding, rate, keys):
    """Attention as the formula has it, whose gradient JAX finds."""
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, precision="highest") / query.shape[-1] ** 0.5
    if padding is not None:
        scores = jnp.where(padding[:, None, None, :], -jnp.inf, scores)
    return jnp.einsum("bhqk,bkhd->bqhd", dropout(jax.nn.softmax(scores), rate, keys), value, precision="highest")


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_the_gradient_written_out_is_the_one_of_the_formula(dtype, padded, rate):
    *parts, cotangent = inputs(150, dtype)
    padding = jnp.arange(150)[None] >= jnp.array([[150], [90]]) if padded else None
    keys = jax.random.split(jax.random.key(7), 2)

    def total(attention, *parts):
        return jnp.sum(attention(*parts, padding, rate, keys).astype(jnp.float32) * cotangent)

    def differentiated(attention, dtype):
        return jax.value_and_grad(total, (1, 2, 3))(attention, *(part.astype(dtype) for part in parts))

    (ours, by_ours), (exact, by_exact) = differentiated(attend, dtype), differentiated(softmax_of_products, jnp.float32)
    np.testing.assert_allclose(ours, exact, rtol=TOLERANCE[dtype], atol=150 * TOLERANCE[dtype])
    for ours, exact in zip(by_ours, by_exact, strict=True):
        largest = float(jnp.abs(exact).max())
        np.testing.assert_allclose(ours.astype(jnp.float32), exact, atol=TOLERANCE[dtype] * largest)


def test_nothing_of_frames_by_frames_is_kept_for_the_gradient():
    query, key, value, _ = inputs(150, jnp.float32)
    keys = jax.random.split(jax.random.key(7), 2)
    _, backward = jax.vjp(lambda *parts: attend(*parts, None, 0.3, keys), query, key, value)
    largest = max(leaf.size for leaf in jax.tree.leaves(backward) if hasattr(leaf, "size"))
    assert largest == query.size < 2 * 2 * 150 * 150


@pytest.mark.parametrize(
    ("kernel", "platform", "dtype", "rate", "chosen"),
    [
        ("auto", "tpu", "bfloat16", 0.0, "splash"),
        ("auto", "tpu", "bfloat16", 0.1, "xla"),
        ("auto", "tpu", "float32", 0.0, "xla"),
        ("auto", "cpu", "bfloat16", 0.0, "xla"),
        ("xla", "tpu", "bfloat16", 0.0, "xla"),
        ("splash", "cpu", "float32", 0.0, "splash"),
    ],
)
def test_auto_takes_a_fused_kernel_where_it_holds(kernel, platform, dtype, rate, chosen):
    assert choose_kernel(kernel, platform, dtype, rate, 64) == chosen


def test_auto_does_without_a_library_that_is_not_here():
    assert choose_kernel("auto", "gpu", "bfloat16", 0.0, 64) == "xla"


def test_a_kernel_of_another_platform_is_refused_by_training_and_replaced_elsewhere(tmp_path):
    """What a TPU trained is evaluated by anything."""
    config = tiny_config(compute__attention="splash", model__attention_dropout=0.0)
    with pytest.raises(UserError, match=r"attention=splash: there is no such kernel for a CPU"):
        train(config, tmp_path)
    assert make_objective(config).model.attention == "xla"
