"""Whatever the backward pass computes anew, gradients are the same; and less is kept for it."""

import jax
import numpy as np
import pytest
from run_fixtures import noise, run_steps, tiny_config

from musicssl_jax.models.objective import make_objective
from musicssl_jax.training.step import make_sums


def sums(remat: str, mesh, **fields):
    """(gradients, bytes of temporaries) of one micro-batch."""
    config = tiny_config(compute__remat=remat, batch__clips=2, batch__per_device=2, **fields)
    objective = make_objective(config)
    params = objective.init(jax.random.key(0))
    rows = noise(range(2), round(config.data.crop_seconds * config.data.sample_rate), 0)
    batch = {name: values[None] for name, values in rows.items()}
    batch |= {"row": np.arange(2, dtype=np.int32)[None], "weight": np.ones((1, 2), np.float32)}
    run = jax.jit(make_sums(objective, mesh, 0, grad=True))
    compiled = run.lower(params, objective.init_teacher(params), (), batch, 0).compile()
    _, grads = compiled(params, objective.init_teacher(params), (), batch, 0)
    return grads, compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.long
def test_gradients_are_the_same_and_memory_is_less(mesh):
    """To the rounding of float32. The gradient of a key's bias is nought but for rounding, so the scale is all's."""
    fields = {"model__layers": 4, "data__crop_seconds": 2.0}
    kept, most = sums("none", mesh, **fields)
    scale = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(kept))
    for remat in ("products", "blocks", "all"):
        grads, memory = sums(remat, mesh, **fields)
        for ours, theirs in zip(jax.tree.leaves(kept), jax.tree.leaves(grads), strict=True):
            np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-6 * scale)
        assert memory < most, remat


@pytest.mark.long
def test_random_numbers_come_from_the_named_generator(mesh):
    """The same seed gives the same losses again, and each generator its own."""
    rbg, again, threefry = (run_steps(tiny_config(prng=prng), mesh, 2)[1] for prng in ("rbg", "rbg", "threefry2x32"))
    np.testing.assert_array_equal(rbg, again)
    assert not np.array_equal(rbg, threefry)
