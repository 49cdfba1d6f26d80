"""Learning rates, Adam in both forms, clipping and the teacher's average against closed forms."""

import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util
from run_fixtures import tiny_config

from musicssl_jax.models.objective import make_objective
from musicssl_jax.training.optimizer import cosine, make_optimizer, make_schedule, polynomial, tri_stage

BASE = {"peak": 5e-4, "warmup": 0.03, "hold": 0.9, "decay": 0.07, "init_scale": 0.01, "final_scale": 0.01}


def at(schedule, *steps):
    """The rates as the train step computes them: jitted, from an int32 step."""
    return [float(jax.jit(schedule)(jnp.int32(step))) for step in steps]


def test_tri_stage_is_the_references():
    rates = at(tri_stage(400_000, **BASE), 0, 6000, 12_000, 200_000, 371_999, 386_000, 400_000, 500_000)
    middle = 5e-4 * (0.01 + 0.99 * 0.5)
    expected = [5e-6, middle, 5e-4, 5e-4, 5e-4, 5e-4 * math.exp(-0.5 * math.log(100)), 5e-6, 5e-6]
    np.testing.assert_allclose(rates, expected, rtol=1e-5)


def test_tri_stage_follows_its_own_scales():
    stages = {"warmup": 0.1, "hold": 0.4, "decay": 0.5}
    rates = at(tri_stage(100, peak=5e-4, init_scale=0.5, final_scale=0.1, **stages), 0, 5, 50, 75, 100)
    np.testing.assert_allclose(rates, 5e-4 * np.array([0.5, 0.75, 1, 0.1**0.5, 0.1]), rtol=1e-5)


def test_polynomial_is_the_references():
    """HuBERT's: 32,000 steps up, linearly to 0 at 400,000."""
    hubert = polynomial(400_000, peak=5e-4, warmup=0.08, power=1.0)
    rates = at(hubert, 0, 16_000, 32_000, 216_000, 400_000, 410_000)
    np.testing.assert_allclose(rates, [0, 2.5e-4, 5e-4, 2.5e-4, 0, 0], rtol=1e-5, atol=1e-12)
    squared = polynomial(100, peak=1.0, warmup=0.0, power=2.0)
    np.testing.assert_allclose(at(squared, 0, 50, 100), [1, 0.25, 0], atol=1e-7)


def test_cosine_is_half_a_wave_after_the_warm_up():
    rates = at(cosine(1100, peak=2.0, warmup=1 / 11, final_scale=0.1), 0, 50, 100, 350, 600, 1100, 2000)
    quarter = 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 4))
    np.testing.assert_allclose(rates, 2 * np.array([0, 0.5, 1, quarter, 0.55, 0.1, 0.1]), rtol=1e-5)


@pytest.mark.parametrize(("name", "end"), [("tri_stage", 5e-6), ("polynomial", 0.0), ("cosine", 5e-6)])
def test_the_config_names_the_schedule(name, end):
    schedule = make_schedule(SimpleNamespace(name=name, power=1.0, **BASE), 1000)
    np.testing.assert_allclose(at(schedule, 30, 1000), [5e-4, end], rtol=1e-5, atol=1e-12)


def test_an_unknown_name_is_said():
    with pytest.raises(ValueError, match=r"schedule\.name is 'step'.*cosine"):
        make_schedule(SimpleNamespace(name="step"), 10)
    with pytest.raises(ValueError, match=r"optimizer\.name is 'sgd'.*adamw"):
        make_optimizer(SimpleNamespace(name="sgd"), lambda step: 0.1)


def optimizer_config(**changes):
    base = {"name": "adam_fairseq", "b1": 0.9, "b2": 0.98, "eps": 1e-6, "weight_decay": 0.01, "clip_norm": 0.0}
    return SimpleNamespace(**base | changes)


def rate(step):
    return 0.01 / (1 + step)


