"""Mini-batch k-means on the device: greedy k-means++ starts, then updates from batches that are seen once.

The reference clusters with scikit-learn's MiniBatchKMeans (Sculley 2010) over features that fill a machine's memory;
this is the same algorithm over a stream. What holds of both: distances are squared Euclidean ones, a centroid is the
mean of all frames it was ever given, and the fit ends when the smoothed inertia has not improved for a while.
Here "inertia" is the mean squared distance of a frame to its centroid.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from musicssl_jax.shapes import Array, Bool, Float, Int, Key

ROWS = P(("data", "fsdp"))
"""How frames lie: divided over both axes of the mesh."""
PART = 1024  # frames whose distances to all centroids are held at a time
BLOCK = 128  # frames whose chances are added up before one of them is drawn
CHANCES = 2.0**30  # integers that chances are rounded to; their sum stays an int32


class KMeansState(NamedTuple):
    """All that a fit needs to go on: a pytree of arrays, the same on every device."""

    centroids: Float[Array, "K W"]
    counts: Int[Array, " K"]
    """Frames that each centroid is the mean of."""
    smoothed: Float[Array, ""]
    """Exponential average of the batches' inertia, without the first batch."""
    best: Float[Array, ""]
    """The least it has been."""
    stale: Int[Array, ""]
    """Batches since then."""
    step: Int[Array, ""]
    """Batches seen."""
    since_reassigned: Int[Array, ""]
    """Frames since rare centroids were last looked for."""


def assign(centroids: Float[Array, "K W"], frames: Float[Array, "*batch W"]) -> Int[Array, "*batch"]:
    """Labels: the nearest centroid of each frame, which has to be finite; the first of those that are equally near.

    argmin |c|^2 - 2 x c, as the reference (|x|^2 is the same for all), in float32 products of full precision.
    Memory: one number for each frame and centroid.
    """
    # Distances do not depend on the origin; their rounding errors do.
    origin = centroids.mean(0)
    centroids, frames = centroids - origin, (frames - origin).astype(jnp.float32)
    norms = (centroids**2).sum(-1).reshape(-1, *(1 for _ in frames.shape[:-1]))
    scores = norms - 2 * jnp.einsum("kw,...w->k...", centroids, frames, precision=lax.Precision.HIGHEST)
    # jnp.argmin is three times slower on CPUs, where it compares one at a time.
    numbers = lax.broadcasted_iota(jnp.int32, scores.shape, 0)
    return jnp.where(scores == scores.min(0), numbers, len(centroids)).min(0)


@functools.partial(jax.jit, static_argnames=("clusters", "restarts"))
def starts(
    key: Key[Array, ""], frames: Float[Array, "N W"], *, clusters: int, restarts: int
) -> tuple[Float[Array, "K W"], Float[Array, ""]]:
    """The best of `restarts` greedy k-means++ starts: centroids, which are frames, and their inertia on all frames.

    On several devices, each does the whole: every draw hangs on the one before, so that sums which are rounded
    otherwise would end elsewhere.
    """
    chosen, inertia = jax.vmap(lambda k: plus_plus(k, frames, clusters))(jax.random.split(key, restarts))
    best = jnp.argmin(inertia)
    return frames[chosen[best]], inertia[best]


