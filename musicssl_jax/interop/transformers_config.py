"""transformers' config.json and preprocessor_config.json, and ours."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from musicssl_jax import config as configs
from musicssl_jax.config_checks import check
from musicssl_jax.errors import UserError
from musicssl_jax.models.layers import NORM_EPSILON

MODELS = {"data2vec-audio": "configs/music2vec.py:base", "hubert": "configs/musichubert.py:k500"}
"""transformers' model_type, and the config whose fields stand where config.json says nothing."""
TYPES = {"data2vec": "data2vec-audio", "hubert": "hubert"}
CLASSES = {"data2vec": "Data2VecAudioModel", "hubert": "HubertModel"}

FIELDS = {
    "conv_bias": "conv_bias",
    "width": "hidden_size",
    "ffn": "intermediate_size",
    "heads": "num_attention_heads",
    "layers": "num_hidden_layers",
    "dropout": "hidden_dropout",
    "attention_dropout": "attention_dropout",
    "activation_dropout": "activation_dropout",
    "input_dropout": "feat_proj_dropout",
    "layer_drop": "layerdrop",
    "positional_groups": "num_conv_pos_embedding_groups",
}
"""Field of our config.model: transformers' field."""
CONV = ("conv_dim", "conv_kernel", "conv_stride")
UNSUPPORTED = {
    "hidden_act": "gelu",
    "feat_extract_activation": "gelu",
    "layer_norm_eps": NORM_EPSILON,
    "feat_proj_layer_norm": True,
    "conv_pos_batch_norm": False,
    "add_adapter": False,
}
"""Fields that change the model in ways that are not here, and the value that does not."""
VOCABULARY = 32  # of a CTC head that nobody has; transformers insists on a number
MASK_PROB = 0.05  # of fine-tuning; at 0 the class has no mask embedding


def read_config(theirs: Mapping[str, Any], preprocessor: Mapping[str, Any] | None, what: str) -> ConfigDict:
    """Our config from transformers' two. UserError: a model that is not one of ours, or no complete config."""
    kind = theirs.get("model_type")
    if not isinstance(kind, str) or kind not in MODELS:
        raise UserError(f"{what} is a transformers model of type {kind!r}; known: {', '.join(MODELS)}")
    for field, supported in UNSUPPORTED.items():
        if theirs.get(field, supported) != supported:
            raise UserError(f"{what}: config.json has {field}={theirs[field]!r}, and there is no such model here")
    config = configs.read(MODELS[kind]).copy_and_resolve_references().unlock()
    config.name = kind.replace("-", "_")
    config.precision = "float32"  # in which its features are those that others get
    try:
        for ours, field in FIELDS.items():
            value = theirs.get(field, _absent(field))
            if value is not None:
                config.model[ours] = type(config.model[ours])(value)
        if all(name in theirs for name in CONV):
            config.model.conv_layers = tuple(zip(*(map(int, theirs[name]) for name in CONV), strict=True))
        _read_family(config, theirs)
        if preprocessor is not None:
            config.data.normalize = bool(preprocessor.get("do_normalize", True))
            config.data.sample_rate = int(preprocessor.get("sampling_rate", config.data.sample_rate))
        check(config)
    except (TypeError, ValueError, OverflowError, UserError) as error:
        raise UserError(f"{what}: config.json or preprocessor_config.json makes no sense ({error})") from None
    return config.lock()


def _absent(field: str) -> Any:
    """transformers' default where it is not the value of our base config: its files may leave defaults out."""
    return {"activation_dropout": 0.1, "layerdrop": 0.1, "feat_proj_dropout": 0.0}.get(field)


def _read_family(config: ConfigDict, theirs: Mapping[str, Any]) -> None:
    if config.objective == "data2vec":
        depth = int(theirs.get("num_conv_pos_embeddings", 5))
        config.model.positional_depth = depth
        config.model.positional_kernel = depth * int(theirs.get("conv_pos_kernel_size", 19))
        config.target.top_k = min(config.target.top_k, config.model.layers)
        return
    config.model.positional_kernel = int(theirs.get("num_conv_pos_embeddings", 128))
    config.model.conv_norm = theirs.get("feat_extract_norm", "group")
    config.model.norm_first = bool(theirs.get("do_stable_layer_norm", False))


def write_config(config: ConfigDict, before: Mapping[str, Any], dtype: str = "float32") -> dict[str, Any]:
    """config.json of the config; `before`: what a file that the model came from had, for all that is not ours.

    dtype: of the parameters beside it.

    UserError: transformers has no class for such an encoder.
    """
    model = config.model
    check_expressible(config)
    channels, kernels, strides = (list(column) for column in zip(*model.conv_layers, strict=True))
    # `dtype` is what newer versions call torch_dtype; `_name_or_path` says where somebody's folder was.
    before = {name: value for name, value in before.items() if name not in ("dtype", "_name_or_path")}
    written = {
        **before,
        "torch_dtype": dtype,
        "architectures": [CLASSES[config.objective]],
        "model_type": TYPES[config.objective],
    }
    written |= {theirs: model[ours] for ours, theirs in FIELDS.items()}
    written |= {"conv_dim": channels, "conv_kernel": kernels, "conv_stride": strides}
    written |= UNSUPPORTED
    if not isinstance(written.get("vocab_size"), int):
        written["vocab_size"] = VOCABULARY
    if not (written.get("mask_time_prob") or written.get("mask_feature_prob")):
        written["mask_time_prob"] = MASK_PROB
    if config.objective == "data2vec":
        depth = model.positional_depth
        kernel = max(3, model.positional_kernel // depth)
        return written | {"num_conv_pos_embeddings": depth, "conv_pos_kernel_size": kernel}
    return written | {
        "num_conv_pos_embeddings": model.positional_kernel,
        "feat_extract_norm": model.conv_norm,
        "do_stable_layer_norm": model.norm_first,
    }


def check_expressible(config: ConfigDict) -> None:
    model = config.model
    wanted = {"data2vec": ("stacked", "layer"), "hubert": ("weight_norm", None)}
    positional, norm = wanted[config.objective]
    problems = []
    if model.positional != positional:
        problems.append(f"model.positional={model.positional}")
    if norm and model.conv_norm != norm:
        problems.append(f"model.conv_norm={model.conv_norm}")
    if config.objective == "data2vec" and model.norm_first:
        problems.append("model.norm_first=True")
    if problems:
        raise UserError(
            f"transformers' {CLASSES[config.objective]} cannot hold {', '.join(problems)}: "
            "--to=fairseq and --to=jax can"
        )


def write_preprocessor(config: ConfigDict) -> dict[str, Any]:
    """preprocessor_config.json: how AutoFeatureExtractor has to treat audio for this encoder."""
    return {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "feature_size": 1,
        "sampling_rate": config.data.sample_rate,
        "do_normalize": config.data.normalize,
        "padding_side": "right",
        "padding_value": 0.0,
        # Group norm over time must not be told what is padding: its statistics were of whole rows (transformers' docs).
        "return_attention_mask": config.model.conv_norm == "layer",
    }
