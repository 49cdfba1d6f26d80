"""musicHuBERT against fairseq's own figures, through the step that `train.py` jits.

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

from musicssl_jax.models.encoder import hidden_states
from musicssl_jax.models.hubert import Hubert, PredictionConfig
from musicssl_jax.models.masking import MaskConfig

FILES = golden_reference.files("hubert")


def objective_of(options: dict, clips: int) -> Hubert:
    """The objective that a reference file's options describe."""
    [penalty] = options["loss_weights"]
    return Hubert(
        model=encoder_config(options, positional="weight_norm", positional_depth=1),
        mask=MaskConfig(options["mask_prob"], options["mask_length"], 2, 0, 0.0, 0.0, 10),
        prediction=PredictionConfig(
            width=options["final_dim"],
            temperature=options["logit_temp"],
            untied=options["untie_final_proj"],
            masked_weight=options["pred_masked_weight"],
            unmasked_weight=options["pred_nomask_weight"],
            feature_penalty=penalty,
            log_unmasked=not options["skip_nomask"],
            regression_weight=0.0,
        ),
        names=tuple(str(i) for i in range(len(options["classes"]))),
        classes=tuple(options["classes"]),
        clips=clips,
    )


def labels_at_frames(reference: dict, options: dict, step: int) -> np.ndarray:
    """(B, T, sets): of encoder frame i label number floor(i * label_rate / 50) (reference: feat2tar_ratio)."""
    frames = np.arange(reference["mask"].shape[2])
    picked = (frames * options["label_rate"] / 50).astype(int)
    return np.stack([reference[f"labels/{i}"][step][:, picked] for i in range(len(options["classes"]))], axis=-1)


@pytest.fixture(scope="module", params=FILES, ids=lambda path: path.stem)
def case(request):
    """(reference arrays, options, objective) of one file."""
    reference, options = golden_reference.load(request.param)
    return reference, options, objective_of(options, clips=reference["source"].shape[1])


@pytest.fixture(scope="module")
def trained(case):
    reference, options, objective = case
    extra = lambda step: {"labels": labels_at_frames(reference, options, step).astype(np.int32)}  # noqa: E731
    return golden_reference.train(objective, reference, options, {}, extra)


def test_golden_hubert_features_agree(case):
    reference, _, objective = case
    source = jnp.asarray(reference["source"][0])
    states = hidden_states(objective.encoder(parameters(reference, "student/")), source)
    for i, output in enumerate(reference["features/layer_outputs"]):
        assert_close(states["hidden"][i + 1], output, 1e-4, f"block {i}")
    assert_close(states["last"], reference["features/last"], 1e-4, "last")
    final = hidden_states(objective.encoder(parameters(reference, "final/student/")), source)
    for i, output in enumerate(reference["final/features/layer_outputs"]):
        assert_close(final["hidden"][i + 1], output, 1e-4, f"block {i} after the last step")


def test_golden_hubert_first_gradients_agree(case, trained):
    reference, options, _ = case
    assert_gradients_agree(trained[0], reference, options)


def test_golden_hubert_curves_agree(case, trained):
    reference, _, objective = case
    _, metrics = trained
    logged = {
        "train/loss": (reference["losses"], 2e-4),
        "train/grad_norm": (reference["grad_norm"], 1e-3),
        "train/learning_rate": (reference["lr"], 1e-6),
    }
    penalty = objective.prediction.feature_penalty
    logged["features/penalty"] = (reference["loss_features_pen"] / penalty, 2e-4)
    for i, name in enumerate(objective.names):
        logged[f"{name}/loss"] = (reference["loss_masked"][i], 2e-4)
        # One frame more or less may be right where two logits nearly tie.
        frame = 1.5 / reference["sample_size"].min()
        np.testing.assert_allclose(
            [row[f"{name}/accuracy"] for row in metrics], reference["accuracy_masked"][i], atol=frame
        )
    for name, (want, relative) in logged.items():
        np.testing.assert_allclose([row[name] for row in metrics], want, rtol=relative, err_msg=name)


def test_golden_hubert_final_parameters_agree(case, trained):
    reference, _, _ = case
    assert_parameters_agree(trained[0][-1].params, parameters(reference, "final/student/"))