def plus_plus(
    key: Key[Array, ""], frames: Float[Array, "N W"], clusters: int
) -> tuple[Int[Array, " K"], Float[Array, ""]]:
    """Numbers of the frames that one greedy k-means++ start chooses, and their inertia.

    Arthur and Vassilvitskii 2007: a frame is drawn with a chance in proportion to its squared distance to the nearest
    one chosen so far; of 2 + log(K) frames so drawn the one that leaves the least inertia is taken (scikit-learn).
    """
    trials = 2 + int(math.log(clusters))
    count = len(frames)
    frames = jnp.pad(frames - frames.mean(0), ((0, -count % BLOCK), (0, 0)))
    columns = frames.T
    norms = (frames**2).sum(-1)
    first_key, key = jax.random.split(key)

    def distances(numbers):
        products = jnp.matmul(frames[numbers], columns, precision=lax.Precision.HIGHEST)
        return jnp.maximum(norms[numbers][:, None] - 2 * products + norms, 0.0)

    def nearer(nearest, number):
        return jnp.minimum(nearest, distances(number[None])[0]).at[number].set(0.0)

    def choose(i, carry):
        nearest, chosen = carry
        drawn = draw(jax.random.fold_in(key, i), nearest, trials)
        # The winner's distances are computed again: to keep those of all costs more.
        left = jnp.minimum(nearest, distances(drawn)).sum(-1)
        number = jnp.minimum(drawn[jnp.argmin(left)], count - 1)
        return nearer(nearest, number), chosen.at[i].set(number)

    first = jax.random.randint(first_key, (), 0, count)
    nothing = jnp.where(jnp.arange(len(frames)) < count, jnp.inf, 0.0)  # frames that fill up are never drawn
    chosen = jnp.full(clusters, first)
    nearest, chosen = lax.fori_loop(1, clusters, choose, (nearer(nothing, first), chosen))
    return chosen, nearest.sum() / count


def draw(key: Key[Array, ""], mass: Float[Array, " N"], draws: int) -> Int[Array, " draws"]:
    """Numbers drawn with a chance in proportion to `mass` (N a multiple of BLOCK); the last one where all is zero.

    Chances are rounded to integers, 2**30 for all together: their sums are the same in any order, so that what is
    drawn hardly depends on the machine. Blocks are summed first, then the one that was hit: a running sum over all
    frames would cost as much as their distances.
    """
    blocks = mass.reshape(-1, BLOCK)
    total = blocks.sum()
    chances = (blocks / jnp.where(total > 0, total, 1.0) * CHANCES).astype(jnp.int32)
    ends = jnp.cumsum(chances.sum(-1))
    hits = jax.random.randint(key, (draws,), 0, jnp.maximum(ends[-1], 1))
    block = jnp.minimum((ends <= hits[:, None]).sum(-1), len(blocks) - 1)
    inside = hits - (ends[block] - chances[block].sum(-1))
    place = (jnp.cumsum(chances[block], -1) <= inside[:, None]).sum(-1)
    return block * BLOCK + jnp.minimum(place, BLOCK - 1)


def initial_state(centroids: Float[Array, "K W"]) -> KMeansState:
    """The state before the first batch."""
    zero, infinity = jnp.zeros((), jnp.int32), jnp.full((), jnp.inf, jnp.float32)
    counts = jnp.zeros(len(centroids), jnp.int32)
    return KMeansState(centroids.astype(jnp.float32), counts, infinity, infinity, zero, zero, zero)


Update = Callable[[KMeansState, Float[Array, "B W"], Bool[Array, " B"]], tuple[KMeansState, Float[Array, ""]]]


def make_update(mesh: Mesh, *, smoothing: float, reassignment_ratio: float = 0.0, seed: int = 0) -> Update:
    """The jitted update (state, frames, valid) -> (state, inertia of the batch before it).

    Frames lie on the mesh as ROWS says; those not `valid` count for nothing. Every centroid moves to the mean of all
    frames it was ever given, these included. `smoothing`: the weight of a batch in the average that `stale` watches.
    `reassignment_ratio`: centroids with fewer frames than this share of the largest count are put on random frames of
    the batch (scikit-learn's rule; the reference's 0 leaves them), drawn by `seed`.
    """
    batch_sums = jax.shard_map(
        _batch_sums, mesh=mesh, in_specs=(P(), ROWS, ROWS), out_specs=P(), axis_names={"data", "fsdp"}, check_vma=False
    )

    @jax.jit
    def update(state: KMeansState, frames, valid):
        deviations, counts, squares = batch_sums(state.centroids, frames, valid)
        batch = counts.sum()
        counts = state.counts + counts
        centroids = state.centroids + deviations / jnp.maximum(counts, 1)[:, None]
        inertia = squares / jnp.maximum(batch, 1)
        smoothed, best, stale = _watched(state, inertia, (state.step > 0) & (batch > 0), smoothing)
        since = state.since_reassigned + batch
        if reassignment_ratio:
            key = jax.random.fold_in(jax.random.key(seed), state.step)
            due = (state.counts == 0).any() | (since >= 10 * len(counts))
            moved = _reassigned(key, centroids, counts, frames, valid, reassignment_ratio)
            centroids, counts = jax.tree.map(lambda new, old: jnp.where(due, new, old), moved, (centroids, counts))
            since = jnp.where(due, 0, since)
        return KMeansState(centroids, counts, smoothed, best, stale, state.step + 1, since), inertia

    return update


