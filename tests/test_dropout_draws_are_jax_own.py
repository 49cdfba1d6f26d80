"""Written-out draws against `jax.random`'s, and what dropout makes of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musicssl_jax.models.draws import kept, threefry
from musicssl_jax.models.layers import dropout

SHAPES = st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**31 - 1), probability=st.floats(0.01, 0.99), shape=SHAPES)
def test_draws_are_those_of_bernoulli(seed, probability, shape):
    key = jax.random.key(seed)
    np.testing.assert_array_equal(kept(key, probability, shape), jax.random.bernoulli(key, probability, shape))


@pytest.mark.parametrize("probability", [0.9, 0.5, 0.1])
def test_many_draws_are_those_of_bernoulli_compiled_with_the_keys_of_a_batch(probability):
    """Compiled and with a key a clip, as training has it; large enough that a draw lies on the threshold itself."""
    keys, shape = jax.random.split(jax.random.key(5), 3), (4, 700, 701)
    ours = jax.jit(jax.vmap(lambda key: kept(key, probability, shape)))(keys)
    theirs = jax.jit(jax.vmap(lambda key: jax.random.bernoulli(key, probability, shape)))(keys)
    np.testing.assert_array_equal(ours, theirs)


def test_other_generators_draw_as_jax_does():
    key = jax.random.key(3, impl="rbg")
    np.testing.assert_array_equal(kept(key, 0.7, (5, 6)), jax.random.bernoulli(key, 0.7, (5, 6)))


@pytest.mark.parametrize(
    ("key", "counter", "expected"),
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_the_generator_gives_its_authors_known_answers(key, counter, expected):
    """Random123's kat_vectors for threefry2x32 of 20 rounds."""
    high, low = (jnp.array([word], jnp.uint32) for word in counter)
    drawn = threefry(jnp.array(key, jnp.uint32), high, low)
    assert tuple(int(word[0]) for word in drawn) == expected


def test_dropout_keeps_the_mean_and_what_a_clip_loses_is_its_own():
    x = jnp.ones((2, 400, 500))
    keys = jax.random.split(jax.random.key(1), 2)
    y = dropout(x, 0.1, keys)
    assert set(np.unique(y)) == {np.float32(0), np.float32(1) / np.float32(0.9)}
    # Five standard deviations of the mean of 200,000 draws.
    np.testing.assert_allclose(y.mean((1, 2)), 1, atol=5 * (0.1 / 0.9 / 200_000) ** 0.5)
    np.testing.assert_array_equal(dropout(x[1:], 0.1, keys[1:])[0], y[1])
