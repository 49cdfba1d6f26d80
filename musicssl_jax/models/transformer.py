"""Positions, transformer blocks and norm: the part of the encoder that data2vec's teacher averages."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from musicssl_jax.models.attention import attend
from musicssl_jax.models.layers import PRODUCT, LayerNorm, Linear, dropout, fold_in, gelu, product, zero_padding
from musicssl_jax.shapes import Array, Bool, Float, Int, Key

Tap = Callable[[Any, Int[Array, ""], Float[Array, "B T D"], Float[Array, "B T D"]], Any]
"""(carried, block index, FFN output, block output) -> carried: what a caller collects along the blocks."""


def block_linear(inputs: int, outputs: int, rngs: nnx.Rngs) -> Linear:
    """Linear with the reference's (BERT) initialisation: N(0, .02), zero bias."""
    return Linear(inputs, outputs, kernel_init=nnx.initializers.normal(0.02), rngs=rngs)


class Attention(nnx.Module):
    """Multi-head self-attention; softmax in float32; padded frames are not attended to."""

    def __init__(self, width: int, heads: int, dropout_rate: float, *, kernel: str = "xla", rngs: nnx.Rngs):
        self.heads = heads
        self.kernel = kernel
        self.dropout_rate = dropout_rate
        self.query = block_linear(width, width, rngs)
        self.key = block_linear(width, width, rngs)
        self.value = block_linear(width, width, rngs)
        self.out = block_linear(width, width, rngs)

    @jax.named_scope("attention")
    def __call__(
        self,
        x: Float[Array, "B T D"],
        padding: Bool[Array, "B T"] | None,
        keys: Key[Array, " B"] | None,
    ) -> Float[Array, "B T D"]:
        split = (*x.shape[:2], self.heads, -1)
        query, key, value = (product(f(x)).reshape(split) for f in (self.query, self.key, self.value))
        mixed = attend(query, key, value, padding, self.dropout_rate, keys, kernel=self.kernel)
        return product(self.out(mixed.reshape(x.shape)))


class Block(nnx.Module):
    """Attention and feed-forward with residuals, norms after each (base) or before each (`norm_first`)."""

    def __init__(self, config, *, rngs: nnx.Rngs):
        self.norm_first = config.norm_first
        self.dropout_rate = config.dropout
        self.activation_dropout = config.activation_dropout
        self.attention = Attention(
            config.width, config.heads, config.attention_dropout, kernel=config.attention, rngs=rngs
        )
        self.attention_norm = LayerNorm(config.width)
        self.feed_in = block_linear(config.width, config.ffn, rngs)
        self.feed_out = block_linear(config.ffn, config.width, rngs)
        self.feed_norm = LayerNorm(config.width)

    @jax.named_scope("feed_forward")
    def feed_forward(self, x: Float[Array, "B T D"], keys: Key[Array, " B"] | None):
        def behind(hidden):
            return self.feed_out(dropout(gelu(hidden), self.activation_dropout, fold_in(keys, 0)))

        # GELU's result, as wide as what goes into it, is made anew for the backward pass.
        return product(jax.checkpoint(behind, prevent_cse=False)(product(self.feed_in(x))))

    def __call__(
        self,
        x: Float[Array, "B T D"],
        padding: Bool[Array, "B T"] | None,
        keys: Key[Array, " B"] | None,
    ) -> tuple[Float[Array, "B T D"], Float[Array, "B T D"]]:
        """Returns (block output, FFN output); the latter, before dropout and residual, is data2vec's target."""

        def drop(y, index):
            return dropout(y, self.dropout_rate, fold_in(keys, index))

        if self.norm_first:
            x = x + drop(self.attention(self.attention_norm(x), padding, fold_in(keys, 1)), 2)
            ffn = self.feed_forward(self.feed_norm(x), fold_in(keys, 3))
            return x + drop(ffn, 4), ffn
        x = self.attention_norm(x + drop(self.attention(x, padding, fold_in(keys, 1)), 2))
        ffn = self.feed_forward(x, fold_in(keys, 3))
        return self.feed_norm(x + drop(ffn, 4)), ffn


