"""The convolution's own gradients, which CPUs take, against those that JAX derives from it."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from musicssl_jax.models import convolution

shapes = st.fixed_dictionaries(
    {
        "taps": st.integers(1, 11),
        "stride": st.integers(1, 5),
        "padding": st.integers(0, 6),
        "groups": st.sampled_from([1, 2, 3]),
        "inputs": st.integers(1, 3),
        "outputs": st.integers(1, 3),
        "more": st.integers(0, 17),
    }
)


@settings(max_examples=40, deadline=None)
@given(shapes)
def test_any_shape(shape):
    taps, stride, padding, groups = (shape[name] for name in ("taps", "stride", "padding", "groups"))
    padding = min(padding, taps - 1)
    samples = max(taps - 2 * padding, 1) + shape["more"]
    random = np.random.default_rng(0)
    x = jnp.asarray(random.normal(size=(2, samples, groups * shape["inputs"])))
    kernel = jnp.asarray(random.normal(size=(taps, shape["inputs"], groups * shape["outputs"])))

    def derived(x, kernel):
        return convolution._conv(x, kernel, stride, padding, groups)

    y, vjp = jax.vjp(derived, x, kernel)
    g = jnp.asarray(random.normal(size=y.shape))
    own = jax.vjp(lambda *p: convolution.conv1d(*p, stride, padding, groups), x, kernel)[1](g)
    for got, wanted in zip(own, vjp(g), strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-4)  # float32 sums of up to 100 products of size 1


def test_cpu_convolutions_stand_in_the_fast_order_of_axes_inside_of_loops():
    """Elsewhere XLA takes a loop over single elements: 20 times as long for the positional embedding."""
    x, kernel = jnp.zeros((3, 2, 50, 32)), jnp.zeros((5, 8, 32))

    def total(x, kernel):
        def add(total, x):
            return total + jnp.square(convolution.conv1d(x, kernel, 1, 2, 4)).sum(), None

        return jax.lax.scan(add, 0.0, x)[0]

    program = jax.jit(jax.grad(total, (0, 1))).lower(x, kernel).compile().as_text()
    orders = [line.split("dim_labels=")[1].split(",")[0] for line in program.splitlines() if " convolution(" in line]
    assert len(orders) >= 2 and set(orders) == {"b0f_0io->b0f"}


def test_bfloat16_at_the_positional_embeddings_size_is_the_plain_convolution_in_float32():
    """128 taps and 16 groups, as musicHuBERT has them.

    2^-8 of the largest, which is one rounding of it to bfloat16: sums are taken in float32, of the same numbers.
    """
    taps, groups, width, frames = 128, 16, 64, 249
    random = np.random.default_rng(0)
    x, kernel = (random.normal(size=size) for size in ((2, frames, width), (taps, width // groups, width)))
    g = random.normal(size=(2, frames + 1, width))
    x, kernel, g = (jnp.asarray(part, jnp.bfloat16) for part in (x, kernel, g))
    own, back = jax.vjp(lambda *p: convolution.conv1d(*p, 1, taps // 2, groups), x, kernel)
    wide = (part.astype(jnp.float32) for part in (x, kernel))
    plain, plain_back = jax.vjp(lambda *p: convolution._conv(*p, 1, taps // 2, groups), *wide)
    for got, wanted in zip((own, *back(g)), (plain, *plain_back(g.astype(jnp.float32))), strict=True):
        assert got.dtype == jnp.bfloat16
        error = np.abs(np.asarray(got, np.float32) - np.asarray(wanted)).max()
        assert error <= 2**-8 * np.abs(wanted).max()
