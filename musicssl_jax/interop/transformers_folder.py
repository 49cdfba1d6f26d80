"""transformers' folders: Data2VecAudioModel and HubertModel, read and written without PyTorch.

A written folder holds config.json, model.safetensors, preprocessor_config.json and README.md, which transformers
loads, and two files that it passes over: musicssl.json and musicssl.safetensors (`extras`), with which the folder is
read back here whole.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from musicssl_jax.errors import UserError, shortened
from musicssl_jax.interop.extras import Packed, completed, pack, prefixed, unpack
from musicssl_jax.interop.key_map import Shapes, Table, dtypes_of, places, read_tensors, write_tensors
from musicssl_jax.interop.model_card import model_card
from musicssl_jax.interop.pretrained import Origin, Pretrained, Tensors, shapes_of
from musicssl_jax.interop.recognise import what_it_seems
from musicssl_jax.interop.torch_files import load_torch_file, to_numpy
from musicssl_jax.interop.transformers_config import read_config, write_config, write_preprocessor
from musicssl_jax.interop.writing import whole_folder
from musicssl_jax.targets.codebook import save_codebook
from musicssl_jax.targets.names import set_name

CONFIG, PREPROCESSOR, CARD = "config.json", "preprocessor_config.json", "README.md"
TENSORS, BIN = "model.safetensors", "pytorch_model.bin"
EXTRA_VALUES, EXTRA_TENSORS = "musicssl.json", "musicssl.safetensors"
PREFIXES = ("data2vec_audio.", "hubert.")
OLD_NAMES = {"conv.weight_g": "conv.parametrizations.weight.original0"}
OLD_NAMES |= {"conv.weight_v": "conv.parametrizations.weight.original1"}
MASK_EMBEDDING = "masked_spec_embed"


def key_table(model: Any) -> Table:
    """transformers' name of each of our encoder's modules, for the fields of `config.model`."""
    block, ours = "encoder.layers.{}", "encoder/transformer/blocks"
    table = {
        "encoder/mask_embedding": MASK_EMBEDDING,
        "encoder/conv_encoder/layer{}": "feature_extractor.conv_layers.{}.conv",
        "encoder/conv_encoder/layer{}/norm": "feature_extractor.conv_layers.{}.layer_norm",
        "encoder/feature_norm": "feature_projection.layer_norm",
        "encoder/projection": "feature_projection.projection",
        "encoder/transformer/norm": "encoder.layer_norm",
        f"{ours}/attention/query": f"{block}.attention.q_proj",
        f"{ours}/attention/key": f"{block}.attention.k_proj",
        f"{ours}/attention/value": f"{block}.attention.v_proj",
        f"{ours}/attention/out": f"{block}.attention.out_proj",
        f"{ours}/attention_norm": f"{block}.layer_norm",
        f"{ours}/feed_in": f"{block}.feed_forward.intermediate_dense",
        f"{ours}/feed_out": f"{block}.feed_forward.output_dense",
        f"{ours}/feed_norm": f"{block}.final_layer_norm",
    }
    positional = "encoder/transformer/positional/layer{}"
    if model.positional == "stacked":
        return table | {positional: "encoder.pos_conv_embed.layers.{}.conv"}
    return table | {
        f"{positional}/gain": "encoder.pos_conv_embed.conv.parametrizations.weight.original0",
        f"{positional}/kernel": "encoder.pos_conv_embed.conv.parametrizations.weight.original1",
        f"{positional}/bias": "encoder.pos_conv_embed.conv.bias",
    }


def read_transformers(folder: Path) -> Pretrained:
    """The model in a transformers folder, with what `write_transformers` put beside it, if anything.

    UserError: another model; files missing, damaged, or outside of the folder.
    """
    theirs = _read_json(folder / CONFIG)
    preprocessor = _read_json(folder / PREPROCESSOR) if (folder / PREPROCESSOR).is_file() else None
    config = read_config(theirs, preprocessor, str(folder))
    found = {_todays_name(name): tensor for name, tensor in _read_tensors(folder).items()}
    notes = []
    if preprocessor is None:
        notes.append(f"no {PREPROCESSOR}: do_normalize is taken as {config.data.normalize}, as the family is trained")
    if MASK_EMBEDDING not in found:
        notes.append("it has no mask embedding: a new one is drawn, which only training uses")
        found[MASK_EMBEDDING] = np.random.default_rng(0).uniform(size=config.model.width).astype(np.float32)
    shapes = {name: shape for name, shape in shapes_of(config).items() if name.startswith("encoder/")}
    wanted = places(shapes, key_table(config.model))
    params = read_tensors(found, wanted, str(folder))
    kept = _read_extras(folder, config.objective, shapes, notes)
    if kept is not None:
        return completed(kept, params, {})
    used = {place.theirs for place in wanted}
    foreign = {name: value for name, value in found.items() if name not in used}
    if foreign:
        notes.append(f"left aside, since there is no place for them here: {shortened(sorted(foreign))}")
    dtypes = prefixed("params", dtypes_of(found, wanted))
    origin = Origin("transformers", folder.name, options=theirs, dtypes=dtypes, foreign=foreign)
    return Pretrained(config, params, {}, (), 0, {}, origin, tuple(notes))


def write_transformers(model: Pretrained, folder: Path, *, license: str, scores: Mapping[str, float]) -> list[str]:
    """Writes the folder, whole or not at all; what it has to say, for the user.

    license: of the model card, as the user gave it; empty: left open. scores: of an evaluation, by task.
    UserError: transformers has no such class, or the folder cannot be written.
    """
    before = model.origin.options if model.origin.kind == "transformers" else {}
    dtypes = {name.removeprefix("params/"): dtype for name, dtype in model.origin.dtypes.items()}
    tensors = write_tensors(model.params, key_table(model.config.model), dtypes)
    stored = {str(value.dtype) for value in tensors.values()}
    config_json = write_config(model.config, before, stored.pop() if len(stored) == 1 else "float32")
    encoder = [f"params/{name}" for name in model.params if name.startswith("encoder/")]
    packed = pack(model, encoder)
    with whole_folder(folder) as unfinished:
        _write_json(unfinished / CONFIG, config_json)
        _write_json(unfinished / PREPROCESSOR, write_preprocessor(model.config))
        _write_tensors(unfinished / TENSORS, tensors)
        _write_json(unfinished / EXTRA_VALUES, packed.values)
        _write_tensors(unfinished / EXTRA_TENSORS, packed.arrays)
        for target, codebook in zip(model.config.get("targets", ()), model.codebooks, strict=False):
            save_codebook(unfinished / "codebooks" / f"{set_name(target)}_k{len(codebook.centroids)}", codebook)
        (unfinished / CARD).write_text(model_card(model, license=license, scores=scores))
    left = [name for name in model.params if not name.startswith("encoder/")]
    heads = f"{EXTRA_TENSORS} holds what transformers has no place for: {shortened(sorted(left))}" if left else ""
    return [heads] if heads else []


def _todays_name(name: str) -> str:
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    for old, today in OLD_NAMES.items():
        if name.endswith(f"pos_conv_embed.{old}"):
            name = name.removesuffix(old) + today
    return name


def _read_tensors(folder: Path) -> Tensors:
    """All tensors of the model: in one file or several, safetensors where there are any."""
    for whole in (TENSORS, BIN):
        if (folder / whole).is_file():
            return _read_file(folder / whole)
        if (folder / f"{whole}.index.json").is_file():
            return _read_several(folder, f"{whole}.index.json")
    raise UserError(f"{folder} has a {CONFIG} and neither {TENSORS} nor {BIN}: copy the whole folder")


def _read_several(folder: Path, index_name: str) -> Tensors:
    """The tensors of all files that an index names; none of them may lie elsewhere."""
    index = _read_json(folder / index_name).get("weight_map")
    if not isinstance(index, dict) or not index:
        raise UserError(f"{folder / index_name} has no weight_map: it is damaged")
    tensors: Tensors = {}
    for name in sorted(set(map(str, index.values()))):
        if Path(name).name != name or name in ("", ".", "..") or "\\" in name:
            raise UserError(f"{folder / index_name} names {name!r}, which is no file of the folder: refused")
        tensors |= _read_file(folder / name)
    if missing := sorted(set(index) - set(tensors)):
        raise UserError(f"{folder}: the files that {index_name} names lack {shortened(missing)}")
    return tensors


def _read_file(path: Path) -> Tensors:
    if not path.is_file():
        raise UserError(f"{path} is missing: copy the whole folder")
    with path.open("rb") as file:
        if seems := what_it_seems(file.read(64)):
            raise UserError(f"{path} {seems}")
    if path.suffix != ".safetensors":
        return {name: to_numpy(t) for name, t in load_torch_file(path).items() if hasattr(t, "detach")}
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise UserError(f"{path} is damaged or cut short ({error}): copy it again") from None


def _read_extras(folder: Path, objective: str, encoder: Shapes, notes: list[str]) -> Pretrained | None:
    """What was written beside the model, unless config.json has become another model's."""
    if not (folder / EXTRA_VALUES).is_file():
        return None
    packed = Packed(_read_json(folder / EXTRA_VALUES), _read_file(folder / EXTRA_TENSORS))
    kept = unpack(packed, str(folder / EXTRA_VALUES))
    if kept.config.objective != objective or not encoder.items() <= shapes_of(kept.config).items():
        notes.append(f"{EXTRA_VALUES} belongs to another model and is not used")
        return None
    return kept


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}): copy it again") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is no JSON object: copy it again")
    return content


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


def _write_tensors(path: Path, tensors: Tensors) -> None:
    from safetensors.numpy import save_file

    save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, path, metadata={"format": "pt"})
    path.chmod(0o644)  # the library makes it its owner's alone
