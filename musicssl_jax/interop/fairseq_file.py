"""fairseq's checkpoint files (.pt): data2vec audio and HuBERT, read and written.

Layout of a file: `model` (tensors by name; data2vec's teacher as a dict under `_ema`), `cfg` (options by group; `args`
in old files), `task_state` (HuBERT: its dictionaries), `optimizer_history` (updates done). What is ours alone lies
under `musicssl`, which fairseq ignores.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from musicssl_jax.errors import UserError, shortened
from musicssl_jax.interop import label_rows
from musicssl_jax.interop.extras import Packed, completed, pack, prefixed, under, unpack
from musicssl_jax.interop.fairseq_config import read_config, write_config
from musicssl_jax.interop.fairseq_content import TEACHER, dictionaries_of, options_of, tensors_of, updates_of
from musicssl_jax.interop.key_map import Place, Table, dtypes_of, places, read_tensors, write_tensors
from musicssl_jax.interop.pretrained import Origin, Pretrained, Tensors, shapes_of, teacher_shapes_of
from musicssl_jax.interop.torch_files import load_torch_file, save_torch_file, to_numpy, to_torch

EXTRAS = "musicssl"
SPECIAL_ROWS = "special_rows"


def key_table(model: Any) -> Table:
    """fairseq's name of each of our modules, for an encoder with the fields of `config.model`."""
    conv, block = "feature_extractor.conv_layers.{}", "encoder.layers.{}"
    attention = "encoder/transformer/blocks/attention"
    table = {
        "encoder/mask_embedding": "mask_emb",
        "encoder/conv_encoder/layer{}": f"{conv}.0",
        "encoder/conv_encoder/layer{}/norm": f"{conv}.2.1" if model.conv_norm == "layer" else f"{conv}.2",
        "encoder/feature_norm": "layer_norm",
        "encoder/projection": "post_extract_proj",
        "encoder/transformer/norm": "encoder.layer_norm",
        f"{attention}/query": f"{block}.self_attn.q_proj",
        f"{attention}/key": f"{block}.self_attn.k_proj",
        f"{attention}/value": f"{block}.self_attn.v_proj",
        f"{attention}/out": f"{block}.self_attn.out_proj",
        "encoder/transformer/blocks/attention_norm": f"{block}.self_attn_layer_norm",
        "encoder/transformer/blocks/feed_in": f"{block}.fc1",
        "encoder/transformer/blocks/feed_out": f"{block}.fc2",
        "encoder/transformer/blocks/feed_norm": f"{block}.final_layer_norm",
        "head": "final_proj",
        "label_embeddings": label_rows.NAME,
    }
    positional = "encoder/transformer/positional/layer{}"
    if model.positional == "stacked":
        return table | {positional: "encoder.pos_conv.{}.0"}
    return table | {
        f"{positional}/kernel": "encoder.pos_conv.{}.weight_v",
        f"{positional}/gain": "encoder.pos_conv.{}.weight_g",
        f"{positional}/bias": "encoder.pos_conv.{}.bias",
    }


def read_fairseq(path: Path, *, clusters: Sequence[int] = (), dictionary_rows: int | None = None) -> Pretrained:
    """The model in a fairseq checkpoint file.

    clusters: of each label set, dictionary_rows: special rows before those of each set, where the file does not say.
    UserError: not such a file, another model, damaged, or it would run code (`load_torch_file`).
    """
    content = load_torch_file(path)
    found, averaged, spelling = tensors_of(content, path)
    options = options_of(content, path)
    kept = _kept(content, path)
    config = read_config(options, str(path)) if kept is None else kept.config
    notes: list[str] = []
    no_projection = _add_identity_projection(found, config)
    special: Tensors = {}
    rows = None
    if label_rows.NAME in found:
        if kept is None:
            rows = _rows(config, found, dictionaries_of(content.get("task_state")), clusters, dictionary_rows, notes)
            config = _with_label_sets(config, rows, options.get("task", {}).get("labels"))
        else:
            rows = label_rows.from_json(kept.origin.label_rows)
        found[label_rows.NAME], special[SPECIAL_ROWS] = label_rows.split(found[label_rows.NAME], rows)

    table = key_table(config.model)
    wanted = [place for place in places(shapes_of(config), table) if _is_trunk(place) or place.theirs in found]
    params = read_tensors(found, wanted, str(path))
    teacher_wanted = _teacher_places(config, table) if averaged else []
    teacher = read_tensors(averaged, teacher_wanted, f"the teacher (_ema) of {path}")
    teacher = {name.removeprefix("encoder/"): value for name, value in teacher.items()}
    if kept is not None:
        return completed(kept, params, teacher)
    foreign = _rest(found, wanted) | prefixed(TEACHER, _rest(averaged, teacher_wanted))
    if foreign:
        notes.append(f"kept aside, since there is no place for them here: {shortened(sorted(foreign))}")
    if config.objective == "data2vec" and not teacher:
        notes.append("there is no teacher (_ema) in it: a run that begins with it begins with its student as teacher")
    origin = Origin(
        kind="fairseq",
        where=path.name,
        options=options,
        dtypes=prefixed("params", dtypes_of(found, wanted)) | _teacher_dtypes(averaged, teacher_wanted),
        spelling=spelling,
        foreign=foreign | special,
        label_rows=dataclasses.asdict(rows) if rows else {},
        no_projection=no_projection,
    )
    return Pretrained(config, params, teacher, (), updates_of(content), {}, origin, tuple(notes))