def descend(config, params, grads):
    """Parameters after each update."""
    optimizer = make_optimizer(config, rate)
    state, seen = optimizer.init(params), []
    for grad in grads:
        updates, state = jax.jit(optimizer.update)(grad, state, params)
        params = optax.apply_updates(params, updates)
        seen.append(jax.tree.map(np.asarray, params))
    return seen


def problem(scale, steps=6):
    """A kernel, a bias and a norm's scale, and gradients of each step."""
    rng = np.random.default_rng(0)
    shapes = {"kernel": (3, 4), "bias": (4,), "scale": (4,)}
    draw = lambda size: {k: jnp.asarray(size * rng.normal(size=s), jnp.float32) for k, s in shapes.items()}  # noqa: E731
    return draw(1.0), [draw(scale) for _ in range(steps)]


@pytest.mark.parametrize("scale", [1.0, 1e-6])
def test_adam_fairseq_adds_eps_before_the_bias_is_corrected(scale):
    """In float64 by hand: p -= lr wd p; p -= lr sqrt(1 - b2^n) / (1 - b1^n) m / (sqrt(v) + eps)."""
    params, grads = problem(scale)
    got = descend(optimizer_config(), params, grads)
    for name in params:
        p, m, v = np.float64(params[name]), 0.0, 0.0
        for n, grad in enumerate(grads, 1):
            g = np.float64(grad[name])
            m, v = 0.9 * m + 0.1 * g, 0.98 * v + 0.02 * g**2
            p = p - rate(n - 1) * 0.01 * p
            p = p - rate(n - 1) * math.sqrt(1 - 0.98**n) / (1 - 0.9**n) * m / (np.sqrt(v) + 1e-6)
            np.testing.assert_allclose(got[n - 1][name], p, atol=2e-6)


def test_the_two_adams_differ_where_gradients_are_small():
    """At g = eps torch's first step is lr / 2; fairseq's is lr sqrt(.02) / (sqrt(.02) + 1)."""
    params, grads = {"x": jnp.ones(1)}, [{"x": jnp.full(1, 1e-6)}]
    first = {
        name: 1 - float(descend(optimizer_config(name=name, weight_decay=0.0), params, grads)[0]["x"][0])
        for name in ("adamw", "adam_fairseq")
    }
    assert first["adamw"] == pytest.approx(0.01 / 2, rel=1e-3)
    assert first["adam_fairseq"] == pytest.approx(0.01 * 0.02**0.5 / (0.02**0.5 + 1), rel=1e-3)


@pytest.mark.parametrize("scale", [1.0, 1e-6])
def test_adamw_is_torchs(scale):
    torch = pytest.importorskip("torch", reason="the oracle runs on torch")
    params, grads = problem(scale)
    got = descend(optimizer_config(name="adamw"), params, grads)
    theirs = {name: torch.nn.Parameter(torch.tensor(np.asarray(value))) for name, value in params.items()}
    adam = torch.optim.AdamW(theirs.values(), lr=1.0, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.01)
    for n, grad in enumerate(grads):
        adam.param_groups[0]["lr"] = rate(n)
        for name, value in theirs.items():
            value.grad = torch.tensor(np.asarray(grad[name]))
        adam.step()
        for name, value in theirs.items():
            np.testing.assert_allclose(got[n][name], value.detach().numpy(), atol=2e-6)


@pytest.mark.parametrize("name", ["adam_fairseq", "adamw"])
def test_decay_shrinks_every_parameter(name):
    """With gradients of zero nothing but p *= 1 - lr wd happens, to biases and norms too."""
    params, _ = problem(1.0)
    grads = [jax.tree.map(jnp.zeros_like, params)] * 2
    after = descend(optimizer_config(name=name, weight_decay=0.5), params, grads)[-1]
    for key, value in params.items():
        np.testing.assert_allclose(after[key], value * (1 - 0.01 * 0.5) * (1 - 0.005 * 0.5), rtol=1e-6)


