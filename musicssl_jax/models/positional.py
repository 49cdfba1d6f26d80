"""Convolutional position embeddings: what is added to the frames before the transformer."""

import jax.numpy as jnp
from flax import nnx

from musicssl_jax.models.convolution import conv1d
from musicssl_jax.models.layers import gathered, gelu, normalize, uniform_fan_in, zero_padding
from musicssl_jax.shapes import Array, Bool, Float


class GroupedConv(nnx.Module):
    """Same-length grouped convolution over time, PyTorch's default initialisation."""

    def __init__(self, width: int, kernel: int, groups: int, *, rngs: nnx.Rngs):
        self.groups = groups
        init = uniform_fan_in(width // groups * kernel)
        self.kernel = nnx.Param(init(rngs.params(), (kernel, width // groups, width)))
        self.bias = nnx.Param(init(rngs.params(), (width,)))

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        y = conv1d(x, gathered(self.kernel[...], x.dtype), 1, self.kernel.shape[0] // 2, self.groups)
        # An even kernel makes one frame too many; the reference drops the last.
        return y[:, : x.shape[1]] + self.bias[...].astype(x.dtype)


class StackedPositional(nnx.Module):
    """data2vec's: `depth` grouped convolutions of kernel max(3, kernel // depth), each followed by a layer
    norm without parameters and GELU. 95 // 5 = 19 taps in the base model."""

    def __init__(self, width: int, *, kernel: int, depth: int, groups: int, rngs: nnx.Rngs):
        self.depth = depth
        for i in range(depth):
            taps = max(3, kernel // depth)
            setattr(self, f"layer{i}", GroupedConv(width, taps, groups, rngs=rngs))

    def __call__(self, x: Float[Array, "B T D"], unseen: Bool[Array, "B T"] | None = None) -> Float[Array, "B T D"]:
        """`unseen`: frames that are zeroed before each convolution, as if the clip ended there."""
        for i in range(self.depth):
            y = getattr(self, f"layer{i}")(zero_padding(x, unseen))
            x = gelu(normalize(y, jnp.ones(x.shape[-1]), jnp.zeros(x.shape[-1]), -1))
        return x


class WeightNormConv(nnx.Module):
    """Same-length grouped convolution whose kernel is direction / |direction| * gain, normed for each tap over all
    channels: fairseq's weight norm over dim 2. The two are kept apart, as in the reference's checkpoints.

    Initialisation: direction N(0, sqrt(4 / (kernel * width))), gain its norm, bias 0 (reference).
    """

    def __init__(self, width: int, kernel: int, groups: int, *, rngs: nnx.Rngs):
        self.groups = groups
        init = nnx.initializers.normal((4 / (kernel * width)) ** 0.5)
        self.kernel = nnx.Param(init(rngs.params(), (kernel, width // groups, width), jnp.float32))
        self.gain = nnx.Param(_tap_norm(self.kernel[...]))
        self.bias = nnx.Param(jnp.zeros(width))

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        direction = gathered(self.kernel[...], self.kernel.dtype)
        kernel = direction * (self.gain[...] / _tap_norm(direction))
        y = conv1d(x, kernel.astype(x.dtype), 1, kernel.shape[0] // 2, self.groups)
        # An even kernel makes one frame too many; the reference drops the last.
        return y[:, : x.shape[1]] + self.bias[...].astype(x.dtype)


def _tap_norm(direction: Float[Array, "K I O"]) -> Float[Array, "K 1 1"]:
    return jnp.sqrt(jnp.sum(jnp.square(direction), (1, 2), keepdims=True))


class WeightNormPositional(nnx.Module):
    """HuBERT's (and wav2vec 2.0's): one weight-normed convolution, 128 taps in the base model, and GELU."""

    def __init__(self, width: int, *, kernel: int, groups: int, rngs: nnx.Rngs):
        self.layer0 = WeightNormConv(width, kernel, groups, rngs=rngs)

    def __call__(self, x: Float[Array, "B T D"], unseen: Bool[Array, "B T"] | None = None) -> Float[Array, "B T D"]:
        """`unseen`: frames that are zeroed before the convolution."""
        return gelu(self.layer0(zero_padding(x, unseen)))