def write_fairseq(model: Pretrained, path: Path) -> list[str]:
    """Writes the model as a fairseq checkpoint file; what it says of itself, for the user.

    With its four special rows in front of each set's label embeddings, as fairseq's dictionaries want them, unless the
    model came from a file without. UserError: the file cannot be written.
    """
    notes = []
    model = _with_rows(model)
    table = key_table(model.config.model)
    params = dict(model.params)
    if model.origin.no_projection:
        params = {name: value for name, value in params.items() if not name.startswith("encoder/projection/")}
    elif model.config.objective == "hubert" and model.config.model.conv_layers[-1][0] == model.config.model.width:
        notes.append(
            "the convolutions are as wide as the transformer, where fairseq's HuBERT has no projection: fairseq itself "
            "cannot load this file, and it comes back here whole"
        )
    if (model.config.model.positional, model.config.model.positional_depth) == ("stacked", 1):
        notes.append(
            "fairseq takes positional convolutions of depth 1 for HuBERT's, with weight norm: it cannot load this file "
            "itself, and it comes back here whole"
        )
    tensors = write_tensors(params, table, under("params", model.origin.dtypes))
    if "label_embeddings" in params:
        rows = label_rows.from_json(model.origin.label_rows)
        special = model.origin.foreign[SPECIAL_ROWS]
        tensors[label_rows.NAME] = label_rows.join(tensors[label_rows.NAME], special, rows)
    from_fairseq = model.origin.kind == "fairseq"
    foreign = model.origin.foreign if from_fairseq else {}
    averaged = _write_teacher(model, table) | under(TEACHER, foreign)
    tensors |= {n: v for n, v in foreign.items() if n != SPECIAL_ROWS and not n.startswith(f"{TEACHER}/")}
    named: dict[str, Any] = {_spelt(name, model.origin): to_torch(value) for name, value in tensors.items()}
    if averaged:
        named[TEACHER] = {_spelt(name, model.origin): to_torch(value) for name, value in averaged.items()}
    placed = [f"params/{place.ours}" for place in places({n: v.shape for n, v in model.params.items()}, table)]
    packed = pack(model, {*placed, *(f"teacher/{name}" for name in model.teacher)})
    content = {
        "args": None,
        "cfg": dict(model.origin.options) if from_fairseq else write_config(model.config),
        "model": named,
        "criterion": None,
        "optimizer_history": [{"num_updates": model.step}],
        "task_state": {},
        "extra_state": {"train_iterator": {"epoch": 1}},
        "last_optimizer_state": None,
        EXTRAS: {
            "values": json.dumps(packed.values),
            "arrays": {name: to_torch(value) for name, value in packed.arrays.items()},
        },
    }
    save_torch_file(content, path)
    return notes


def _spelt(name: str, origin: Origin) -> str:
    return origin.spelling.get(name, name) if origin.kind == "fairseq" else name


def _kept(content: Mapping[str, Any], path: Path) -> Pretrained | None:
    extras = content.get(EXTRAS)
    if not extras:
        return None
    try:
        packed = Packed(json.loads(extras["values"]), {name: to_numpy(t) for name, t in extras["arrays"].items()})
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error!r} in what musicssl_jax keeps there): copy it again") from None
    return unpack(packed, f"what musicssl_jax keeps in {path}")