def test_clipping_bounds_the_global_norm_and_leaves_smaller_gradients_alone():
    """fairseq: times min(1, limit / (norm + 1e-6)). With b1 = b2 = 0 and a huge eps an update is lr g / eps."""
    config = {"b1": 0.0, "b2": 0.0, "eps": 1e6, "weight_decay": 0.0, "clip_norm": 2.0}
    params = {"a": jnp.zeros(1), "b": jnp.zeros(1)}
    for grad, factor in [((3.0, 4.0), 2 / 5), ((0.3, 0.4), 1.0)]:
        grads = {"a": jnp.full(1, grad[0]), "b": jnp.full(1, grad[1])}
        (after,) = descend(optimizer_config(**config), params, [grads])
        moved = -np.array([after["a"][0], after["b"][0]]) * 1e6 / rate(0)
        np.testing.assert_allclose(moved, np.array(grad) * factor, rtol=1e-4)


def objective_of(**teacher):
    return make_objective(tiny_config(**{f"teacher__{name}": value for name, value in teacher.items()}))


def test_the_decay_rises_linearly_to_its_end():
    objective = objective_of(decay=0.999, end_decay=0.9999, anneal_steps=30_000)
    decays = [float(objective.decay(jnp.int32(step))) for step in (0, 15_000, 30_000, 400_000)]
    np.testing.assert_allclose(decays, [0.999, 0.99945, 0.9999, 0.9999], atol=1e-7)
    at_once = objective_of(decay=0.5, end_decay=0.9, anneal_steps=0)
    assert float(at_once.decay(jnp.int32(0))) == pytest.approx(0.9)


def students(objective, count):
    """Parameters that change from step to step, as constants 0, 1, 2, ... everywhere."""
    shapes = jax.eval_shape(objective.init, jax.random.key(0))
    return [jax.tree.map(lambda leaf, n=n: jnp.full(leaf.shape, float(n)), shapes) for n in range(count)]


def averaged(objective, updates=4):
    """Path -> value that every entry of that part of the teacher has after some updates."""
    first, *later = students(objective, updates + 1)
    teacher = objective.init_teacher(first)
    for step, params in enumerate(later, 1):
        teacher = jax.jit(objective.update_teacher)(teacher, params, jnp.int32(step))
    flat = traverse_util.flatten_dict(teacher, sep="/")
    assert {leaf.dtype for leaf in flat.values()} == {jnp.dtype("float32")}
    assert all((leaf == leaf.ravel()[0]).all() for leaf in flat.values())
    return {path: float(leaf.ravel()[0]) for path, leaf in flat.items()}


def closed_form(decays, updates=4):
    value = 0.0
    for step in range(1, updates + 1):
        value = decays(step) * value + (1 - decays(step)) * step
    return value


# The decay of update n, which rises from .5 to .9 over two updates
RISING = {"decay": 0.5, "end_decay": 0.9, "anneal_steps": 2}


def rising(step):
    return min(0.5 + 0.2 * step, 0.9)


@pytest.mark.parametrize("average", ["blocks", "transformer", "all"])
def test_what_is_averaged_what_is_copied_and_what_is_shared(average):
    parts = averaged(objective_of(average=average, **RISING))
    positions = {path: value for path, value in parts.items() if "positional" in path}
    rest = {path: value for path, value in parts.items() if path not in positions}
    assert len(positions) == 4 and any("blocks" in path for path in rest)
    assert any("conv_encoder" in path for path in rest) == (average == "all")
    assert ("mask_embedding" in rest) == (average == "all")
    mean = closed_form(rising)
    np.testing.assert_allclose(list(rest.values()), mean, rtol=1e-5)
    np.testing.assert_allclose(list(positions.values()), 4.0 if average == "blocks" else mean, rtol=1e-5)


def test_steps_per_update_is_what_micro_batches_do_in_the_reference():
    """u steps with the same student and the same decay: the decay to the power u."""
    parts = averaged(objective_of(steps_per_update=3, **RISING))
    assert parts["transformer/norm/scale"] == pytest.approx(closed_form(lambda step: rising(step) ** 3), rel=1e-5)
