"""Initial weights follow fairseq's distributions, and the models have the sizes that the papers state."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from run_fixtures import tiny_config

from musicssl_jax.config import read
from musicssl_jax.models.objective import make_objective
from musicssl_jax.training.optimizer import make_optimizer
from musicssl_jax.training.state import init_state, parameter_count

WIDTH, FFN, CHANNELS, GROUPS, TAPS = 192, 384, 96, 8, 7


@pytest.fixture(scope="module")
def objective():
    convs = ((CHANNELS, 10, 5), *((CHANNELS, 3, 2),) * 4, *((CHANNELS, 2, 2),) * 2)
    sizes = {"width": WIDTH, "ffn": FFN, "conv_layers": convs, "positional_kernel": 2 * TAPS}
    return make_objective(tiny_config(**{f"model__{name}": value for name, value in sizes.items()}))


@pytest.fixture(scope="module")
def weights(objective):
    """Path -> array of a fresh model."""
    params = jax.jit(objective.init)(jax.random.key(0))
    return {path: np.asarray(value) for path, value in traverse_util.flatten_dict(params, sep="/").items()}


def assert_normal(values, std):
    """Of n samples the standard deviation is known to std / sqrt(2 n); a truncated normal has no tails."""
    error = 4 / (2 * values.size) ** 0.5
    assert abs(values.std() / std - 1) < error
    assert abs(values.mean()) < 4 * std / values.size**0.5
    kurtosis = np.mean((values / std) ** 4)
    assert abs(kurtosis - 3) < 4 * (96 / values.size) ** 0.5 + 4 * error


def assert_uniform(values, low, high):
    assert low <= values.min() and values.max() <= high
    spread = (high - low) / 12**0.5
    assert abs(values.mean() - (low + high) / 2) < 4 * spread / values.size**0.5
    assert abs(values.std() / spread - 1) < 4 * (0.2 / values.size) ** 0.5 + 1 / values.size


@pytest.mark.parametrize("name", ["attention/query", "attention/key", "attention/value", "attention/out"])
def test_attention_is_normal_with_zero_bias(weights, name):
    block = f"encoder/transformer/blocks/{name}"
    assert_normal(weights[f"{block}/kernel"], 0.02)
    assert not weights[f"{block}/bias"].any()


@pytest.mark.parametrize("name", ["feed_in", "feed_out"])
def test_feed_forward_is_normal_with_zero_bias(weights, name):
    assert_normal(weights[f"encoder/transformer/blocks/{name}/kernel"], 0.02)
    assert not weights[f"encoder/transformer/blocks/{name}/bias"].any()


def test_blocks_differ_from_each_other(weights):
    first, second = weights["encoder/transformer/blocks/feed_in/kernel"]
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.02


@pytest.mark.parametrize(("layer", "fan_in"), [(0, 10), (1, 3 * CHANNELS), (6, 2 * CHANNELS)])
def test_convolutions_are_kaiming_normal_without_bias(weights, layer, fan_in):
    assert_normal(weights[f"encoder/conv_encoder/layer{layer}/kernel"], (2 / fan_in) ** 0.5)
    assert f"encoder/conv_encoder/layer{layer}/bias" not in weights


@pytest.mark.parametrize(
    ("name", "fan_in"),
    [
        ("encoder/projection", CHANNELS),
        ("head", WIDTH),
        ("encoder/transformer/positional/layer0", WIDTH // GROUPS * TAPS),
        ("encoder/transformer/positional/layer1", WIDTH // GROUPS * TAPS),
    ],
)
def test_projections_and_positions_keep_torchs_default(weights, name, fan_in):
    """U(-1/sqrt(fan in), 1/sqrt(fan in)) for weight and bias."""
    assert_uniform(weights[f"{name}/kernel"], -(fan_in**-0.5), fan_in**-0.5)
    assert_uniform(weights[f"{name}/bias"], -(fan_in**-0.5), fan_in**-0.5)


def test_the_mask_embedding_is_uniform_and_norms_do_nothing(weights):
    assert_uniform(weights["encoder/mask_embedding"], 0, 1)
    norms = {name for name in weights if name.endswith("scale")}
    assert len(norms) == 7 + 1 + 1 + 2  # convolutions, features, transformer, two in every (stacked) block
    assert all((weights[name] == 1).all() for name in norms)
    assert not any(weights[name.replace("scale", "bias")].any() for name in norms)


def test_every_parameter_is_float32_also_when_computing_in_bfloat16():
    objective = make_objective(tiny_config(precision="bfloat16"))
    assert {leaf.dtype for leaf in jax.tree.leaves(jax.eval_shape(objective.init, jax.random.key(0)))} == {
        jnp.dtype("float32")
    }


def test_the_key_decides_the_weights(objective):
    draw = jax.jit(lambda key: objective.init(key)["encoder"]["projection"]["kernel"])
    one, same, other = (np.asarray(draw(jax.random.key(seed))) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, same)
    assert (one != other).mean() > 0.99


@pytest.mark.parametrize("average", ["blocks", "transformer", "all"])
def test_the_first_teacher_equals_its_student(average):
    config = tiny_config(teacher__average=average)
    objective = make_objective(config)
    optimizer = make_optimizer(config.optimizer, lambda step: 0.0)
    state = jax.jit(lambda key: init_state(objective, optimizer, key))(jax.random.key(0))
    student = traverse_util.flatten_dict(state.params["encoder"])
    teacher = traverse_util.flatten_dict(state.teacher)
    whole = {path for path in student if average == "all" or path[0] == "transformer"}
    assert set(teacher) == whole
    for path, value in teacher.items():
        np.testing.assert_array_equal(value, student[path])
    assert int(state.step) == 0


def parameters(variant: str) -> tuple[int, int]:
    """(encoder, with the head)"""
    shapes = jax.eval_shape(make_objective(read(f"configs/music2vec.py:{variant}")).init, jax.random.key(0))
    return parameter_count(shapes["encoder"]), parameter_count(shapes)


def test_base_has_the_published_number_of_parameters():
    """93,164,288 in transformers' data2vec-audio-base; the head adds a 768 x 768 linear layer."""
    assert parameters("base") == (93_164_288, 93_164_288 + 768 * 768 + 768)


@pytest.mark.parametrize(
    ("variant", "width", "ffn", "layers", "millions"), [("large", 1024, 4096, 24, 313), ("xlarge", 1280, 5120, 48, 959)]
)
def test_larger_models_have_the_number_of_parameters_of_their_sizes(variant, width, ffn, layers, millions):
    convolutions = 512 * 10 + 4 * 512 * 512 * 3 + 2 * 512 * 512 * 2 + 7 * 2 * 512
    projection = 2 * 512 + 512 * width + width
    positions = 5 * (width * width // 16 * 19 + width)
    block = 4 * (width * width + width) + 2 * width * ffn + ffn + width + 4 * width
    encoder = convolutions + projection + positions + layers * block + 2 * width + width  # norm, mask embedding
    assert parameters(variant) == (encoder, encoder + width * width + width)
    assert round(encoder / 1e6) == millions
