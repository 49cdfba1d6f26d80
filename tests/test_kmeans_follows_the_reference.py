"""Streaming k-means is scikit-learn's MiniBatchKMeans, which HuBERT's targets come from, one update at a time."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.cluster import MiniBatchKMeans

from musicssl_jax.parallel import make_mesh
from musicssl_jax.targets.kmeans import (
    BLOCK,
    assign,
    draw,
    initial_state,
    make_update,
    plus_plus,
    starts,
    sums_by_product,
)


def blobs(count, *, width=6, centres=40, seed=0):
    """Frames around centres that are used unequally, each with its own spread."""
    rng = np.random.default_rng(seed)
    number = rng.choice(centres, count, p=rng.dirichlet(np.ones(centres)))
    middle, spread = rng.normal(0, 5, (centres, width)), rng.uniform(0.3, 2, (centres, 1))
    return (middle[number] + spread[number] * rng.normal(size=(count, width))).astype(np.float32)


def squared_distances(frames, centroids):
    return ((np.asarray(frames, float)[:, None] - np.asarray(centroids, float)) ** 2).sum(-1)


def inertia(frames, centroids):
    return squared_distances(frames, centroids).min(1).mean()


@pytest.fixture(scope="module")
def one_device():
    return make_mesh(1, 1)


def test_the_start_draws_by_squared_distance_and_takes_the_better_of_what_it_draws():
    """Two clusters have 2 + int(log 2) = 2 trials: the chance of every pair of frames can be enumerated."""
    frames = np.array([[0, 0], [1, 0], [0, 2], [5, 1], [5, 4]], np.float32)
    distances = squared_distances(frames, frames)
    expected = np.zeros((5, 5))
    for first in range(5):
        chance = distances[first] / distances[first].sum()
        left = np.minimum(distances, distances[first]).sum(1)
        for a, b in itertools.product(range(5), repeat=2):
            expected[first, a if left[a] <= left[b] else b] += chance[a] * chance[b] / 5
    keys = jax.random.split(jax.random.key(0), 20_000)
    pairs = np.asarray(jax.jit(jax.vmap(lambda key: plus_plus(key, jnp.asarray(frames), 2)[0]))(keys))
    found = np.zeros((5, 5))
    np.add.at(found, tuple(pairs.T), 1 / len(pairs))
    np.testing.assert_allclose(found, expected, atol=4 * 0.5 / len(pairs) ** 0.5)
    assert (found[expected == 0] == 0).all()


def test_draws_have_their_chances_over_all_blocks():
    mass = np.zeros(3 * BLOCK, np.float32)
    mass[[0, 5, BLOCK - 1, BLOCK, 2 * BLOCK + 7, 3 * BLOCK - 1]] = [1, 2, 3, 4, 5, 6]
    drawn = np.asarray(draw(jax.random.key(1), jnp.asarray(mass), 20_000))
    np.testing.assert_allclose(np.bincount(drawn, minlength=len(mass)) / len(drawn), mass / mass.sum(), atol=0.015)
    assert set(drawn.tolist()) == set(np.flatnonzero(mass).tolist())


def test_a_start_is_distinct_frames_and_knows_its_inertia():
    frames = blobs(700)
    chosen, left = plus_plus(jax.random.key(0), jnp.asarray(frames), 60)
    assert len(set(np.asarray(chosen).tolist())) == 60
    assert float(left) == pytest.approx(inertia(frames, frames[np.asarray(chosen)]), rel=1e-4)


def test_the_best_of_the_restarts_is_kept():
    frames, key = blobs(700), jax.random.key(3)
    each = jax.lax.map(lambda k: plus_plus(k, jnp.asarray(frames), 30)[1], jax.random.split(key, 5)).tolist()
    centroids, best = starts(key, jnp.asarray(frames), clusters=30, restarts=5)
    assert float(best) == pytest.approx(min(each), rel=1e-5)
    assert min(each) < max(each)
    assert inertia(frames, centroids) == pytest.approx(min(each), rel=1e-4)


def test_updates_are_the_formulas(one_device):
    """In float64 and one frame at a time: labels by the old centroids, means over all frames ever given, the
    exponential average of inertia that leaves out the first batch, and batches since it last fell."""
    rng, smoothing = np.random.default_rng(0), 0.3
    state = initial_state(jnp.asarray(blobs(12, seed=1)).at[0].set(300.0))  # the first will never be used
    update = make_update(one_device, smoothing=smoothing)
    centroids, counts = np.asarray(state.centroids, np.float64), np.zeros(12)
    smoothed = best = np.inf
    stale = 0
    for step in range(12):
        # Later batches lie further out: there is something to be impatient about.
        frames = blobs(300, seed=2 + step) * np.float32(1 + max(0, step - 5) / 4)
        valid = rng.random(300) < 0.8
        state, found = update(state, jnp.asarray(frames), jnp.asarray(valid))
        distances = squared_distances(frames[valid], centroids)
        sums = centroids * counts[:, None]
        for frame, label in zip(frames[valid], distances.argmin(1), strict=True):
            sums[label] += frame
            counts[label] += 1
        centroids = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], centroids)
        value = distances.min(1).mean()
        if step:
            smoothed = value if step == 1 else (1 - smoothing) * smoothed + smoothing * value
            stale = 0 if smoothed < best else stale + 1
            best = min(best, smoothed)
        np.testing.assert_allclose(float(found), value, rtol=1e-5)
        np.testing.assert_array_equal(state.counts, counts)
        np.testing.assert_allclose(state.centroids, centroids, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose([state.smoothed, state.best], [smoothed, best], rtol=1e-5)
        assert (int(state.stale), int(state.step)) == (stale, step + 1)
    assert stale > 3 and (counts == 0).any()  # else some of this was not tried


def test_a_batch_without_a_frame_changes_nothing_but_the_step(one_device):
    update = make_update(one_device, smoothing=0.3)
    frames, none = jnp.asarray(blobs(300)), jnp.zeros(300, bool)
    state = initial_state(frames[:10])
    for _ in range(2):
        state, _ = update(state, frames, ~none)
        after, inertia = update(state, frames, none)
        for name, value in state._asdict().items():
            np.testing.assert_array_equal(getattr(after, name), value + (name == "step"), err_msg=name)
        assert float(inertia) == 0
        state = after


def test_sums_on_accelerators_are_those_on_cpus():
    """There they are a matrix product, here one by one; labels out of range count for nothing."""
    frames, labels = blobs(500), np.random.default_rng(0).integers(0, 13, 500)
    expected = np.stack([frames[labels == label].sum(0) for label in range(12)])
    sums = sums_by_product(jnp.asarray(frames), jnp.asarray(labels), 12)
    np.testing.assert_allclose(sums, expected, rtol=1e-5, atol=1e-4)


def fit(frames, one_device, *, clusters, restarts, batch, patience, seed):
    """Ours on batches drawn as scikit-learn draws them: with replacement, the start from three batches."""
    rng = np.random.default_rng(seed)
    sample = frames[rng.integers(0, len(frames), 3 * batch)]
    state = initial_state(starts(jax.random.key(seed), jnp.asarray(sample), clusters=clusters, restarts=restarts)[0])
    update = make_update(one_device, smoothing=2 * batch / (len(frames) + 1))
    valid = jnp.ones(batch, bool)
    while state.stale < patience:
        state, _ = update(state, jnp.asarray(frames[rng.integers(0, len(frames), batch)]), valid)
    return state.centroids


def test_inertia_is_not_more_than_scikit_learns(one_device):
    """On frames without gaps, whose inertia differs little from seed to seed."""
    rng = np.random.default_rng(0)
    frames = (rng.normal(size=(8000, 6)) @ rng.normal(size=(6, 6))).astype(np.float32)
    options = {"clusters": 30, "restarts": 3, "batch": 500, "patience": 10}
    ours = [inertia(frames, fit(frames, one_device, **options, seed=seed)) for seed in range(3)]
    theirs = [
        MiniBatchKMeans(
            n_clusters=30,
            n_init=3,
            batch_size=500,
            max_no_improvement=10,
            tol=0.0,
            reassignment_ratio=0.0,
            random_state=seed,
        )
        .fit(frames)
        .cluster_centers_
        for seed in range(3)
    ]
    assert np.median(ours) <= 1.01 * np.median([inertia(frames, centroids) for centroids in theirs])


def test_rare_centroids_move_to_frames_of_the_batch_when_asked_to(one_device):
    """Three of five centroids have few frames or none, and at most half of the batch's frames can be used."""
    near = np.array([[0.0], [10.0]], np.float32)
    start = initial_state(jnp.asarray(np.concatenate([near, [[-500.0], [500.0], [600.0]]]).astype(np.float32)))
    frames = np.array([[0], [0.5], [9.5], [10], [9], [11], [8], *[[700]] * 7], np.float32)
    valid = jnp.arange(14) < 7
    kept, _ = make_update(one_device, smoothing=0.1)(start, frames, valid)
    moved, _ = make_update(one_device, smoothing=0.1, reassignment_ratio=0.1, seed=1)(start, frames, valid)
    np.testing.assert_array_equal(kept.centroids[2:, 0], [-500, 500, 600])
    np.testing.assert_array_equal(moved.centroids[:2], kept.centroids[:2])
    new = np.asarray(moved.centroids[2:, 0]).tolist()
    assert len(set(new)) == 3 and set(new) <= set(frames[:7, 0].tolist())
    np.testing.assert_array_equal(kept.counts, [2, 5, 0, 0, 0])
    np.testing.assert_array_equal(moved.counts, [2, 5, 2, 2, 2])

    crowded = initial_state(jnp.asarray(np.arange(6, dtype=np.float32)[:, None] * 1000))
    moved, _ = make_update(one_device, smoothing=0.1, reassignment_ratio=0.1)(crowded, frames[:4], jnp.ones(4, bool))
    assert (np.asarray(moved.centroids[:, 0]) < 100).sum() == 1 + 2


