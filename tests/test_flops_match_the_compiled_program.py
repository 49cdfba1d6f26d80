"""The analytic FLOP counts against what XLA counts in the compiled program, and against published figures.

XLA also counts elementwise work (norms, GELU, softmax, residuals), a few percent at these widths, so its figure
lies above. It counts a scan's body once, whence the models of one block. Nothing is run: shapes suffice.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from musicssl_jax.config import read
from musicssl_jax.flops import PEAKS, conv_flops, encoder_flops, peak_flops, transformer_flops, update_flops
from musicssl_jax.models.conv_encoder import frame_count
from musicssl_jax.models.objective import make_objective

SECONDS = 5
SAMPLES = SECONDS * 16_000


def objective_of(variant="crop5s", **fields):
    """A variant's objective in float32 with one clip in a batch; `fields` have __ for the dot."""
    config = read(f"configs/music2vec.py:{variant}").unlock()
    changes = {"precision": "float32", "batch.clips": 1} | {k.replace("__", "."): v for k, v in fields.items()}
    config.update_from_flattened_dict(changes)
    return make_objective(config)


def one_block(variant="crop5s", **fields):
    return objective_of(variant, model__layers=1, target__top_k=1, model__layer_drop=0.0, **fields)


def on_padding(model) -> int:
    """Of the positional convolutions, with the padding's zeros: our count has them, XLA's has not. Of 19 taps 1 to 9
    lie outside at either end."""
    half = max(3, model.positional_kernel // model.positional_depth) // 2
    return model.positional_depth * 2 * half * (half + 1) * model.width**2 // model.positional_groups


def compiled_flops(function, *arguments) -> float:
    return jax.jit(function).lower(*arguments).compile().cost_analysis()["flops"]


@pytest.mark.parametrize("variant", ["crop5s", "large"])
def test_encoder_and_its_parts_match(variant):
    objective = one_block(variant, model__dropout=0.0, model__attention_dropout=0.0)
    model = objective.model
    params = jax.eval_shape(objective.init, jax.random.key(0))
    waveform = jax.ShapeDtypeStruct((1, SAMPLES), jnp.float32)
    # As in training: in evaluation, a CPU's attention is a loop over heads, whose body XLA counts once.
    keys = jax.random.split(jax.random.key(0), 1)

    def embed(encoder, x):
        return encoder.transformer.embed(encoder.project(encoder.features(x)))

    convolutions = compiled_flops(lambda p, x: objective.encoder(p).features(x), params, waveform)
    embedded = compiled_flops(lambda p, x: embed(objective.encoder(p), x), params, waveform)
    whole = compiled_flops(
        lambda p, x: (lambda e: e.transformer.encode(embed(e, x), keys=keys)[0])(objective.encoder(p)), params, waveform
    )
    no_block = dataclasses.replace(model, layers=0)
    frames = frame_count(SAMPLES, model.conv_layers)
    block = transformer_flops(model, frames) - transformer_flops(no_block, frames)
    between = encoder_flops(no_block, SAMPLES) - conv_flops(model, SAMPLES) - on_padding(model)
    for counted, analytic, elementwise in [
        (convolutions, conv_flops(model, SAMPLES), 0.055),
        (embedded - convolutions, between, 0.03),
        (whole - embedded, block, 0.025),
        (whole, encoder_flops(model, SAMPLES) - on_padding(model), 0.05),
    ]:
        assert 0.995 < counted / analytic < 1 + elementwise


def test_blocks_count_alike():
    eight, nine, twenty = (encoder_flops(objective_of(model__layers=n).model, SAMPLES) for n in (8, 9, 20))
    assert twenty - eight == 12 * (nine - eight)


@pytest.mark.parametrize("average", ["blocks", "all"])
def test_an_update_matches(average):
    """No gradient with respect to the waveform is computed, which weighs less than the elementwise work."""
    objective = one_block(teacher__average=average)
    params = jax.eval_shape(objective.init, jax.random.key(0))
    teacher = jax.eval_shape(objective.init_teacher, params)
    row = jax.ShapeDtypeStruct((1,), jnp.float32)
    batch = dict.fromkeys(("mean", "std", "weight"), row) | {
        "audio": jax.ShapeDtypeStruct((1, SAMPLES), jnp.int16),
        "row": jax.ShapeDtypeStruct((1,), jnp.int32),
    }
    key = jax.eval_shape(lambda: jax.random.key(0))

    def gradient(params, teacher, batch, key):
        return jax.grad(lambda p: objective.loss(p, teacher, (), batch, key)[0])(params)

    counted = compiled_flops(gradient, params, teacher, batch, key)
    assert 0.97 < counted / update_flops(objective, SAMPLES) < 1.06


def test_an_update_costs_as_many_clips_as_it_has():
    one, many = (update_flops(objective_of(batch__clips=n), SAMPLES) for n in (1, 112))
    assert many == pytest.approx(112 * one)


@pytest.mark.parametrize(
    ("variant", "forward", "convolutions", "update"), [("crop5s", 14.2, 4.91, 51.9), ("base", 16.5, 4.91, 61.3)]
)
def test_the_base_model_costs_what_was_measured_elsewhere(variant, forward, convolutions, update):
    """GFLOP per second of audio at 5 s and 30 s clips, counted by torch in transformers' model."""
    objective = objective_of(variant)
    seconds = {"crop5s": 5, "base": 30}[variant]
    samples = seconds * 16_000
    got = [encoder_flops(objective.model, samples), conv_flops(objective.model, samples)]
    np.testing.assert_allclose(np.array(got) / seconds / 1e9, [forward, convolutions], rtol=0.01)
    assert update_flops(objective, samples) / seconds / 1e9 == pytest.approx(update, rel=0.01)


def test_a_device_without_data_sheet_is_measured():
    """At any moment the machine may be busy, hence the wide bounds."""
    assert 1e8 < peak_flops(jax.devices()[0], "float32") < 1e14


def test_the_longest_device_kind_is_found_first():
    kinds = list(PEAKS)
    assert not [(a, b) for i, a in enumerate(kinds) for b in kinds[i + 1 :] if b.startswith(a)]
