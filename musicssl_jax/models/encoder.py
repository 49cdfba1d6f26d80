"""The encoder: conv stack, projection and transformer joined, and the features of evaluation."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from musicssl_jax.models.conv_encoder import ConvEncoder, ConvLayers, frame_count
from musicssl_jax.models.layers import LayerNorm, Linear, dropout, fold_in, scale_gradient, uniform_fan_in
from musicssl_jax.models.positional import StackedPositional, WeightNormPositional
from musicssl_jax.models.transformer import Transformer
from musicssl_jax.shapes import Array, Bool, Float, Int, Key

NORMALIZE_EPSILON = 1e-5  # F.layer_norm's, with which fairseq normalises a whole file


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """Sizes and rates of an encoder; the fields of `config.model`.

    dtype: what the encoder computes in. attention, remat: `config.compute`'s.
    """

    conv_layers: ConvLayers
    conv_norm: str
    conv_bias: bool
    width: int
    ffn: int
    heads: int
    layers: int
    norm_first: bool
    dropout: float
    attention_dropout: float
    activation_dropout: float
    input_dropout: float
    layer_drop: float
    feature_grad_mult: float
    positional: str
    positional_kernel: int
    positional_depth: int
    positional_groups: int
    dtype: str = "float32"
    attention: str = "xla"
    remat: str = "none"


def linear_from(inputs: int, outputs: int, rngs: nnx.Rngs) -> Linear:
    """Linear with PyTorch's default initialisation (projections outside the reference's BERT init)."""
    init = uniform_fan_in(inputs)
    return Linear(inputs, outputs, kernel_init=init, bias_init=init, rngs=rngs)


def make_positional(config: EncoderConfig, rngs: nnx.Rngs) -> nnx.Module:
    """The positional embedding that `config.positional` names. Raises ValueError on another name."""
    if config.positional == "stacked":
        return StackedPositional(
            config.width,
            kernel=config.positional_kernel,
            depth=config.positional_depth,
            groups=config.positional_groups,
            rngs=rngs,
        )
    if config.positional == "weight_norm":
        return WeightNormPositional(
            config.width, kernel=config.positional_kernel, groups=config.positional_groups, rngs=rngs
        )
    raise ValueError(f"model.positional is {config.positional!r}; known: 'stacked', 'weight_norm'")


class Encoder(nnx.Module):
    """Waveform to contextual frames, 50 a second at 16 kHz with the base conv stack."""

    def __init__(self, config: EncoderConfig, *, rngs: nnx.Rngs):
        channels = config.conv_layers[-1][0]
        self.config = config
        self.conv_encoder = ConvEncoder(
            config.conv_layers, norm=config.conv_norm, bias=config.conv_bias, remat=config.remat == "all", rngs=rngs
        )
        self.feature_norm = LayerNorm(channels)
        self.projection = linear_from(channels, config.width, rngs)
        self.mask_embedding = nnx.Param(jax.random.uniform(rngs.params(), (config.width,)))
        self.transformer = Transformer(config, make_positional(config, rngs), rngs=rngs)

    def features(self, waveform: Float[Array, "B N"], lengths: Int[Array, " B"] | None = None) -> Float[Array, "B T C"]:
        """Output of the conv stack, its gradient scaled by `feature_grad_mult`."""
        features = self.conv_encoder(waveform.astype(self.config.dtype), lengths)
        return scale_gradient(features, self.config.feature_grad_mult)

    def project(self, features: Float[Array, "B T C"]) -> Float[Array, "B T D"]:
        """Layer norm and projection to the transformer's width."""
        return self.projection(self.feature_norm(features))

    def mask(
        self,
        frames: Float[Array, "B T D"],
        mask: Bool[Array, "B T"],
        channel_mask: Bool[Array, "B D"] | None,
        keys: Key[Array, " B"] | None,
    ) -> Float[Array, "B T D"]:
        """The student's input: dropout, then the mask embedding at masked frames, zeros at masked channels."""
        frames = dropout(frames, self.config.input_dropout, fold_in(keys, self.config.layers + 1))
        embedding = self.mask_embedding[...].astype(frames.dtype)
        frames = jnp.where(mask[..., None], embedding, frames)
        return frames if channel_mask is None else jnp.where(channel_mask[:, None, :], 0, frames)


