"""The arithmetic that every part of the encoder shares: precision, norms, dropout, gradient scaling."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec as P

from musicssl_jax.models.draws import kept
from musicssl_jax.shapes import Array, Bool, Float, Key

NORM_EPSILON = 1e-5  # PyTorch's default, which the reference keeps everywhere


def precision_of(dtype: jnp.dtype) -> jax.lax.Precision:
    """Matrix precision for a compute dtype: float32 products are exact float32 on every device.

    JAX's default for float32 is TF32 on GPUs and bfloat16 passes on TPUs.
    """
    return jax.lax.Precision.HIGHEST if dtype == jnp.float32 else jax.lax.Precision.DEFAULT


def uniform_fan_in(fan_in: int) -> nnx.Initializer:
    """PyTorch's default for linear and convolution weights and biases: U(-1/sqrt(fan_in), 1/sqrt(fan_in))."""
    bound = fan_in**-0.5

    def init(key, shape, dtype=jnp.float32, **_):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def gathered(kernel: Float[Array, "..."], dtype: jnp.dtype) -> Float[Array, "..."]:
    """A kernel in the dtype that it is used in, whole on each of the devices that `fsdp` splits it over.

    Left alone, the compiler splits many a product like its kernel and moves activations instead, which are larger.
    """
    kernel = kernel.astype(dtype)
    devices = jax.sharding.get_abstract_mesh().shape.get("fsdp", 1)
    return kernel if devices == 1 else jax.lax.with_sharding_constraint(kernel, P())


class Linear(nnx.Module):
    """Dense layer with float32 parameters that computes in its input's dtype."""

    def __init__(self, inputs: int, outputs: int, *, kernel_init, bias_init=nnx.initializers.zeros, rngs):
        self.kernel = nnx.Param(kernel_init(rngs.params(), (inputs, outputs), jnp.float32))
        self.bias = nnx.Param(bias_init(rngs.params(), (outputs,), jnp.float32))

    def __call__(self, x: Float[Array, "*batch I"]) -> Float[Array, "*batch O"]:
        y = jnp.matmul(x, gathered(self.kernel[...], x.dtype), precision=precision_of(x.dtype))
        return y + self.bias[...].astype(x.dtype)


class LayerNorm(nnx.Module):
    """Layer norm over the last axis; statistics in float32, result in the input's dtype."""

    def __init__(self, width: int):
        self.scale = nnx.Param(jnp.ones(width))
        self.bias = nnx.Param(jnp.zeros(width))

    def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        return normalize(x, self.scale[...], self.bias[...], -1)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def normalize(
    x: Float[Array, "*batch width"], scale: Float[Array, " width"], bias: Float[Array, " width"], axis: int
) -> Float[Array, "*batch width"]:
    """`standardize` along an axis, then scale and bias of each channel; in float32, result in the input's dtype.

    For the gradient x is kept as it is, and mean and deviation: left to JAX it would be float32 arrays as large as x,
    which a scan over blocks writes to memory. Both sums of the gradient are taken in one pass.
    """
    return _normalize(x, scale, bias, axis)[0]


def _normalize(x, scale, bias, axis):
    mean, inverse = _statistics(x, axis)
    y = (x.astype(jnp.float32) - mean) * inverse * scale + bias
    return y.astype(x.dtype), (x, mean, inverse, scale)


def _normalize_backward(axis, saved, g):
    x, mean, inverse, scale = saved
    standard = (x.astype(jnp.float32) - mean) * inverse
    g = g.astype(jnp.float32)
    along, scaled = tuple(range(x.ndim - 1)), g * scale
    shift = scaled.mean(axis, keepdims=True)
    stretch = (scaled * standard).mean(axis, keepdims=True)
    by_x = inverse * (scaled - shift - standard * stretch)
    return by_x.astype(x.dtype), (g * standard).sum(along), g.sum(along)


normalize.defvjp(_normalize, _normalize_backward)


def _statistics(x, axis, where=None):
    """Mean and 1 / sqrt(biased variance + 1e-5), in float32."""
    x = x.astype(jnp.float32)
    mean = x.mean(axis, keepdims=True, where=where)
    variance = jnp.mean(jnp.square(x - mean), axis, keepdims=True, where=where)
    return mean, jax.lax.rsqrt(variance + NORM_EPSILON)


def standardize(
    x: Float[Array, "..."], axis: int | tuple[int, ...], where: Bool[Array, "..."] | None = None
) -> Float[Array, "..."]:
    """(x - mean) / sqrt(biased variance + 1e-5) along `axis`, in float32: every norm of the reference.

    `where`: the elements that mean and variance are of; None: all of them.
    """
    mean, inverse = _statistics(x, axis, where)
    return (x.astype(jnp.float32) - mean) * inverse


PRODUCT = "product"


def product(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Marks what is dear to compute: remat "products" keeps it for the backward pass, and nothing else of a block."""
    return checkpoint_name(x, PRODUCT)


@jax.custom_vjp
def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Exact (erf) GELU, computed in float32 as the reference does.

    Of x alone its gradient is made, for the same reason as `normalize`'s.
    """
    wide = x.astype(jnp.float32)
    return (wide * _normal_below(wide)).astype(x.dtype)


def _gelu_backward(x, g):
    wide = x.astype(jnp.float32)
    density = jnp.exp(-0.5 * jnp.square(wide)) * (2 * math.pi) ** -0.5
    return (((_normal_below(wide) + wide * density) * g.astype(jnp.float32)).astype(x.dtype),)


gelu.defvjp(lambda x: (gelu(x), x), _gelu_backward)


def _normal_below(x):
    """Distribution function of the standard normal distribution."""
    return 0.5 * (1 + jax.lax.erf(x * math.sqrt(0.5)))


def dropout(x: Float[Array, "B ..."], rate: float, keys: Key[Array, " B"] | None) -> Float[Array, "B ..."]:
    """Zeroes elements with probability `rate` and rescales the rest; `keys` None: evaluation.

    One key a clip, so that what a clip loses does not depend on the clips around it.
    """
    if rate == 0.0 or keys is None:
        return x
    here = jax.vmap(lambda key: kept(key, 1 - rate, x.shape[1:]))(keys)
    return jnp.where(here, x / (1 - rate), 0).astype(x.dtype)


def fold_in(keys: Key[Array, " B"] | None, data) -> Key[Array, " B"] | None:
    """`jax.random.fold_in` for a key per clip; None stays None."""
    return None if keys is None else jax.vmap(jax.random.fold_in, (0, None))(keys, data)


def scale_gradient(x: Float[Array, "..."], factor: float) -> Float[Array, "..."]:
    """x, whose gradient is multiplied by `factor` (0 stops it)."""
    if factor == 1.0:
        return x
    return x * factor + jax.lax.stop_gradient(x * (1 - factor)) if factor else jax.lax.stop_gradient(x)


def zero_padding(x: Float[Array, "B T D"], padding: Bool[Array, "B T"] | None) -> Float[Array, "B T D"]:
    """x with padded frames set to zero."""
    return x if padding is None else jnp.where(padding[..., None], 0, x)
