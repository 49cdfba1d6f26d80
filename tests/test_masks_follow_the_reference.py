"""Masks have the statistics of fairseq's `compute_mask_indices`, and no row's mask needs another row's data."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musicssl_jax.models.masking import MaskConfig, channel_masks, masked_limit, row_masks

GROUPS = 80


def config(prob=0.65, length=10, min_masks=1, trim_group=0, dropout=0.0, channel_prob=0.0, channel_length=10):
    return MaskConfig(prob, length, min_masks, trim_group, dropout, channel_prob, channel_length)


@functools.partial(jax.jit, static_argnames=("frames", "clips", "config"))
def _masks(key, rows, frames, clips, config):
    return row_masks(key, rows, frames, clips, config)


def masks(config, frames, rows, *, clips=10_000, seed=0):
    return np.asarray(_masks(jax.random.key(seed), jnp.asarray(rows, jnp.int32), frames, clips, config))


def runs(mask) -> list[tuple[int, int]]:
    """(first, length) of each run of masked frames."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(int), [0]])))
    return [(int(first), int(last - first)) for first, last in edges.reshape(-1, 2)]


# prob, length, frames, clips that a device of the reference holds, masked share before and after the trim
SHARES = [
    (0.65, 10, 999, 11, 0.490, 0.458),
    (0.65, 10, 1499, 7, 0.490, 0.467),
    (0.65, 10, 249, 47, 0.493, 0.397),
    (0.50, 10, 1499, 7, 0.402, 0.382),
    (0.80, 10, 1499, 7, 0.566, 0.542),
    (0.65, 5, 1499, 7, 0.502, 0.487),
    (0.65, 15, 1499, 7, 0.487, 0.459),
    (0.80, 10, 781, 5, 0.566, 0.537),
    (0.80, 5, 374, 16, 0.583, 0.539),
]


@pytest.mark.parametrize(("prob", "length", "frames", "group", "before", "after"), SHARES)
def test_shares_are_those_of_the_reference(prob, length, frames, group, before, after):
    """The table was measured over 1500 batches of fairseq's procedure: what is left is four standard errors of the
    groups drawn here, and .001 for those of the table and its rounding."""
    leaders, clips = np.arange(GROUPS) * group, GROUPS * group
    plain = masks(config(prob, length), frames, np.concatenate([leaders + row for row in range(4)])).mean(1)
    trimmed = masks(config(prob, length, trim_group=group), frames, leaders, clips=clips).mean(1)
    for shares, expected in ((plain, before), (trimmed, after)):
        error = 4 * shares.std() / len(shares) ** 0.5
        assert error < 0.01  # else the comparison would say little
        assert abs(shares.mean() - expected) < error + 0.001


@pytest.mark.parametrize(("frames", "prob", "length"), [(249, 0.65, 10), (999, 0.8, 5)])
def test_the_number_of_spans_is_rounded_at_random(frames, prob, length):
    """Row by row int(p T / L + u): the mean is p T / L. Spans are told apart by length 1, where none overlap."""
    spans = masks(config(prob / length, 1), frames, np.arange(2000)).sum(1)
    expected = prob * frames / length
    assert set(spans.tolist()) == {int(expected), int(expected) + 1}
    assert abs(spans.mean() - expected) < 4 * 0.5 / 2000**0.5


def test_every_start_is_as_likely_as_any_other():
    """Starts lie in 0 .. T - L - 1: a single span covers each of the inner frames with chance L / (T - L)."""
    frames, length, rows = 50, 10, 8000
    covered = masks(config(0.0, length), frames, np.arange(rows)).mean(0)
    starts = frames - length
    expected = [min(t + 1, length, frames - 1 - t) / starts for t in range(frames)]
    np.testing.assert_allclose(covered, expected, atol=4 * 0.5 / rows**0.5)
    assert covered[-1] == 0 and covered[-2] > 0 and covered[0] > 0


SEEDS = st.integers(0, 2**31 - 1)


