"""A checksum of an array, computed where the array lies."""

import jax
import jax.numpy as jnp
import numpy as np


@jax.jit
def checksum(leaf: jax.Array) -> jax.Array:
    """Sum over the words of a leaf of mix(word ^ mix(position)), modulo 2**32.

    `mix` is a bijection, so one changed word is seen for sure, and whatever happens to several is missed
    with chance 2**-32. (A plain weighted sum is blind to a page of ones turned to zeros: their low bits are
    all zero.) Integer sums do not depend on their order, hence not on sharding or on the number of devices.
    """
    words = _words(leaf)
    position = jnp.zeros(words.shape, jnp.uint32)
    for axis, size in enumerate(words.shape):
        position = position * np.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
    return jnp.sum(_mix(words ^ _mix(position)), dtype=jnp.uint32)


def _words(leaf: jax.Array) -> jax.Array:
    """The bits of a leaf as uint32, one per element (two along a new last axis for 64-bit types)."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    if leaf.dtype == jnp.bool_:
        return leaf.astype(jnp.uint32)
    bits = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}[leaf.dtype.itemsize]
    return jax.lax.bitcast_convert_type(leaf, bits).astype(jnp.uint32)


def _mix(x: jax.Array) -> jax.Array:
    """The 32-bit finaliser of MurmurHash3 (Appleby, public domain), a bijection of uint32."""
    x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
