"""fairseq's options and ours: one table for each group of fields, used in both directions."""

import ast
import operator
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from musicssl_jax import config as configs
from musicssl_jax.config_checks import check
from musicssl_jax.errors import UserError
from musicssl_jax.models.conv_encoder import ConvLayers, hop_and_receptive_field

MODELS = {"data2vec_audio": "configs/music2vec.py:base", "hubert": "configs/musichubert.py:k500"}
"""fairseq's name of a model, and the config whose fields stand where a file says nothing."""
NAMES = {"data2vec": "data2vec_audio", "hubert": "hubert"}
TASKS = {"data2vec": "audio_pretraining", "hubert": "hubert_pretraining"}

# Ours: (group of fairseq's cfg, field there).
COMMON = {
    "model.conv_bias": ("model", "conv_bias"),
    "model.width": ("model", "encoder_embed_dim"),
    "model.ffn": ("model", "encoder_ffn_embed_dim"),
    "model.heads": ("model", "encoder_attention_heads"),
    "model.layers": ("model", "encoder_layers"),
    "model.norm_first": ("model", "layer_norm_first"),
    "model.dropout": ("model", "dropout"),
    "model.attention_dropout": ("model", "attention_dropout"),
    "model.activation_dropout": ("model", "activation_dropout"),
    "model.input_dropout": ("model", "dropout_input"),
    "model.layer_drop": ("model", "encoder_layerdrop"),
    "model.feature_grad_mult": ("model", "feature_grad_mult"),
    "model.positional_kernel": ("model", "conv_pos"),
    "model.positional_groups": ("model", "conv_pos_groups"),
    "mask.prob": ("model", "mask_prob"),
    "mask.length": ("model", "mask_length"),
    "mask.channel_prob": ("model", "mask_channel_prob"),
    "mask.channel_length": ("model", "mask_channel_length"),
    "data.sample_rate": ("task", "sample_rate"),
    "data.normalize": ("task", "normalize"),
    "optimizer.eps": ("optimizer", "adam_eps"),
    "optimizer.weight_decay": ("optimizer", "weight_decay"),
    "optimizer.clip_norm": ("optimization", "clip_norm"),
    "steps": ("optimization", "max_update"),
}
OF_OBJECTIVE = {
    "data2vec": {
        "mask.dropout": ("model", "mask_dropout"),
        "target.top_k": ("model", "average_top_k_layers"),
        "target.instance_norm_layer": ("model", "instance_norm_target_layer"),
        "target.batch_norm_layer": ("model", "batch_norm_target_layer"),
        "target.layer_norm_layer": ("model", "layer_norm_target_layer"),
        "target.group_norm_layer": ("model", "group_norm_target_layer"),
        "target.layer_norm": ("model", "layer_norm_targets"),
        "target.instance_norm": ("model", "instance_norm_targets"),
        "loss.beta": ("model", "loss_beta"),
        "teacher.decay": ("model", "ema_decay"),
        "teacher.end_decay": ("model", "ema_end_decay"),
        "teacher.anneal_steps": ("model", "ema_anneal_end_step"),
    },
    "hubert": {
        "prediction.temperature": ("model", "logit_temp"),
        "prediction.untied": ("model", "untie_final_proj"),
        "prediction.masked_weight": ("criterion", "pred_masked_weight"),
        "prediction.unmasked_weight": ("criterion", "pred_nomask_weight"),
    },
}
REQUIRED = ("encoder_layers", "encoder_embed_dim", "encoder_ffn_embed_dim", "encoder_attention_heads")
UNSUPPORTED = {
    "activation_fn": ("gelu",),
    "layer_type": ("transformer",),
    "conv_pos_batch_norm": (False,),
    "target_glu": (False,),
    "attn_type": ("",),
    "pos_enc_type": ("abs",),
    "adp_num": (-1,),
}
"""Fields that change the model in ways that are not here, and the values that do not."""
LONGEST_STACK = 64


def read_config(cfg: Mapping[str, Mapping[str, Any]], what: str) -> ConfigDict:
    """Our config from fairseq's `cfg`, groups of plain values. UserError: a model that is not one of ours."""
    theirs = cfg["model"]
    name = theirs.get("_name") or theirs.get("arch")
    if not isinstance(name, str) or name not in MODELS:
        raise UserError(f"{what} is a fairseq model of kind {name!r}; known: {', '.join(MODELS)}")
    for field, supported in UNSUPPORTED.items():
        if theirs.get(field, supported[0]) not in supported:
            raise UserError(f"{what} has {field}={theirs[field]!r}, and there is no such model here")
    if missing := [field for field in REQUIRED if field not in theirs]:
        raise UserError(f"{what} has no {', '.join(missing)} among its model's options: it is no complete checkpoint")
    config = configs.read(MODELS[name]).copy_and_resolve_references().unlock()
    config.name = name
    config.precision = "float32"  # in which its features are those that others get
    try:
        for ours, (group, field) in {**COMMON, **OF_OBJECTIVE[config.objective]}.items():
            section, _, leaf = ours.rpartition(".")
            section = config[section] if section else config
            section[leaf] = _as(type(section[leaf]), cfg.get(group, {}).get(field), section[leaf])
        _read_encoder(config, theirs)
        _read_objective(config, theirs, cfg.get("criterion", {}))
        check(config)
    except (TypeError, ValueError, OverflowError, UserError) as error:
        raise UserError(f"{what}: the options of its model make no sense ({error})") from None
    return config.lock()