@pytest.mark.parametrize(
    ("frames", "how"),
    [
        (99, config()),
        (60, config(prob=0.31, length=7, min_masks=4)),
        (33, config(prob=0.0, length=12, min_masks=2)),
        (8, config(prob=0.9, length=12)),
    ],
)
@settings(max_examples=10, deadline=None)
@given(seed=SEEDS)
def test_a_mask_is_a_union_of_whole_spans_within_the_static_limit(frames, how, seed):
    fewest_spans = max(how.min_masks, int(how.prob * frames / how.length))
    drawn = masks(how, frames, np.arange(20), seed=seed)
    assert drawn.sum(1).max() <= masked_limit(frames, how) <= frames
    for mask in drawn:
        assert all(run >= how.length or first + run == frames for first, run in runs(mask))
        if frames - how.length > fewest_spans + 1:  # not one of the reference's short clips
            assert not mask[-1]
            assert mask.sum() >= how.length + fewest_spans - 1  # starts are distinct


@pytest.mark.parametrize("frames", [2, 11])
def test_clips_as_short_as_a_span_are_masked_somewhere(frames):
    """As the reference: with no more starts than spans there are as many starts as spans plus one."""
    spans = masks(config(), frames, np.arange(300))
    assert spans.any(1).all()
    starts = {int(mask.argmax()) for mask in spans}
    assert starts == {0, 1} & set(range(frames))


@pytest.mark.parametrize(("clips", "group", "dropout"), [(17, 7, 0.0), (5, 7, 0.3)])
@settings(max_examples=10, deadline=None)
@given(seed=SEEDS)
def test_a_group_keeps_as_many_frames_as_its_barest_clip(clips, group, dropout, seed):
    """Also the last group, which the batch may leave incomplete: rows beyond the batch do not count."""
    frames, rows = 99, np.arange(clips)
    plain = masks(config(), frames, rows, seed=seed)
    trimmed = masks(config(trim_group=group, dropout=dropout), frames, rows, clips=clips, seed=seed)
    assert not (trimmed & ~plain).any()
    for first in range(0, clips, group):
        members = slice(first, first + group)
        fewest = plain[members].sum(1).min()
        assert (trimmed[members].sum(1) == fewest - round(dropout * fewest)).all()


@settings(max_examples=12, deadline=None)
@given(rows=st.lists(st.integers(0, 20), min_size=3, max_size=3), seed=SEEDS)
def test_a_rows_mask_does_not_depend_on_the_rows_beside_it(rows, seed):
    how = config(trim_group=4, dropout=0.1)
    all_rows = masks(how, 99, np.arange(21), clips=21, seed=seed)
    np.testing.assert_array_equal(masks(how, 99, rows, clips=21, seed=seed), all_rows[rows])


def test_the_trim_removes_single_frames_uniformly():
    """The reference leaves holes of single frames inside of spans; first and last frames suffer no more."""
    rows = np.arange(800)
    plain, trimmed = (masks(config(trim_group=group), 99, rows, clips=800) for group in (0, 4))
    removed = plain & ~trimmed
    share = removed.sum(0)[2:-2] / plain.sum(0)[2:-2]
    error = (share.mean() * (1 - share.mean()) / plain.sum(0)[2:-2].min()) ** 0.5
    assert np.abs(share - share.mean()).max() < 5 * error
    lengths = [run for gone in removed for _, run in runs(gone)]
    assert np.mean(np.array(lengths) == 1) > 0.5


def test_masks_differ_between_rows_and_keys():
    drawn = np.concatenate([masks(config(), 249, np.arange(50), seed=seed) for seed in (0, 1)])
    assert len(np.unique(drawn, axis=0)) == 100


def test_channel_masks_are_spans_of_channels():
    rows = jnp.arange(500)
    assert channel_masks(jax.random.key(0), rows, 96, config()) is None
    drawn = np.asarray(channel_masks(jax.random.key(0), rows, 96, config(channel_prob=0.3, channel_length=8)))
    assert drawn.shape == (500, 96)
    assert all(run >= 8 for mask in drawn for _, run in runs(mask))
    # 0.3 * 96 / 8 = 3.6 spans of 8 with distinct starts among 88, of which each covers an inner channel by 8 / 88
    inner = drawn[:, 8:-9].mean()
    assert abs(inner - (1 - (1 - 8 / 88) ** 3.6)) < 0.02
