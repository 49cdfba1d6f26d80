"""Span masks with fairseq's statistics (`compute_mask_indices`), jitted, with static shapes.

A row's mask follows from its own key. The trim to an equal count makes it depend on the rows of its group as
well, whose masks are drawn again from their keys: no row ever needs another row's data.
"""

import dataclasses

import jax
import jax.numpy as jnp

from musicssl_jax.shapes import Array, Bool, Float, Int, Key


@dataclasses.dataclass(frozen=True)
class MaskConfig:
    """The fields of `config.mask`."""

    prob: float
    length: int
    min_masks: int
    trim_group: int
    dropout: float
    channel_prob: float
    channel_length: int


def span_limit(size: int, prob: float, length: int, min_masks: int) -> int:
    """The most spans a row of `size` positions can get: int(p * size / length + u) with u < 1."""
    return max(min_masks, int(prob * size / length + 1))


def masked_limit(frames: int, config: MaskConfig) -> int:
    """The most frames of a row that a mask can cover; the static size of what is gathered for the head."""
    return min(frames, span_limit(frames, config.prob, config.length, config.min_masks) * config.length)


def span_mask(key: Key[Array, ""], size: int, *, prob: float, length: int, min_masks: int) -> Bool[Array, " T"]:
    """One row before any trim: True where masked.

    int(prob * size / length + u) spans, u ~ U(0, 1) per row, at least `min_masks`; distinct starts from
    0 .. size - length - 1, so the last frame is never masked; overlaps allowed. When there are no more
    starts than spans, there are as many starts as spans plus one (all as fairseq).
    """
    count_key, start_key = jax.random.split(key)
    limit = span_limit(size, prob, length, min_masks)
    spans = (prob * size / length + jax.random.uniform(count_key)).astype(jnp.int32)
    spans = jnp.clip(spans, min_masks, limit)
    candidates = jnp.where(size - length <= spans, spans + 1, size - length)
    positions = max(size - length, limit + 1)
    scores = jax.random.uniform(start_key, (positions,))
    scores = jnp.where(jnp.arange(positions) < candidates, scores, -1.0)
    _, starts = jax.lax.top_k(scores, min(limit, positions))
    starts = jnp.where(jnp.arange(starts.shape[0]) < spans, starts, size)
    covered = jnp.arange(size) - starts[:, None]
    return jnp.any((covered >= 0) & (covered < length), axis=0)


def keep_random(key: Key[Array, ""], mask: Bool[Array, " T"], count: Int[Array, ""]) -> Bool[Array, " T"]:
    """A uniformly random subset of `count` of the masked frames (single frames, not spans: reference)."""
    scores = jnp.where(mask, jax.random.uniform(key, mask.shape), 2.0)
    rank = jnp.argsort(jnp.argsort(scores))
    return mask & (rank < count)


def row_masks(
    key: Key[Array, ""], rows: Int[Array, " B"], frames: int, clips: int, config: MaskConfig
) -> Bool[Array, "B T"]:
    """Masks of the given rows of a global batch of `clips`.

    With `trim_group` g, rows g*k .. g*k+g-1 keep as many masked frames as the barest of them has, which is
    what the reference does to the clips that share a device (7 of 30 s, 47 of 5 s); then `dropout` of the
    masked frames are unmasked.
    """

    def keys(row):
        """Of its spans, of its trim, of its dropout."""
        return jax.random.split(jax.random.fold_in(key, row), 3)

    def drawn(row):
        return span_mask(
            keys(row)[0],
            frames,
            prob=config.prob,
            length=config.length,
            min_masks=config.min_masks,
        )

    def one(row):
        mask = drawn(row)
        _, trim_key, dropout_key = keys(row)
        if config.trim_group:
            group = row // config.trim_group * config.trim_group + jnp.arange(config.trim_group)
            counts = jax.vmap(lambda member: drawn(member).sum())(group)
            fewest = jnp.min(counts, where=group < clips, initial=frames)
            mask = keep_random(trim_key, mask, fewest)
        if config.dropout:
            count = mask.sum()
            kept = count - jnp.round(config.dropout * count).astype(count.dtype)
            mask = keep_random(dropout_key, mask, kept)
        return mask

    return jax.vmap(one)(rows)


def masked_positions(mask: Bool[Array, "B T"], limit: int) -> tuple[Int[Array, "B M"], Float[Array, "B M"]]:
    """Frame numbers of each row's masked frames in order, filled up to `limit`, and 1 where they are real."""
    order = jnp.argsort(~mask, axis=1, stable=True)[:, :limit]
    valid = jnp.arange(order.shape[1]) < mask.sum(1, keepdims=True)
    return order, valid.astype(jnp.float32)


def batch_masks(
    batch: dict[str, Array], key: Key[Array, ""], frames: int, clips: int, config: MaskConfig
) -> tuple[Bool[Array, "B T"], int]:
    """The masks of some rows of a batch, its own "mask" if it has one, and the most frames that any of them masks."""
    if "mask" in batch:
        return batch["mask"], frames
    return row_masks(key, batch["row"], frames, clips, config), masked_limit(frames, config)


def channel_masks(
    key: Key[Array, ""], rows: Int[Array, " B"], width: int, config: MaskConfig
) -> Bool[Array, "B D"] | None:
    """Spans of channels to zero, or None when `channel_prob` is 0."""
    if not config.channel_prob:
        return None

    def one(row):
        return span_mask(
            jax.random.fold_in(key, row),
            width,
            prob=config.channel_prob,
            length=config.channel_length,
            min_masks=config.min_masks,
        )

    return jax.vmap(one)(rows)
