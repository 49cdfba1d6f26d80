"""Scaled dot-product attention, in the formulation that suits the platform."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from musicssl_jax.models.layers import PRODUCT, dropout, precision_of, product
from musicssl_jax.shapes import Array, Bool, Float, Key


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

    rate, keys: of the dropout of its weights, one key a clip; None: evaluation.
    """
    if kernel == "cudnn":
        return _cudnn(query, key, value, padding)
    if kernel == "splash":
        return _splash(query, key, value, padding)
    return _plain(query, key, value, padding, rate, keys)


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
    """JAX looks for the library when it traces, and refuses some shapes only where a gradient is taken."""
    frames = jax.ShapeDtypeStruct((1, 7, 1, head_width), jnp.bfloat16)

    def total(query, key, value):
        return jnp.sum(_cudnn(query, key, value, None), dtype=jnp.float32)

    try:
        jax.eval_shape(jax.grad(total), frames, frames, frames)
    except (RuntimeError, ValueError, NotImplementedError):
        return False
    return True


def _cudnn(query, key, value, padding):
    """cuDNN's kernel. JAX refuses its gradient for an odd number of frames: one more then, that is not attended to."""
    frames = query.shape[1]
    odd = frames % 2
    lengths = None if padding is None else jnp.sum(~padding, axis=1, dtype=jnp.int32)
    if odd and lengths is None:
        lengths = jnp.full(query.shape[0], frames, jnp.int32)
    parts = [jnp.pad(part, ((0, 0), (0, odd), (0, 0), (0, 0))) for part in (query, key, value)]

    def clips(query, key, value, lengths=None):
        return jax.nn.dot_product_attention(query, key, value, key_value_seq_lengths=lengths, implementation="cudnn")

    return _on_own_rows(clips)(*parts, *([] if lengths is None else [lengths]))[:, :frames]


def _on_own_rows(attention: Callable) -> Callable:
    """Attention by a kernel, which the compiler cannot split: each device of `fsdp` takes its own rows."""
    if "fsdp" not in jax.sharding.get_abstract_mesh().axis_names:
        return attention
    return jax.shard_map(attention, in_specs=P("fsdp"), out_specs=P("fsdp"), axis_names={"fsdp"}, check_vma=False)


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
        mask,
        head_shards=1,
        q_seq_shards=1,
        block_sizes=sizes,
        residual_checkpoint_name=PRODUCT,
        interpret=interpret,
    )
    segment = jnp.zeros((batch, frames), jnp.int32) if padding is None else padding.astype(jnp.int32)
    segment = jnp.pad(segment, ((0, 0), (0, filled - frames)), constant_values=1)

    def clips(query, key, value, segment):
        segments = splash_attention_kernel.SegmentIds(segment, segment)
        return jax.vmap(run)(query, key, value, segments)

    heads_first = [
        jnp.pad(jnp.swapaxes(part, 1, 2), ((0, 0), (0, 0), (0, filled - frames), (0, 0)))
        for part in (query * width**-0.5, key, value)
    ]
    return jnp.swapaxes(_on_own_rows(clips)(*heads_first, segment), 1, 2)[:, :frames]


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _plain(query, key, value, padding, rate, keys):
    """For the gradient neither scores nor weights are kept, T x T for each head and the most that an update would hold.

    They are made anew; the sums over keys that a softmax's gradient takes are products of results with their own
    gradients (Dao et al., arXiv 2205.14135, appendix B.2).
    """
    return _forward(query, key, value, padding, rate, keys)[0]


def _forward(query, key, value, padding, rate, keys):
    scores = _scores(query, key, padding)
    weights = dropout(jax.nn.softmax(scores), rate, keys).astype(query.dtype)
    # Named in here: the gradient needs it, and a name that is given to the caller's copy would not keep this one.
    result = product(_frames_first(_product(weights, _heads_first(value))))
    return result, (query, key, value, padding, keys, result)


def _backward(rate, saved, g):
    query, key, value, padding, keys, result = saved
    scale = query.shape[-1] ** -0.5
    weights = jax.nn.softmax(_scores(query, key, padding))
    used = dropout(weights, rate, keys)
    by_used = _product(_heads_first(g), _heads_first(value).mT, jnp.float32)
    mean = _heads_first(jnp.sum(g.astype(jnp.float32) * result, axis=-1, keepdims=True))
    by_scores = ((used * by_used - weights * mean) * scale).astype(query.dtype)
    # What is as large as scores stands in each product as it lies: a CPU would write it anew to transpose it.
    by_query = _product(by_scores, _heads_first(key))
    by_key = _product(_heads_first(query).mT, by_scores).mT
    by_value = _product(_heads_first(g).mT, used.astype(query.dtype)).mT
    return *map(_frames_first, (by_query, by_key, by_value)), None, None


def _scores(query, key, padding):
    query = query * query.shape[-1] ** -0.5
    scores = _product(_heads_first(query), _heads_first(key).mT, jnp.float32)
    return scores if padding is None else jnp.where(padding[:, None, None, :], -jnp.inf, scores)


def _heads_first(x):
    return jnp.swapaxes(x, 1, 2)


_frames_first = _heads_first
"""Its own inverse."""


def _product(a, b, dtype=None):
    return jnp.matmul(a, b, precision=precision_of(a.dtype), preferred_element_type=dtype)


_plain.defvjp(_forward, _backward)
