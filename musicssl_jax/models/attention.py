"""Scaled dot-product attention, in the formulation that suits the platform."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from musicssl_jax.models.layers import dropout, precision_of
from musicssl_jax.shapes import Array, Bool, Float, Key

QUERIES = 500
"""Whose scores a CPU holds at once; of 128, 256, 500, 750 and 1499 the fastest for 30 s of audio."""


def attend(
    query: Float[Array, "B T H D"],
    key: Float[Array, "B T H D"],
    value: Float[Array, "B T H D"],
    padding: Bool[Array, "B T"] | None,
    rate: float,
    keys: Key[Array, " B"] | None,
    *,
    kernel: str = "xla",
) -> Float[Array, "B T H D"]:
    """softmax(query key / sqrt(D)) value, the softmax in float32; padded frames, which end a clip, are not attended to.

    kernel: "xla", or "cudnn" or "splash", which are fused and have no dropout.

    rate, keys: of the dropout of its weights, one key a clip; None: evaluation. Then a CPU takes one head after the
    other and some queries at a time, so that scores stay in its cache: .45 of the time for 30 s and 12 heads on two
    cores.
    """
    if kernel == "cudnn":
        return _cudnn(query, key, value, padding)
    if kernel == "splash":
        return _splash(query, key, value, padding)
    if keys is not None:
        return _all_heads(query, key, value, padding, rate, keys)

    def by_heads(query, key, value):
        return _by_heads(query, key, value, padding)

    def all_heads(query, key, value):
        return _all_heads(query, key, value, padding, 0.0, None)

    return jax.lax.platform_dependent(query, key, value, cpu=by_heads, default=all_heads)


def choose_kernel(kernel: str, platform: str, dtype: str, rate: float, head_width: int) -> str:
    """What "auto" stands for on a platform; other names stay.

    A fused kernel where it holds: bfloat16, no dropout. cuDNN takes heads of up to 128 in eighths.
    """
    if kernel != "auto" or rate or dtype != "bfloat16":
        return "xla" if kernel == "auto" else kernel
    if platform == "gpu" and head_width <= 128 and head_width % 8 == 0 and _cudnn_is_here(head_width):
        return "cudnn"
    return "splash" if platform == "tpu" else "xla"


def _cudnn_is_here(head_width: int) -> bool:
    """JAX looks for the library when it traces."""
    frames = jax.ShapeDtypeStruct((1, 8, 1, head_width), jnp.bfloat16)
    try:
        jax.eval_shape(functools.partial(_cudnn, padding=None), frames, frames, frames)
    except (RuntimeError, ValueError, NotImplementedError):
        return False
    return True


def _cudnn(query, key, value, padding):
    lengths = None if padding is None else jnp.sum(~padding, axis=1, dtype=jnp.int32)
    return jax.nn.dot_product_attention(query, key, value, key_value_seq_lengths=lengths, implementation="cudnn")


LANES = 128  # of a TPU's vector unit: lengths are filled up to its multiples


def _splash(query, key, value, padding, *, interpret: bool = False):
    """The Pallas kernel of TPUs, one clip at a time; frames that fill up are a segment of their own, as padding is."""
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel, splash_attention_mask

    batch, frames, heads, width = query.shape
    filled = -(-frames // LANES) * LANES
    block = max(size for size in (512, 384, 256, LANES) if filled % size == 0)
    sizes = splash_attention_kernel.BlockSizes(
        block_q=block,
        block_kv=block,
        block_kv_compute=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_kv_dkv_compute=block,
        block_q_dq=block,
        block_kv_dq=block,
    )
    mask = splash_attention_mask.MultiHeadMask([splash_attention_mask.FullMask((filled, filled))] * heads)
    run = splash_attention_kernel.make_splash_mha(
        mask, head_shards=1, q_seq_shards=1, block_sizes=sizes, interpret=interpret
    )
    segment = jnp.zeros((batch, frames), jnp.int32) if padding is None else padding.astype(jnp.int32)
    segment = jnp.pad(segment, ((0, 0), (0, filled - frames)), constant_values=1)

    def clips(query, key, value, segment):
        segments = splash_attention_kernel.SegmentIds(segment, segment)
        return jax.vmap(run)(query, key, value, segments)

    attention: Callable = clips
    # The compiler cannot split such a kernel: each device of `fsdp` takes its own rows.
    mesh = jax.sharding.get_abstract_mesh()
    if "fsdp" in mesh.axis_names:
        attention = jax.shard_map(clips, in_specs=P("fsdp"), out_specs=P("fsdp"), axis_names={"fsdp"}, check_vma=False)
    heads_first = [
        jnp.pad(jnp.swapaxes(part, 1, 2), ((0, 0), (0, 0), (0, filled - frames), (0, 0)))
        for part in (query * width**-0.5, key, value)
    ]
    return jnp.swapaxes(attention(*heads_first, segment), 1, 2)[:, :frames]


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _all_heads(query, key, value, padding, rate, keys):
    """For the gradient neither scores nor weights are kept, T x T for each head and the most that an update would hold.

    They are made anew from each query's log of its sum of exponentials, without a pass over scores for sums: those of
    the gradient are products of results with their own gradients (Dao et al., arXiv 2205.14135, appendix B.2).
    """
    return _forward(query, key, value, padding, rate, keys)[0]


def _forward(query, key, value, padding, rate, keys):
    scores = _scores(query, key, padding)
    total = jax.nn.logsumexp(scores, axis=-1, keepdims=True)
    weights = dropout(jnp.exp(scores - total), rate, keys).astype(query.dtype)
    result = jnp.einsum("bhqk,bkhd->bqhd", weights, value, precision=precision_of(query.dtype))
    return result, (query, key, value, padding, keys, result, total)


def _scores(query, key, padding):
    scores = _float32_product("bqhd,bkhd->bhqk", query * query.shape[-1] ** -0.5, key)
    return scores if padding is None else jnp.where(padding[:, None, None, :], -jnp.inf, scores)


def _float32_product(axes, a, b):
    return jnp.einsum(axes, a, b, precision=precision_of(a.dtype), preferred_element_type=jnp.float32)


def _backward(rate, saved, g):
    query, key, value, padding, keys, result, total = saved
    product = functools.partial(jnp.einsum, precision=precision_of(query.dtype))
    weights = jnp.exp(_scores(query, key, padding) - total)
    used = dropout(weights, rate, keys).astype(query.dtype)
    by_weights = dropout(_float32_product("bqhd,bkhd->bhqk", g, value), rate, keys)
    mean = _float32_product("bqhd,bqhd->bhq", g, result)[..., None]
    by_scores = (weights * (by_weights - mean) * query.shape[-1] ** -0.5).astype(query.dtype)
    by_query = product("bhqk,bkhd->bqhd", by_scores, key)
    by_key = product("bhqk,bqhd->bkhd", by_scores, query)
    return by_query, by_key, product("bhqk,bqhd->bkhd", used, g), None, None


_all_heads.defvjp(_forward, _backward)


def _by_heads(query, key, value, padding):
    def one_head(head):
        query, key, value = (part[:, :, None] for part in head)
        starts = range(0, query.shape[1], QUERIES)
        pieces = [_all_heads(query[:, i : i + QUERIES], key, value, padding, 0.0, None) for i in starts]
        return jnp.concatenate(pieces, axis=1)[:, :, 0]

    heads = tuple(jnp.moveaxis(part, 2, 0) for part in (query, key, value))
    return jnp.moveaxis(jax.lax.map(one_head, heads), 0, 2)
