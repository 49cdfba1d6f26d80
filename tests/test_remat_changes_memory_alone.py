"""Whatever the backward pass computes anew, gradients are the same, less is kept, and the plan knows what it costs."""

import dataclasses
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from run_fixtures import noise, run_steps, tiny_config

from musicssl_jax.flops import transformer_flops
from musicssl_jax.models.conv_encoder import frame_count
from musicssl_jax.models.objective import make_objective
from musicssl_jax.models.transformer import Block, rematerialised
from musicssl_jax.planning.estimate import recomputed_flops
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


SAMPLES, CLIPS = 16_000, 2


def model_of_a_block(remat: str):
    return make_objective(tiny_config(compute__remat=remat, model__layers=1, target__top_k=1)).model


def gradient_of_blocks(model) -> jax.stages.Lowered:
    """Blocks in a scan, as the transformer has them; its bodies, forwards and backwards, stand in the text once."""
    graph, parameters = nnx.split(nnx.vmap(lambda rngs: Block(model, rngs=rngs))(nnx.Rngs(0).split(3)))
    keys = jax.random.split(jax.random.key(0), CLIPS)

    def total(parameters, x):
        def body(x, layer):
            return rematerialised(lambda x: nnx.merge(graph, layer)(x, None, keys)[0], model.remat)(x), None

        return jnp.square(jax.lax.scan(body, x, parameters)[0]).sum()

    frames = frame_count(SAMPLES, model.conv_layers)
    x = jax.ShapeDtypeStruct((CLIPS, frames, model.width), jnp.float32)
    return jax.jit(jax.grad(total, (0, 1))).lower(parameters, x)


def product_flops(lowered: jax.stages.Lowered) -> list[int]:
    """Of each matrix product in the text: 2 for each number that it gives and each one that is summed up in it."""
    pattern = r"dot_general.* contracting_dims = \[(.*?)\].*: \(tensor<(\S+)xf32>, .*\) -> tensor<(\S+)xf32>"
    flops = []
    for summed, operand, given in re.findall(pattern, lowered.as_text()):
        sizes, axes = [int(size) for size in operand.split("x")], map(int, summed.split(","))
        flops.append(2 * math.prod(sizes[axis] for axis in axes) * math.prod(map(int, given.split("x"))))
    return flops


def test_products_are_kept_and_none_is_computed_twice():
    none, products, blocks = (
        len(product_flops(gradient_of_blocks(model_of_a_block(remat)))) for remat in ("none", "products", "blocks")
    )
    assert none == products == 25 and blocks == 25 + 8  # 8 forwards, 2 for each backwards, and the scores


@pytest.mark.parametrize("remat", ["none", "products", "blocks"])
def test_the_plan_counts_what_is_computed_twice(remat):
    """Of whole blocks the text has scores twice, of which the compiler makes one."""
    model = model_of_a_block(remat)
    lowered = gradient_of_blocks(model)
    frames = frame_count(SAMPLES, model.conv_layers)
    block = transformer_flops(model, frames) - transformer_flops(dataclasses.replace(model, layers=0), frames)
    square = f"[{CLIPS},{model.heads},{frames},{frames}]"
    products = [line.split(" dot(")[0] for line in lowered.compile().as_text().splitlines() if " dot(" in line]
    # Forwards, anew for the gradient, and the gradient of the weights.
    assert sum(square in given for given in products) == 3
    merged = 2 * CLIPS * frames**2 * model.width if remat == "blocks" else 0
    assert sum(product_flops(lowered)) - merged == CLIPS * (3 * block + recomputed_flops(model, SAMPLES))


@pytest.mark.long
def test_random_numbers_come_from_the_named_generator(mesh):
    """The same seed gives the same losses again, and each generator its own."""
    rbg, again, threefry = (run_steps(tiny_config(prng=prng), mesh, 2)[1] for prng in ("rbg", "rbg", "threefry2x32"))
    np.testing.assert_array_equal(rbg, again)
    assert not np.array_equal(rbg, threefry)
