"""One-dimensional convolution whose gradient is fast on every platform.

XLA's CPU backend has a fast convolution for operands in one order of axes, and brings others into it only outside of
loops (micro-batches are one): both gradients of a convolution inside take 3 to 100 times as long. There the input's
gradient is a convolution in the fast order, the kernel's a matrix product per tap; elsewhere both are XLA's own.
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

    def native(x, kernel, g):
        return jax.vjp(lambda x, kernel: _conv(x, kernel, stride, padding, groups), x, kernel)[1](g)

    def explicit(x, kernel, g):
        return (
            _input_gradient(g, kernel, x.shape[1], stride, padding, groups),
            _kernel_gradient_by_taps(x, g, kernel.shape[0], stride, padding, groups),
        )

    return jax.lax.platform_dependent(*saved, g, cpu=explicit, default=native)


conv1d.defvjp(_forward, _backward)


def _input_gradient(g, kernel, samples: int, stride: int, padding: int, groups: int):
    """Gradient of `conv1d` with respect to its input: a convolution of the output gradients, spread by the stride."""
    taps, inputs, outputs = kernel.shape
    turned = kernel[::-1].reshape(taps, inputs, groups, outputs // groups)
    turned = jnp.moveaxis(turned, 3, 1).swapaxes(2, 3).reshape(taps, outputs // groups, groups * inputs)
    spread = (g.shape[1] - 1) * stride + 1
    before = taps - 1 - padding
    return jax.lax.conv_general_dilated(
        g,
        # Without the barrier the compiler takes the turn back.
        jax.lax.optimization_barrier(turned),
        window_strides=(1,),
        padding=((before, samples + taps - 1 - spread - before),),
        lhs_dilation=(stride,),
        dimension_numbers=("NWC", "WIO", "NWC"),
        feature_group_count=groups,
        precision=precision_of(g.dtype),
    )


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