def _add_identity_projection(found: Tensors, config: ConfigDict) -> bool:
    """fairseq's HuBERT has no projection where conv stack and transformer are equally wide: whether one was added."""
    width = config.model.width
    if "post_extract_proj.weight" in found or config.model.conv_layers[-1][0] != width:
        return False
    found["post_extract_proj.weight"] = np.eye(width, dtype=np.float32)
    found["post_extract_proj.bias"] = np.zeros(width, np.float32)
    return True


def _rows(
    config: ConfigDict,
    found: Tensors,
    dictionaries: list[list[str]],
    clusters: Sequence[int],
    special: int | None,
    notes: list[str],
) -> label_rows.Rows:
    """How the label embeddings divide into sets; what had to be guessed goes into `notes`."""
    total = len(found[label_rows.NAME])
    if dictionaries:
        rows = label_rows.of_dictionaries(dictionaries)
        if sum(rows.clusters) + rows.special * len(rows.clusters) == total:
            return rows
        notes.append("its dictionaries do not fit its label embeddings and are not used")
    sets = len(clusters) or 1
    if config.prediction.untied and "final_proj.weight" in found:
        sets = len(found["final_proj.weight"]) // config.prediction.width
    rows = label_rows.guessed(total, max(sets, 1), clusters, special)
    if not clusters and special is None:
        notes.append(
            f"it has {total} label embeddings and no dictionaries: all are taken as clusters, {rows.clusters}; "
            "--clusters=K[,K] and --dictionary_rows=N tell otherwise"
        )
    return rows


def _with_label_sets(config: ConfigDict, rows: label_rows.Rows, labels: Any) -> ConfigDict:
    """The config with the file's label sets, whose origin nobody knows: they are named, not computed."""
    sets = len(rows.clusters)
    names = labels if isinstance(labels, list) and len(labels) == sets else list(map(str, range(sets)))
    config = config.copy_and_resolve_references().unlock()
    config.clusters = rows.clusters
    config.targets = tuple(f"labels:{name}" for name in names)
    return config.lock()


def _is_trunk(place: Place) -> bool:
    return place.ours.startswith("encoder/")


def _teacher_places(config: ConfigDict, table: Table) -> list[Place]:
    """Where the teacher's parameters lie under `_ema`: names begin inside the encoder unless all is averaged."""
    shapes = {f"encoder/{name}": shape for name, shape in teacher_shapes_of(config).items()}
    root = "" if config.teacher.average == "all" else "encoder."
    return [place._replace(theirs=place.theirs.removeprefix(root)) for place in places(shapes, table)]


def _teacher_dtypes(averaged: Tensors, wanted: list[Place]) -> dict[str, str]:
    return {name.replace("encoder/", "teacher/", 1): dtype for name, dtype in dtypes_of(averaged, wanted).items()}


def _write_teacher(model: Pretrained, table: Table) -> Tensors:
    if not model.teacher:
        return {}
    dtypes = {f"encoder/{name}": dtype for name, dtype in under("teacher", model.origin.dtypes).items()}
    averaged = write_tensors({f"encoder/{name}": value for name, value in model.teacher.items()}, table, dtypes)
    root = "" if model.config.teacher.average == "all" else "encoder."
    return {name.removeprefix(root): value for name, value in averaged.items()}


def _rest(found: Tensors, wanted: list[Place]) -> Tensors:
    used = {place.theirs for place in wanted}
    return {name: value for name, value in found.items() if name not in used}


def _with_rows(model: Pretrained) -> Pretrained:
    """The model with a decision on its label embeddings' rows: the ones it came with, or fairseq's four a set."""
    if "label_embeddings" not in model.params or model.origin.label_rows:
        return model
    clusters = tuple(model.config.clusters)
    rows = label_rows.Rows(clusters, len(label_rows.SPECIAL))
    special = label_rows.new_special(len(clusters), model.config.prediction.width)
    origin = dataclasses.replace(
        model.origin, label_rows=dataclasses.asdict(rows), foreign={**model.origin.foreign, SPECIAL_ROWS: special}
    )
    return dataclasses.replace(model, origin=origin)
