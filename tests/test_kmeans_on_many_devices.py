"""However many devices share a batch of frames, k-means goes the same way."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from musicssl_jax.parallel import make_mesh
from musicssl_jax.targets.kmeans import ROWS, initial_state, make_update, starts


def run(mesh, batches, centroids, **options):
    """(state, inertia of every batch)"""
    state = jax.device_put(initial_state(centroids), NamedSharding(mesh, P()))
    update = make_update(mesh, smoothing=0.1, **options)
    curve = []
    for frames, valid in batches:
        placed = jax.device_put((frames, valid), NamedSharding(mesh, ROWS))
        state, inertia = update(state, *placed)
        curve.append(float(inertia))
    return state, curve


@pytest.fixture(scope="module")
def batches():
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(12, 12))
    return [((rng.normal(size=(2400, 12)) @ mixing).astype(np.float32), rng.random(2400) < 0.9) for _ in range(15)]


@pytest.mark.parametrize(("data", "fsdp", "ratio"), [(8, 1, 0.0), (2, 4, 0.05)])
def test_eight_devices_give_the_inertia_of_one(batches, data, fsdp, ratio):
    centroids, _ = starts(jax.random.key(0), jnp.asarray(batches[0][0]), clusters=50, restarts=2)
    alone, expected = run(make_mesh(1, 1), batches, centroids, reassignment_ratio=ratio)
    state, curve = run(make_mesh(data, fsdp), batches, centroids, reassignment_ratio=ratio)
    np.testing.assert_allclose(curve, expected, rtol=1e-4)
    assert int(state.counts.sum()) == int(alone.counts.sum())
    np.testing.assert_allclose(state.centroids, alone.centroids, rtol=1e-3, atol=1e-2)


def test_the_devices_send_each_other_sums_and_no_frames(batches):
    mesh = make_mesh(8, 1)
    update = make_update(mesh, smoothing=0.1)
    placed = jax.device_put(batches[0], NamedSharding(mesh, ROWS))
    state = jax.device_put(initial_state(jnp.asarray(batches[0][0][:50])), NamedSharding(mesh, P()))
    program = update.lower(state, *placed).compile().as_text()
    assert "all-reduce(" in program
    assert not any(f"{name}(" in program for name in ("all-gather", "all-to-all", "collective-permute"))
