"""Norms and GELU whose gradients are written out give what JAX's own differentiation gives of their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from musicssl_jax.models.layers import NORM_EPSILON, gelu, normalize

B, T, D = 2, 33, 24


def defined_norm(x, scale, bias, axis):
    x = x.astype(jnp.float32)
    variance = jnp.var(x, axis, keepdims=True)
    return (x - x.mean(axis, keepdims=True)) / jnp.sqrt(variance + NORM_EPSILON) * scale + bias


def arrays(dtype):
    random = np.random.default_rng(0)
    x = jnp.asarray(3 + 2 * random.standard_normal((B, T, D)), dtype)
    scale, bias, g = (jnp.asarray(random.standard_normal(shape), jnp.float32) for shape in ((D,), (D,), (B, T, D)))
    return x, scale, bias, g


@pytest.mark.parametrize("axis", [-1, 1])
def test_norms_along_channels_and_along_time(axis):
    """1e-5: float32 sums of 33 to 792 terms in another order."""
    x, scale, bias, g = arrays("float32")
    ours, back = jax.vjp(lambda *a: normalize(*a, axis), x, scale, bias)
    theirs, defined_back = jax.vjp(lambda *a: defined_norm(*a, axis), x, scale, bias)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    for one, wanted in zip(back(g), defined_back(g), strict=True):
        np.testing.assert_allclose(one, wanted, rtol=1e-5, atol=1e-5 * float(jnp.abs(wanted).max()))


def test_gelu_over_all_that_matters():
    """2e-7: half a unit in the last place of 1, by which the distribution function is rounded."""
    x = jnp.linspace(-12, 12, 4801)
    wide = np.asarray(x, np.float64)
    theirs, slope = jax.jvp(lambda x: jax.nn.gelu(x, approximate=False), (x,), (jnp.ones_like(x),))
    np.testing.assert_allclose(gelu(x), theirs, rtol=1e-6, atol=2e-7 * np.abs(wide).max())
    np.testing.assert_allclose(jax.vmap(jax.grad(gelu))(x), slope, rtol=1e-6, atol=3e-7 * np.abs(wide).max())


def test_bfloat16_is_computed_in_float32_and_rounded_once():
    x, scale, bias, g = arrays("bfloat16")
    g = g.astype(jnp.bfloat16)
    for ours, defined, inputs in (
        (lambda *a: normalize(*a, -1), lambda *a: defined_norm(*a, -1).astype(jnp.bfloat16), (x, scale, bias)),
        (lambda *a: normalize(*a, 1), lambda *a: defined_norm(*a, 1).astype(jnp.bfloat16), (x, scale, bias)),
        (gelu, lambda x: jax.nn.gelu(x.astype(jnp.float32), approximate=False).astype(jnp.bfloat16), (x,)),
    ):
        for one, wanted in zip(jax.vjp(ours, *inputs)[1](g), jax.vjp(defined, *inputs)[1](g), strict=True):
            assert one.dtype == wanted.dtype
            error = np.abs(np.asarray(one, np.float32) - np.asarray(wanted, np.float32))
            assert error.max() <= 2**-8 * np.abs(np.asarray(wanted, np.float32)).max()


@pytest.mark.parametrize("function", [gelu, lambda x: normalize(x, jnp.ones(D), jnp.zeros(D), -1)])
def test_nothing_is_kept_for_the_gradient_that_is_larger_than_the_input(function):
    """In a scan all of that is written to memory."""
    x = arrays("bfloat16")[0]
    _, back = jax.vjp(function, x)
    kept = [leaf for leaf in jax.tree.leaves(back) if leaf.size >= x.size]
    assert [leaf.dtype for leaf in kept] == [jnp.bfloat16]
