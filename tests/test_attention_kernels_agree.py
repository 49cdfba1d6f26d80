"""Every formulation of attention is the same function; what "auto" takes follows devices, precision and dropout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from run_fixtures import tiny_config

from musicssl_jax.errors import UserError
from musicssl_jax.models.attention import _all_heads, _splash, attend, choose_kernel
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


def test_scores_made_anew_for_the_gradient_lose_the_same_weights():
    """In training nothing of frames x frames is kept; 1e-6: the same sums, compiled apart."""
    query, key, value, weights = inputs(150, jnp.float32)
    keys = jax.random.split(jax.random.key(7), 2)

    def total(attention):
        return lambda *qkv: jnp.sum(attention(*qkv, None, 0.3, keys) * weights)

    kept, anew = (jax.grad(total(f), (0, 1, 2))(query, key, value) for f in (_all_heads, attend))
    for ours, theirs in zip(anew, kept, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6 * float(jnp.abs(theirs).max()))
    largest = {
        f: max(leaf.size for leaf in jax.tree.leaves(jax.vjp(total(f), query, key, value)[1]))
        for f in (_all_heads, attend)
    }
    assert largest[_all_heads] == 2 * 2 * 150 * 150
    assert largest[attend] == query.size


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
