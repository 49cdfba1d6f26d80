"""The convolutional front end: waveform to frames (wav2vec 2.0's, shared by data2vec and HuBERT)."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from musicssl_jax.models.convolution import conv1d
from musicssl_jax.models.layers import LayerNorm, gathered, gelu, normalize, standardize
from musicssl_jax.shapes import Array, Bool, Float, Int

ConvLayers = tuple[tuple[int, int, int], ...]
"""(channels, kernel, stride) of each layer."""


def frame_count(samples, conv_layers: ConvLayers):
    """Frames that the conv stack makes of `samples`: floor((n - kernel) / stride) + 1, layer by layer.

    Works on ints and integer arrays. 400 samples give one frame of the base stack, 80000 give 249.
    """
    for _, kernel, stride in conv_layers:
        samples = (samples - kernel) // stride + 1
    return samples


def hop_and_receptive_field(conv_layers: ConvLayers) -> tuple[int, int]:
    """(hop, receptive field) of a frame in samples: (320, 400) for the base stack."""
    hop, field = 1, 1
    for _, kernel, stride in conv_layers:
        field += (kernel - 1) * hop
        hop *= stride
    return hop, field


class ChannelNorm(nnx.Module):
    """Group norm with one group a channel: normalises each channel over the clip's time axis."""

    def __init__(self, channels: int):
        self.scale = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))

    def __call__(self, x: Float[Array, "B T C"], real: Bool[Array, "B T"] | None = None) -> Float[Array, "B T C"]:
        """`real`: the frames that the statistics are of, which padding does not change then; None: all of them."""
        if real is None:
            return normalize(x, self.scale[...], self.bias[...], 1)
        return (standardize(x, axis=1, where=real[..., None]) * self.scale[...] + self.bias[...]).astype(x.dtype)


class ConvLayer(nnx.Module):
    """Convolution without padding, norm, exact GELU. Kaiming-normal weights."""

    def __init__(self, inputs: int, channels: int, kernel: int, *, norm: nnx.Module | None, bias: bool, rngs):
        init = jax.nn.initializers.variance_scaling(2.0, "fan_in", "normal")
        self.kernel = nnx.Param(init(rngs.params(), (kernel, inputs, channels), jnp.float32))
        self.bias = nnx.Param(jnp.zeros(channels)) if bias else None
        self.norm = norm

    def __call__(
        self, x: Float[Array, "B N I"], stride: int, real: Bool[Array, "B T"] | None = None
    ) -> Float[Array, "B T C"]:
        x = conv1d(x, gathered(self.kernel[...], x.dtype), stride)
        if self.bias is not None:
            x = x + self.bias[...].astype(x.dtype)
        if isinstance(self.norm, ChannelNorm):
            return gelu(self.norm(x, real))
        return gelu(x if self.norm is None else self.norm(x))


class ConvEncoder(nnx.Module):
    """The stack. `norm` "layer": layer norm over channels in every layer (data2vec); "group": channel norm
    over time after the first layer only (HuBERT base). remat: the backward pass computes each layer's inside anew."""

    def __init__(self, conv_layers: ConvLayers, *, norm: str, bias: bool, remat: bool = False, rngs: nnx.Rngs):
        self.conv_layers = conv_layers
        self.remat = remat
        inputs = 1
        for i, (channels, kernel, _) in enumerate(conv_layers):
            layer_norm = LayerNorm(channels) if norm == "layer" else ChannelNorm(channels) if i == 0 else None
            layer = ConvLayer(inputs, channels, kernel, norm=layer_norm, bias=bias, rngs=rngs)
            setattr(self, f"layer{i}", layer)
            inputs = channels

    @jax.named_scope("conv_encoder")
    def __call__(self, waveform: Float[Array, "B N"], lengths: Int[Array, " B"] | None = None) -> Float[Array, "B T C"]:
        """`lengths`: samples of each row that are audio, if not all are."""
        x = waveform[..., None]
        real = None
        if lengths is not None:
            first = self.conv_layers[:1]
            real = jnp.arange(frame_count(waveform.shape[1], first)) < frame_count(lengths, first)[:, None]
        for i, (_, _, stride) in enumerate(self.conv_layers):
            run = partial(getattr(self, f"layer{i}"), stride=stride, real=real if i == 0 else None)
            x = jax.checkpoint(run)(x) if self.remat else run(x)
        return x