def _as(kind: type, value: Any, default: Any) -> Any:
    """The value in our field's type; the default where there is none, or an interpolation that nobody resolved."""
    if value is None or (isinstance(value, str) and kind is not str):
        return default
    return kind(value)


def _read_encoder(config: ConfigDict, theirs: Mapping[str, Any]) -> None:
    if "conv_feature_layers" in theirs:
        config.model.conv_layers = parse_conv_layers(theirs["conv_feature_layers"])
    config.model.conv_norm = "layer" if theirs.get("extractor_mode") == "layer_norm" else "group"
    depth = int(theirs.get("pos_conv_depth", 1))
    config.model.positional = "stacked" if depth > 1 else "weight_norm"
    config.model.positional_depth = depth


def _read_objective(config: ConfigDict, theirs: Mapping[str, Any], criterion: Mapping[str, Any]) -> None:
    if config.objective == "data2vec":
        # ema_layers_only switches ema_transformer_only on (make_ema_teacher).
        blocks, transformer = theirs.get("ema_layers_only", True), theirs.get("ema_transformer_only", True)
        config.teacher.average = "blocks" if blocks else "transformer" if transformer else "all"
        config.loss.scale = float(theirs.get("loss_scale") or 0.0)
        config.target.top_k = min(config.target.top_k, config.model.layers)
        return
    config.prediction.width = int(theirs.get("final_dim") or 0) or config.model.width
    config.prediction.log_unmasked = not theirs.get("skip_nomask", False)
    if weights := criterion.get("loss_weights"):
        config.prediction.feature_penalty = float(weights[0])


def write_config(config: ConfigDict) -> dict[str, dict[str, Any]]:
    """fairseq's `cfg` for our config: the groups and fields that its loaders read."""
    model = config.model
    cfg: dict[str, dict[str, Any]] = {
        "model": {
            "_name": NAMES[config.objective],
            "conv_feature_layers": str([tuple(layer) for layer in model.conv_layers]),
            "extractor_mode": "layer_norm" if model.conv_norm == "layer" else "default",
        },
        "task": {"_name": TASKS[config.objective]},
        "criterion": {"_name": "model" if config.objective == "data2vec" else "hubert"},
        "optimizer": {"_name": "adam", "adam_betas": str((config.optimizer.b1, config.optimizer.b2))},
        "optimization": {"lr": [config.schedule.peak]},
        "lr_scheduler": {"_name": "polynomial_decay" if config.schedule.name == "polynomial" else config.schedule.name},
    }
    for ours, (group, field) in {**COMMON, **OF_OBJECTIVE[config.objective]}.items():
        section, _, leaf = ours.rpartition(".")
        cfg[group][field] = (config[section] if section else config)[leaf]
    if model.positional == "stacked":
        cfg["model"]["pos_conv_depth"] = model.positional_depth
    if config.objective == "data2vec":
        average = config.teacher.average
        cfg["model"] |= {"ema_layers_only": average == "blocks", "ema_transformer_only": average != "all"}
        cfg["model"] |= {"loss_scale": config.loss.scale or None, "require_same_masks": config.mask.trim_group > 0}
        cfg["model"]["max_update"] = config.steps
    else:
        cfg["model"] |= {"final_dim": config.prediction.width, "skip_nomask": not config.prediction.log_unmasked}
        rate = config.data.sample_rate / hop_and_receptive_field(model.conv_layers)[0]
        cfg["model"]["label_rate"] = cfg["task"]["label_rate"] = int(rate) if rate == int(rate) else rate
        cfg["task"]["labels"] = [target.replace(":", "").partition("@")[0] for target in config.targets]
        cfg["criterion"]["loss_weights"] = [config.prediction.feature_penalty]
    return cfg


def parse_conv_layers(text: str) -> ConvLayers:
    """Reads fairseq's '[(512,10,5)] + [(512,3,2)] * 4' without running it. UserError: it is nothing of that form."""
    try:
        layers = tuple(tuple(layer) for layer in _value(ast.parse(text, mode="eval").body))
        if not layers or any(len(layer) != 3 or not all(type(n) is int and n > 0 for n in layer) for layer in layers):
            raise ValueError
        return layers
    except (ValueError, TypeError, SyntaxError, KeyError, RecursionError, MemoryError):
        raise UserError(f"conv_feature_layers={text[:200]!r} is no list of (channels, kernel, stride)") from None


def _value(node: ast.AST) -> Any:
    if isinstance(node, ast.BinOp):
        operate = {ast.Add: operator.add, ast.Mult: operator.mul}[type(node.op)]
        left, right = _value(node.left), _value(node.right)
        if any(isinstance(side, int) and side > LONGEST_STACK for side in (left, right)):
            raise ValueError
        return operate(left, right)
    return ast.literal_eval(node)
