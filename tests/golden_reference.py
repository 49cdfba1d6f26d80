"""The reference figures of `MUSICSSL_GOLDEN` (default: tests/golden), and fairseq's names for our parameters."""

import ast
import json
import operator
import os
from pathlib import Path

import numpy as np

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


def conv_layers(text: str) -> tuple[tuple[int, int, int], ...]:
    """Reads fairseq's '[(512,10,5)] + [(512,3,2)] * 4' without running it."""

    def value(node):
        if isinstance(node, ast.BinOp):
            op = {ast.Add: operator.add, ast.Mult: operator.mul}[type(node.op)]
            return op(value(node.left), value(node.right))
        return ast.literal_eval(node)

    return tuple(value(ast.parse(text, mode="eval").body))


def _layout(array: np.ndarray, name: str) -> np.ndarray:
    """PyTorch's (out, in[, k]) to ours ([k,] in, out); vectors as they are."""
    return array.transpose() if name.endswith("weight") and array.ndim > 1 else array


def ours(reference: dict[str, np.ndarray], prefix: str, *, root: str = "") -> dict[str, np.ndarray]:
    """Our flat parameters ('encoder/projection/kernel' -> array) from the keys under `prefix`.

    `root` is put before fairseq's names: 'encoder.' for the teacher, whose names start inside the encoder.
    """
    named = {root + key.removeprefix(prefix): key for key in reference if key.startswith(prefix)}
    flat = {"encoder/mask_embedding": reference[named["mask_emb"]]} if "mask_emb" in named else {}
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
