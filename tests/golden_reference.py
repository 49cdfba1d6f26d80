"""The reference figures of `MUSICSSL_GOLDEN` (default: tests/golden), and fairseq's names for our parameters.

The names stand here once more than in `musicssl_jax.interop`, so that each map is held to figures that the other did
not read.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np

from musicssl_jax.interop.fairseq_config import parse_conv_layers
from musicssl_jax.models.encoder import EncoderConfig
from musicssl_jax.parallel import make_mesh, path_name
from musicssl_jax.training.optimizer import make_optimizer
from musicssl_jax.training.state import TrainState
from musicssl_jax.training.step import make_train_step

FOLDER = Path(os.environ.get("MUSICSSL_GOLDEN", Path(__file__).parent / "golden"))

_NORM = (("scale", "weight"), ("bias", "bias"))
_KERNEL = (("kernel", "weight"), ("bias", "bias"))
_MODULES = (
    ("encoder/conv_encoder/layer{i}", "feature_extractor.conv_layers.{i}.0", _KERNEL),
    ("encoder/conv_encoder/layer{i}/norm", "feature_extractor.conv_layers.{i}.2.1", _NORM),
    ("encoder/conv_encoder/layer{i}/norm", "feature_extractor.conv_layers.{i}.2", _NORM),
    ("encoder/feature_norm", "layer_norm", _NORM),
    ("encoder/projection", "post_extract_proj", _KERNEL),
    ("encoder/transformer/positional/layer{i}", "encoder.pos_conv.{i}.0", _KERNEL),
    (
        "encoder/transformer/positional/layer0",
        "encoder.pos_conv.0",
        (("kernel", "weight_v"), ("gain", "weight_g"), ("bias", "bias")),
    ),
    ("encoder/transformer/norm", "encoder.layer_norm", _NORM),
    ("encoder/transformer/blocks/attention/query", "encoder.layers.{i}.self_attn.q_proj", _KERNEL),
    ("encoder/transformer/blocks/attention/key", "encoder.layers.{i}.self_attn.k_proj", _KERNEL),
    ("encoder/transformer/blocks/attention/value", "encoder.layers.{i}.self_attn.v_proj", _KERNEL),
    ("encoder/transformer/blocks/attention/out", "encoder.layers.{i}.self_attn.out_proj", _KERNEL),
    ("encoder/transformer/blocks/attention_norm", "encoder.layers.{i}.self_attn_layer_norm", _NORM),
    ("encoder/transformer/blocks/feed_in", "encoder.layers.{i}.fc1", _KERNEL),
    ("encoder/transformer/blocks/feed_out", "encoder.layers.{i}.fc2", _KERNEL),
    ("encoder/transformer/blocks/feed_norm", "encoder.layers.{i}.final_layer_norm", _NORM),
    ("head", "final_proj", _KERNEL),
)


def files(kind: str) -> list[Path]:
    """Every `KIND_*.npz` of the folder that has its options beside it; none is an error."""
    found = [path for path in sorted(FOLDER.glob(f"{kind}_*.npz")) if path.with_suffix(".json").exists()]
    if not found:
        raise FileNotFoundError(f"no {kind}_*.npz with a .json in {FOLDER} (set by MUSICSSL_GOLDEN)")
    return found


def load(path: Path) -> tuple[dict[str, np.ndarray], dict]:
    """(arrays, options) of a reference file."""
    with np.load(path) as arrays:
        return {name: arrays[name] for name in arrays.files}, json.loads(path.with_suffix(".json").read_text())


def _layout(array: np.ndarray, name: str) -> np.ndarray:
    """PyTorch's (out, in[, k]) to ours ([k,] in, out); vectors as they are."""
    return array.transpose() if name.startswith("weight") and array.ndim > 1 else array


def ours(reference: dict[str, np.ndarray], prefix: str, *, root: str = "") -> dict[str, np.ndarray]:
    """Our flat parameters ('encoder/projection/kernel' -> array) from the keys under `prefix`.

    `root` is put before fairseq's names: 'encoder.' for the teacher, whose names start inside the encoder.
    """
    named = {root + key.removeprefix(prefix): key for key in reference if key.startswith(prefix)}
    single = {"encoder/mask_embedding": "mask_emb", "label_embeddings": "label_embs_concat"}
    flat = {path: reference[named[name]] for path, name in single.items() if name in named}
    for module, theirs, leaves in _MODULES:
        for leaf, torch_leaf in leaves:
            layers = []
            while (name := f"{theirs}.{torch_leaf}".format(i=len(layers))) in named:
                layers.append(_layout(reference[named[name]], torch_leaf))
                if "{i}" not in theirs:
                    break
            path = f"{module}/{leaf}"
            if "blocks" in path and layers:
                flat[path] = np.stack(layers)
            else:
                flat |= {path.format(i=i): layer for i, layer in enumerate(layers)}
    return flat