def _batch_sums(centroids, frames, valid):
    """Over all devices, of the valid frames of each centroid: the sum of frame - centroid, and their number;
    and the sum of squared distances."""
    clusters = len(centroids)
    labels = _assign_in_parts(centroids, frames)
    deviations = jnp.where(valid[:, None], frames - centroids[labels], 0.0)
    counts = jax.ops.segment_sum(valid.astype(jnp.int32), labels, clusters)
    # Accelerators would add by label in any order, or one by one.
    sums = lax.platform_dependent(
        deviations,
        labels,
        cpu=lambda values, labels: jax.ops.segment_sum(values, labels, clusters),
        default=lambda values, labels: sums_by_product(values, labels, clusters),
    )
    return lax.psum((sums, counts, (deviations**2).sum()), ("data", "fsdp"))


def sums_by_product(
    values: Float[Array, "B W"], labels: Int[Array, " B"], clusters: int
) -> Float[Array, "{clusters} W"]:
    """Sums of the values of each label by a matrix product, whose order is fixed; other labels count for nothing."""
    return jnp.matmul(jax.nn.one_hot(labels, clusters, axis=0), values, precision=lax.Precision.HIGHEST)


def _assign_in_parts(centroids, frames):
    """`assign`, with distances that stay in the cache of a CPU."""
    count = len(frames)
    part = min(PART, count)
    parts = jnp.pad(frames, ((0, -count % part), (0, 0))).reshape(-1, part, frames.shape[1])
    return lax.map(functools.partial(assign, centroids), parts).reshape(-1)[:count]


def _watched(state: KMeansState, inertia, judged, smoothing: float):
    """Smoothed inertia, the least it has been, and batches since then.

    The first batch is not `judged`, since it only tells of the start, nor is one without a valid frame.
    """
    average = (1 - smoothing) * state.smoothed + smoothing * inertia
    average = jnp.where(jnp.isinf(state.smoothed), inertia, average)
    smoothed = jnp.where(judged, average, state.smoothed)
    improved = smoothed < state.best
    stale = jnp.where(improved, 0, state.stale + judged)
    return smoothed, jnp.where(improved, smoothed, state.best), stale


def _reassigned(key, centroids, counts, frames, valid, ratio):
    """Centroids and counts with rare centroids on frames of the batch: the rarest first, at most half of its frames.

    They get the least count of those that stay, else they would be found rare again at once.
    """
    limit = min(len(counts), len(frames) // 2)
    rarest = jnp.argsort(counts)[:limit]
    scores = jnp.where(valid, jax.random.uniform(key, valid.shape), -1.0)
    drawn, numbers = lax.top_k(scores, limit)
    rare = (counts[rarest] < ratio * counts.max()) & (drawn >= 0)
    stays = jnp.ones(counts.shape, bool).at[rarest].set(~rare)
    least = jnp.min(counts, where=stays, initial=jnp.iinfo(counts.dtype).max)
    centroids = centroids.at[rarest].set(jnp.where(rare[:, None], frames[numbers], centroids[rarest]))
    return centroids, counts.at[rarest].set(jnp.where(rare, least, counts[rarest]))