def test_rare_centroids_are_looked_for_now_and_then(one_device):
    """Every 10 frames a cluster, once every centroid has been used."""
    update = make_update(one_device, smoothing=0.1, reassignment_ratio=0.9)
    state = initial_state(jnp.array([[0.0], [100.0]]))
    both = jnp.array([[0.0], [100.0], [100.0]])
    state, _ = update(state, both, jnp.ones(3, bool))
    since = [int(state.since_reassigned)]
    for _ in range(8):
        state, _ = update(state, both, jnp.ones(3, bool))
        since.append(int(state.since_reassigned))
    assert since == [0, 3, 6, 9, 12, 15, 18, 0, 3]


def test_labels_are_the_nearest_centroid_and_the_first_of_equals():
    frames, centroids = jnp.asarray(blobs(500)), jnp.asarray(blobs(40, seed=1))
    labels = np.asarray(assign(centroids, frames))
    np.testing.assert_array_equal(labels, squared_distances(frames, centroids).argmin(1))
    np.testing.assert_array_equal(assign(centroids, frames.reshape(5, 50, 2, 6)), labels.reshape(5, 50, 2))
    assert int(assign(centroids, frames[7])) == labels[7]
    twice = jnp.concatenate([centroids, centroids])
    np.testing.assert_array_equal(assign(twice, frames), labels)