def rematerialised(run: Callable, policy: str) -> Callable:
    """A block whose backward pass computes anew what `config.compute.remat` says: nothing, all but products, or all."""
    if policy == "none":
        return run
    # Inside a scan the compiler cannot undo it, and the barriers that keep it from that elsewhere cost.
    return jax.checkpoint(run, policy=_products if policy == "products" else None, prevent_cse=False)


def _products(primitive, *inputs, **parameters) -> bool:
    """What `product` names, and what cuDNN's attention gives, in whose gradient nothing can be named from outside."""
    named = jax.checkpoint_policies.save_only_these_names(PRODUCT)
    return primitive.name.startswith("dot_product_attention_fwd") or named(primitive, *inputs, **parameters)


class Transformer(nnx.Module):
    """Adds positions, normalises (after the blocks if `norm_first`), and runs the blocks in one scan.

    The blocks' parameters are stacked on a leading layer axis.
    """

    def __init__(self, config, positional: nnx.Module, *, rngs: nnx.Rngs):
        self.config = config
        self.positional = positional
        self.norm = LayerNorm(config.width)
        self.blocks = nnx.vmap(lambda rngs: Block(config, rngs=rngs))(rngs.split(config.layers))

    def embed(
        self,
        x: Float[Array, "B T D"],
        *,
        padding: Bool[Array, "B T"] | None = None,
        sealed: bool = False,
        keys: Key[Array, " B"] | None = None,
    ) -> Float[Array, "B T D"]:
        """The blocks' input: frames plus positions, normalised unless `norm_first`.

        In the reference, norms between data2vec's positional convolutions make padded frames non-zero, and these reach
        the last frames of the clip. `sealed`: they do not, and a clip's frames are what they are without padding.
        """
        x = zero_padding(x, padding)
        with jax.named_scope("positional"):
            x = x + self.positional(x, padding if sealed else None)
        if not self.config.norm_first:
            x = self.norm(x)
        return dropout(x, self.config.dropout, fold_in(keys, self.config.layers))

    def encode(
        self,
        x: Float[Array, "B T D"],
        *,
        padding: Bool[Array, "B T"] | None = None,
        keys: Key[Array, " B"] | None = None,
        layer_key: Key[Array, ""] | None = None,
        tap: Tap | None = None,
        tapped: Any = (),
    ) -> tuple[Float[Array, "B T D"], Any]:
        """Runs the blocks on `embed`'s result. Returns (output, what `tap` collected from `tapped` on).

        `keys` (one a clip) turn dropout on; `layer_key` turns layer drop on: a block is skipped when its
        draw is at most `layer_drop`, one draw a block for the whole batch, without rescaling (reference).
        A skipped block is not tapped; the teacher and evaluation skip none.
        """
        rate, draws = 0.0, jnp.ones(self.config.layers)
        if layer_key is not None and self.config.layer_drop:
            rate, draws = self.config.layer_drop, jax.random.uniform(layer_key, draws.shape)
        graph, stacked = nnx.split(self.blocks)
        # Kernels in the dtype that they are used in before the scan, which would else write a copy of each for the
        # backward pass, and collect their gradients in float32.
        stacked = jax.tree.map(lambda leaf: leaf.astype(x.dtype) if leaf.ndim > 2 else leaf, stacked)

        def body(carry, layer):
            index, parameters, draw = layer

            def run(x, tapped):
                x, ffn = nnx.merge(graph, parameters)(x, padding, fold_in(keys, index))
                return x, tapped if tap is None else tap(tapped, index, ffn, x)

            run_again = rematerialised(run, self.config.remat)
            if not rate:
                return run_again(*carry), None
            return jax.lax.cond(draw > rate, run_again, lambda *unchanged: unchanged, *carry), None

        layers = (jnp.arange(self.config.layers), stacked, draws)
        (x, tapped), _ = jax.lax.scan(body, (x, tapped), layers)
        return self.norm(x) if self.config.norm_first else x, tapped
