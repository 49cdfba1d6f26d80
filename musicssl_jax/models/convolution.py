"""One-dimensional convolution whose gradient is fast on every platform.

XLA's CPU backend runs the kernel's gradient of a convolution inside a loop (micro-batches are one) without its
fast path: 5.6 s instead of 0.03 s for 128 channels, kernel 3 and one second of audio. There the gradient is a
matrix product per tap; elsewhere it is XLA's own.
"""

from functools import partial

import jax
import jax.numpy as jnp

from musicssl_jax.models.layers import precision_of
from musicssl_jax.shapes import Array, Float


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def conv1d(
    x: Float[Array, "B N I"], kernel: Float[Array, "K J O"], stride: int = 1, padding: int = 0, groups: int = 1
) -> Float[Array, "B T O"]:
    """Convolution over time (cross-correlation, as everywhere); `padding` zeros on both sides; J = I / groups."""
    return _conv(x, kernel, stride, padding, groups)


def _conv(x, kernel, stride: int, padding: int, groups: int):
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride,),
        padding=((padding, padding),),
        dimension_numbers=("NWC", "WIO", "NWC"),
        feature_group_count=groups,
        precision=precision_of(x.dtype),
    )


def _forward(x, kernel, stride, padding, groups):
    return _conv(x, kernel, stride, padding, groups), (x, kernel)


def _backward(stride, padding, groups, saved, g):
    x, kernel = saved
    _, input_vjp = jax.vjp(lambda x: _conv(x, kernel, stride, padding, groups), x)

    def native(x, g):
        return jax.vjp(lambda kernel: _conv(x, kernel, stride, padding, groups), kernel)[1](g)[0]

    def by_taps(x, g):
        return _kernel_gradient_by_taps(x, g, kernel.shape[0], stride, padding, groups)

    return input_vjp(g)[0], jax.lax.platform_dependent(x, g, cpu=by_taps, default=native)


conv1d.defvjp(_forward, _backward)


def _kernel_gradient_by_taps(x, g, taps: int, stride: int, padding: int, groups: int):
    """Gradient of `conv1d` with respect to its kernel: for each tap, inputs it met times output gradients."""
    batch, frames, outputs = g.shape
    x = jnp.pad(x, ((0, 0), (padding, padding), (0, 0)))
    g = g.reshape(batch, frames, groups, outputs // groups)

    def tap(k):
        met = jax.lax.slice_in_dim(x, k, k + (frames - 1) * stride + 1, stride, axis=1)
        met = met.reshape(batch, frames, groups, -1)
        product = jnp.einsum("btgi,btgo->igo", met, g, precision=precision_of(x.dtype))
        return product.reshape(-1, outputs)

    return jnp.stack([tap(k) for k in range(taps)])