def frame_padding(lengths: Int[Array, " B"], frames: int, conv_layers: ConvLayers) -> Bool[Array, "B T"]:
    """True at frames beyond those that `lengths` samples make (data2vec's and transformers' rule)."""
    return jnp.arange(frames) >= frame_count(lengths, conv_layers)[:, None]


def normalize(audio: Array, mean: Float[Array, " B"], std: Float[Array, " B"]) -> Float[Array, "B N"]:
    """PCM16 or float audio to zero mean and unit variance by the whole track's statistics.

    (x - mean) / sqrt(std**2 + 1e-5) with x in [-1, 1], as fairseq does to a whole file before it crops.
    """
    scale = jax.lax.rsqrt(jnp.square(std) + NORMALIZE_EPSILON)
    return (to_float(audio) - mean[:, None]) * scale[:, None]


def encoder_input(batch: dict[str, Array], *, by_track: bool) -> Float[Array, "B N"]:
    """The audio of a batch as floats, normalised `by_track` statistics ("mean", "std") or as it is."""
    return normalize(batch["audio"], batch["mean"], batch["std"]) if by_track else to_float(batch["audio"])


def to_float(audio: Array) -> Float[Array, "B N"]:
    """PCM16 to [-1, 1); floats as they are."""
    scale = 1 / 32768 if jnp.issubdtype(audio.dtype, jnp.integer) else 1.0
    return audio.astype(jnp.float32) * scale


def build_encoder(config: EncoderConfig, key: Key[Array, ""]) -> Encoder:
    """An encoder with the reference's initialisation."""
    return Encoder(config, rngs=nnx.Rngs(key))


def encoder_with(config: EncoderConfig, params: dict) -> Encoder:
    """The encoder that holds `params`."""
    abstract = nnx.eval_shape(lambda: build_encoder(config, jax.random.key(0)))
    return nnx.merge(nnx.graphdef(abstract), params)


def first_blocks(params: dict, count: int) -> dict:
    """The encoder's parameters without the blocks behind the first `count`."""
    transformer = params["transformer"]
    blocks = jax.tree.map(lambda stacked: stacked[:count], transformer["blocks"])
    return {**params, "transformer": {**transformer, "blocks": blocks}}


def hidden_states(
    encoder: Encoder,
    waveform: Float[Array, "B N"],
    lengths: Int[Array, " B"] | None = None,
    *,
    sealed: bool = False,
) -> dict[str, Any]:
    """Everything evaluation wants, without dropout: a dict of

    conv (B, T, C): conv stack output; hidden (L+1, B, T, D): the transformer's input after positions and
    norm, then every block's output; ffn (L, B, T, D): FFN outputs; last (B, T, D); padding (B, T) or None.
    `lengths` (B,): samples of each row that are audio; frames beyond are hidden from attention, and, if `sealed`, from
    the positional convolutions, where the reference lets them through.
    """
    conv = encoder.features(waveform, lengths)
    frames = conv.shape[1]
    padding = None if lengths is None else frame_padding(lengths, frames, encoder.config.conv_layers)
    projected = encoder.project(conv)
    layers = encoder.config.layers
    empty = jnp.zeros((layers, *projected.shape), projected.dtype)

    def collect(carried, index, ffn, output):
        ffns, outputs = carried
        return ffns.at[index].set(ffn), outputs.at[index].set(output)

    first = encoder.transformer.embed(projected, padding=padding, sealed=sealed)
    last, (ffns, outputs) = encoder.transformer.encode(first, padding=padding, tap=collect, tapped=(empty, empty))
    return {
        "conv": conv,
        "hidden": jnp.concatenate([first[None], outputs]),
        "ffn": ffns,
        "last": last,
        "padding": padding,
    }
