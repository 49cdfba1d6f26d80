"""Convolutional position embeddings: what is added to the frames before the transformer."""

from flax import nnx

from musicssl_jax.models.convolution import conv1d
from musicssl_jax.models.layers import gelu, standardize, uniform_fan_in
from musicssl_jax.shapes import Array, Float


class GroupedConv(nnx.Module):
    """Same-length grouped convolution over time, PyTorch's default initialisation."""

    def __init__(self, width: int, kernel: int, groups: int, *, rngs: nnx.Rngs):
        self.groups = groups
        init = uniform_fan_in(width // groups * kernel)
        self.kernel = nnx.Param(init(rngs.params(), (kernel, width // groups, width)))
        self.bias = nnx.Param(init(rngs.params(), (width,)))

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        x = conv1d(x, self.kernel[...].astype(x.dtype), 1, self.kernel.shape[0] // 2, self.groups)
        return x + self.bias[...].astype(x.dtype)


class StackedPositional(nnx.Module):
    """data2vec's: `depth` grouped convolutions of kernel max(3, kernel // depth), each followed by a layer
    norm without parameters and GELU. 95 // 5 = 19 taps in the base model."""

    def __init__(self, width: int, *, kernel: int, depth: int, groups: int, rngs: nnx.Rngs):
        self.depth = depth
        for i in range(depth):
            taps = max(3, kernel // depth)
            setattr(self, f"layer{i}", GroupedConv(width, taps, groups, rngs=rngs))

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        frames = x.shape[1]
        for i in range(self.depth):
            # An even kernel makes one frame too many; the reference drops the last.
            y = getattr(self, f"layer{i}")(x)[:, :frames]
            x = gelu(standardize(y, axis=-1).astype(x.dtype))
        return x