def test_labels_do_not_suffer_from_a_large_offset():
    """As decibels of quiet music have, or a layer's features with an outlying dimension."""
    frames, centroids = jnp.asarray(blobs(500)), jnp.asarray(blobs(40, seed=1))
    labels = squared_distances(frames, centroids).argmin(1)
    np.testing.assert_array_equal(assign(centroids + 1024, frames + 1024), labels)


@pytest.mark.parametrize("kind", ["unit norm", "constant", "zero", "tiny", "two values"])
def test_degenerate_frames_never_give_nan(one_device, kind):
    frames = blobs(640)
    frames = {
        "unit norm": frames / np.linalg.norm(frames, axis=1, keepdims=True),
        "constant": np.full_like(frames, 3.1),
        "zero": np.zeros_like(frames),
        "tiny": frames * np.float32(1e-19),
        "two values": np.where(frames[:, :1] > 0, np.float32(0.1), np.float32(0.7)) * np.ones_like(frames),
    }[kind]
    centroids, left = starts(jax.random.key(0), jnp.asarray(frames), clusters=4, restarts=3)
    state = initial_state(centroids)
    for ratio in (0.0, 0.5):
        update = make_update(one_device, smoothing=0.1, reassignment_ratio=ratio)
        for valid in (True, True, False):
            state, value = update(state, frames, jnp.full(len(frames), valid))
            assert np.isfinite([value, left]).all() and np.isfinite(state.centroids).all()
