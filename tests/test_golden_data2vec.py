"""music2vec against fairseq's own figures, through the step that `train.py` jits.

Tolerances: two float32 programs drift apart, losses by about 1e-4 relative over these steps and step-0
gradients by about 1e-3 of each tensor's largest entry (golden/README.md). Forward passes agree to 1e-4 of the
layer's largest value.
"""

import golden_reference
import jax.numpy as jnp
import numpy as np
import pytest
from golden_reference import (
    assert_close,
    assert_gradients_agree,
    assert_parameters_agree,
    encoder_config,
    parameters,
)

from musicssl_jax.models.data2vec import Data2Vec, LossConfig, TargetConfig, TeacherConfig
from musicssl_jax.models.encoder import hidden_states
from musicssl_jax.models.masking import MaskConfig

FILES = golden_reference.files("data2vec")


def objective_of(options: dict, clips: int) -> Data2Vec:
    """The objective that a reference file's options describe."""
    get = options.get
    model = encoder_config(options, positional="stacked", positional_depth=options["pos_conv_depth"])
    average = "blocks" if get("ema_layers_only", True) else "transformer"
    if not get("ema_transformer_only", True) and not get("ema_layers_only", True):
        average = "all"
    return Data2Vec(
        model=model,
        mask=MaskConfig(options["mask_prob"], options["mask_length"], 1, 0, get("mask_dropout", 0.0), 0.0, 10),
        target=TargetConfig(
            top_k=options["average_top_k_layers"],
            batch_norm_layer=get("batch_norm_target_layer", False),
            instance_norm_layer=get("instance_norm_target_layer", False),
            group_norm_layer=get("group_norm_target_layer", False),
            layer_norm_layer=get("layer_norm_target_layer", False),
            layer_norm=get("layer_norm_targets", False),
            instance_norm=get("instance_norm_targets", False),
        ),
        teacher=TeacherConfig(
            options["ema_decay"], options["ema_end_decay"], options["ema_anneal_end_step"], average, 1
        ),
        regression=LossConfig(get("loss_beta", 0.0), get("loss_scale") or 0.0),
        clips=clips,
        normalize=False,
    )


def teacher_of(reference, prefix, objective):
    root = "" if objective.teacher.average == "all" else "encoder."
    return parameters(reference, prefix, root=root)["encoder"]


@pytest.fixture(scope="module", params=FILES, ids=lambda path: path.stem)
def case(request):
    """(reference arrays, options, objective) of one file."""
    reference, options = golden_reference.load(request.param)
    return reference, options, objective_of(options, clips=reference["source"].shape[1])


@pytest.fixture(scope="module")
def trained(case):
    reference, options, objective = case
    teacher = teacher_of(reference, "teacher/", objective)
    return golden_reference.train(objective, reference, options, teacher, lambda step: {})


def test_golden_data2vec_features_agree(case):
    reference, _, objective = case
    states = hidden_states(objective.encoder(parameters(reference, "student/")), jnp.asarray(reference["source"][0]))
    assert_close(states["conv"], reference["features/conv"], 1e-4, "conv")
    for i, (ffn, output) in enumerate(
        zip(reference["features/ffn_outputs"], reference["features/layer_outputs"], strict=True)
    ):
        assert_close(states["ffn"][i], ffn, 1e-4, f"ffn {i}")
        assert_close(states["hidden"][i + 1], output, 1e-4, f"block {i}")
    assert_close(states["last"], reference["features/last"], 1e-4, "last")


def test_golden_data2vec_padded_clips_agree(case):
    reference, _, objective = case
    source, lengths = reference["source"][0].copy(), reference["padded/lengths"]
    for row, length in zip(source, lengths, strict=True):
        row[length:] = 0
    encoder = objective.encoder(parameters(reference, "student/"))
    states = hidden_states(encoder, jnp.asarray(source), jnp.asarray(lengths, jnp.int32))
    padding = reference["padded/frame_padding"]
    np.testing.assert_array_equal(states["padding"], padding)
    got, want = np.asarray(states["last"]), reference["padded/last"]
    assert_close(got[~padding], want[~padding], 1e-4, "valid frames of a padded batch")


def test_golden_data2vec_first_predictions_agree(case):
    reference, _, objective = case
    student = objective.student(parameters(reference, "student/"))
    encoder, mask = student.encoder, jnp.asarray(reference["mask"][0])
    frames = encoder.project(encoder.features(jnp.asarray(reference["source"][0])))
    embedded = encoder.transformer.embed(encoder.mask(frames, mask, None, None))
    predictions = student.head(encoder.transformer.encode(embedded)[0])[mask]
    assert_close(predictions, reference["step0/pred"], 1e-4, "predictions")


def test_golden_data2vec_first_gradients_agree(case, trained):
    reference, options, _ = case
    states, _ = trained
    assert_gradients_agree(states, reference, options)


def test_golden_data2vec_curves_agree(case, trained):
    reference, _, _ = case
    _, metrics = trained
    for name, key, relative in [
        ("train/loss", "losses", 2e-4),
        ("train/grad_norm", "grad_norm", 1e-3),
        ("target/spread", "target_var", 2e-4),
        ("prediction/spread", "pred_var", 5e-4),
        ("teacher/decay", "ema_decay", 1e-6),
        ("train/learning_rate", "lr", 1e-6),
    ]:
        np.testing.assert_allclose([row[name] for row in metrics], reference[key], rtol=relative, err_msg=name)


def test_golden_data2vec_final_student_and_teacher_agree(case, trained):
    reference, _, objective = case
    states, _ = trained
    assert_parameters_agree(states[-1].params, parameters(reference, "final/student/"))
    assert_parameters_agree(states[-1].teacher, teacher_of(reference, "final/teacher/", objective))