def encoder_config(options: dict, **positional) -> EncoderConfig:
    """The encoder that a reference file's options describe, but for its positions."""
    get = options.get
    return EncoderConfig(
        conv_layers=parse_conv_layers(options["conv_feature_layers"]),
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
        positional_kernel=options["conv_pos"],
        positional_groups=options["conv_pos_groups"],
        **positional,
    )


def train(objective, reference: dict, options: dict, teacher: dict, extra: Callable[[int], dict]):
    """(states after each step, metrics of each step) of the jitted train step on the reference's batches.

    `extra`: what the batch of a step holds beside audio and mask, as (row, ...) arrays.
    """
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
    params = parameters(reference, "student/")
    state = TrainState(jnp.zeros((), jnp.int32), params, teacher, optimizer.init(params))
    mesh = make_mesh(1, 1)
    states, metrics = [], []
    with jax.set_mesh(mesh):
        step = make_train_step(objective, optimizer, schedule, mesh, seed=0)
        clips = reference["source"].shape[1]
        for number, (source, mask) in enumerate(zip(reference["source"], reference["mask"], strict=True)):
            batch = {
                "audio": source,
                "mask": mask,
                "mean": np.zeros(clips, np.float32),
                "std": np.ones(clips, np.float32),
                "weight": np.ones(clips, np.float32),
                "row": np.arange(clips, dtype=np.int32),
                **extra(number),
            }
            batch = {name: jnp.asarray(rows)[None] for name, rows in batch.items()}
            state, logged = step(jax.tree.map(jnp.copy, state), (), batch)
            states.append(jax.device_get(state))
            metrics.append(jax.device_get(logged))
    return states, metrics


def first_gradients(states, options: dict) -> dict[str, np.ndarray]:
    """The gradients of step 0, after clipping, out of Adam's first moments."""
    moments = next(s for s in states[0].opt_state if hasattr(s, "mean"))
    return named(jax.tree.map(lambda m: m / (1 - options["adam"]["betas"][0]), moments.mean))


def clip_factor(reference: dict, options: dict) -> float:
    """What the reference multiplied its step-0 gradients by before the optimizer saw them."""
    limit = options["adam"]["clip_norm"]
    return min(1.0, limit / (reference["grad_norm"][0] + 1e-6)) if limit else 1.0


def assert_gradients_agree(states, reference: dict, options: dict) -> None:
    """Step-0 gradients to 1e-3 of each tensor's largest entry."""
    got = first_gradients(states, options)
    want = ours(reference, "step0/grad/")
    assert set(got) == set(want)
    largest = max(np.abs(gradient).max() for gradient in want.values())
    for name, gradient in want.items():
        if name.endswith("attention/key/bias"):  # zero in exact arithmetic
            assert np.abs(got[name]).max() < 1e-5 * largest
        else:
            assert_close(got[name], gradient * clip_factor(reference, options), 1e-3, name)


def assert_parameters_agree(got: dict, want: dict) -> None:
    """Final parameters to 2e-3 of each tensor's largest entry."""
    got, want = named(got), named(want)
    assert set(got) == set(want)
    for name, value in want.items():
        if not name.endswith("attention/key/bias"):  # rounding noise that Adam blows up
            assert_close(got[name], value, 2e-3, name)


def assert_close(got, want, relative: float, what: str) -> None:
    """Largest difference within `relative` of the largest value."""
    want = np.asarray(want)
    worst = np.abs(np.asarray(got) - want).max()
    assert worst <= relative * np.abs(want).max(), f"{what}: off by {worst}, largest {np.abs(want).max()}"


def named(tree) -> dict[str, np.ndarray]:
    """Leaves by slash-separated path."""
    return {path_name(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def parameters(reference: dict[str, np.ndarray], prefix: str, *, root: str = "") -> dict:
    """Our parameters as nested dicts of arrays."""
    return jax.tree.map(jnp.asarray, nested(ours(reference, prefix, root=root)))


def nested(flat: dict[str, np.ndarray]) -> dict:
    """Nested dicts from slash-separated names."""
    tree: dict = {}
    for path, array in flat.items():
        *parents, leaf = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = array
    return tree
