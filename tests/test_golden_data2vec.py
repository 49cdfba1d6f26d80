"""music2vec against fairseq's own figures, through the step that `train.py` jits.

Tolerances: two float32 programs drift apart, losses by about 1e-4 relative over these steps and step-0
gradients by about 1e-3 of each tensor's largest entry (golden/README.md). Forward passes agree to 1e-4 of the
layer's largest value.
"""

from types import SimpleNamespace

import golden_reference
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from musicssl_jax.models.data2vec import Data2Vec, LossConfig, TargetConfig, TeacherConfig
from musicssl_jax.models.encoder import EncoderConfig, hidden_states
from musicssl_jax.models.masking import MaskConfig
from musicssl_jax.parallel import make_mesh, path_name
from musicssl_jax.training.optimizer import make_optimizer
from musicssl_jax.training.state import TrainState
from musicssl_jax.training.step import make_train_step

FILES = golden_reference.files("data2vec")


def objective_of(options: dict, clips: int) -> Data2Vec:
    """The objective that a reference file's options describe."""
    get = options.get
    model = EncoderConfig(
        conv_layers=golden_reference.conv_layers(options["conv_feature_layers"]),
        conv_norm="layer" if get("extractor_mode", "layer_norm") == "layer_norm" else "group",
        conv_bias=get("conv_bias", False),
        width=options["encoder_embed_dim"],
        ffn=options["encoder_ffn_embed_dim"],
        heads=options["encoder_attention_heads"],
        layers=options["encoder_layers"],
        norm_first=get("layer_norm_first", False),
        dropout=get("dropout", 0.0),
        attention_dropout=get("attention_dropout", 0.0),
        activation_dropout=get("activation_dropout", 0.0),
        input_dropout=get("dropout_input", 0.0),
        layer_drop=get("encoder_layerdrop", 0.0),
        feature_grad_mult=get("feature_grad_mult", 1.0),
        positional="stacked",
        positional_kernel=options["conv_pos"],
        positional_depth=options["pos_conv_depth"],
        positional_groups=options["conv_pos_groups"],
    )
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


def ours(reference, prefix):
    return jax.tree.map(jnp.asarray, golden_reference.nested(golden_reference.ours(reference, prefix)))


def teacher_of(reference, prefix, objective):
    root = "" if objective.teacher.average == "all" else "encoder."
    tree = jax.tree.map(jnp.asarray, golden_reference.nested(golden_reference.ours(reference, prefix, root=root)))
    return tree["encoder"]


def named(tree) -> dict[str, np.ndarray]:
    return {path_name(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def assert_close(got, want, relative, what):
    want = np.asarray(want)
    worst = np.abs(np.asarray(got) - want).max()
    assert worst <= relative * np.abs(want).max(), f"{what}: off by {worst}, largest {np.abs(want).max()}"


@pytest.fixture(scope="module", params=FILES, ids=lambda path: path.stem)
def case(request):
    """(reference arrays, options, objective) of one file."""
    reference, options = golden_reference.load(request.param)
    return reference, options, objective_of(options, clips=reference["source"].shape[1])


@pytest.fixture(scope="module")
def trained(case):
    """(states after each step, metrics of each step) of the jitted train step on the reference's batches."""
    reference, options, objective = case
    adam = options["adam"]
    optimizer_config = SimpleNamespace(
        name="adam_fairseq",
        b1=adam["betas"][0],
        b2=adam["betas"][1],
        eps=adam["eps"],
        weight_decay=adam["weight_decay"],
        clip_norm=adam["clip_norm"],
    )
    rates = jnp.asarray(reference["lr"], jnp.float32)
    schedule = lambda step: rates[step]  # noqa: E731
    optimizer = make_optimizer(optimizer_config, schedule)
    params = ours(reference, "student/")
    state = TrainState(
        jnp.zeros((), jnp.int32), params, teacher_of(reference, "teacher/", objective), optimizer.init(params)
    )
    mesh = make_mesh(1, 1)
    states, metrics = [], []
    with jax.set_mesh(mesh):
        step = make_train_step(objective, optimizer, schedule, mesh, seed=0)
        clips = reference["source"].shape[1]
        for source, mask in zip(reference["source"], reference["mask"], strict=True):
            batch = {
                "audio": source[None],
                "mask": mask[None],
                "mean": np.zeros((1, clips), np.float32),
                "std": np.ones((1, clips), np.float32),
                "weight": np.ones((1, clips), np.float32),
                "row": np.arange(clips, dtype=np.int32)[None],
            }
            state, logged = step(jax.tree.map(jnp.copy, state), {}, jax.tree.map(jnp.asarray, batch))
            states.append(jax.device_get(state))
            metrics.append(jax.device_get(logged))
    return states, metrics


def test_golden_data2vec_features_agree(case):
    reference, _, objective = case
    states = hidden_states(objective.encoder(ours(reference, "student/")), jnp.asarray(reference["source"][0]))
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
    encoder = objective.encoder(ours(reference, "student/"))
    states = hidden_states(encoder, jnp.asarray(source), jnp.asarray(lengths, jnp.int32))
    padding = reference["padded/frame_padding"]
    np.testing.assert_array_equal(states["padding"], padding)
    got, want = np.asarray(states["last"]), reference["padded/last"]
    assert_close(got[~padding], want[~padding], 1e-4, "valid frames of a padded batch")


def test_golden_data2vec_first_predictions_agree(case):
    reference, _, objective = case
    student = objective.student(ours(reference, "student/"))
    encoder, mask = student.encoder, jnp.asarray(reference["mask"][0])
    frames = encoder.project(encoder.features(jnp.asarray(reference["source"][0])))
    embedded = encoder.transformer.embed(encoder.mask(frames, mask, None, None))
    predictions = student.head(encoder.transformer.encode(embedded)[0])[mask]
    assert_close(predictions, reference["step0/pred"], 1e-4, "predictions")


def test_golden_data2vec_first_gradients_agree(case, trained):
    reference, options, _ = case
    states, _ = trained
    factor = 1.0
    if options["adam"]["clip_norm"]:
        factor = min(1.0, options["adam"]["clip_norm"] / (reference["grad_norm"][0] + 1e-6))
    moments = next(s for s in states[0].opt_state if hasattr(s, "mean"))
    got = named(jax.tree.map(lambda m: m / (1 - options["adam"]["betas"][0]), moments.mean))
    want = golden_reference.ours(reference, "step0/grad/")
    assert set(got) == set(want)
    largest = max(np.abs(gradient).max() for gradient in want.values())
    for name, gradient in want.items():
        if name.endswith("attention/key/bias"):  # zero in exact arithmetic
            assert np.abs(got[name]).max() < 1e-5 * largest
        else:
            assert_close(got[name], gradient * factor, 1e-3, name)


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
    pairs = [
        (named(states[-1].params), named(ours(reference, "final/student/"))),
        (named(states[-1].teacher), named(teacher_of(reference, "final/teacher/", objective))),
    ]
    for got, want in pairs:
        assert set(got) == set(want)
        for name, value in want.items():
            if not name.endswith("attention/key/bias"):  # rounding noise that Adam blows up
                assert_close(got[name], value, 2e-3, name)
