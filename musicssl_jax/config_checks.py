"""Which values of a config make sense; every objection names the field."""

from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Any

from ml_collections import ConfigDict

from musicssl_jax.errors import UserError
from musicssl_jax.targets.names import FRONT_ENDS, parse_layer, set_name


def check(config: ConfigDict) -> None:
    """UserError naming the field: its value makes no sense, alone or beside another field."""
    objectives = ("objective", *_one_of(*_DEMANDS_OF))
    for fields, holds, demand in (objectives, *_DEMANDS, *_DEMANDS_OF.get(_value(config, "objective"), ())):
        for field in fields.split():
            value = _value(config, field)
            if not _satisfies(value, holds):
                raise UserError(f"config.{field}={value!r}: must be {demand}")
    for sound, message in _relations(config):
        if not sound:
            raise UserError(message)


def check_kernel(config: Any, platform: str) -> None:
    """UserError: the config names an attention kernel of another platform ("cpu", "gpu", "tpu")."""
    kernel = config.compute.attention
    if {"splash": "tpu", "cudnn": "gpu"}.get(kernel, platform) != platform:
        raise UserError(
            f"config.compute.attention={kernel}: there is no such kernel for a {platform.upper()}; "
            "--config.compute.attention=auto takes what suits it"
        )


def _value(config: ConfigDict, field: str) -> Any:
    try:
        return attrgetter(field)(config)
    except AttributeError:
        raise UserError(f"config.{field} is missing from the config file") from None


def _satisfies(value: Any, holds: Callable[[Any], bool]) -> bool:
    try:
        return bool(holds(value))
    except TypeError:  # a config file may put text where a number belongs
        return False


def _one_of(*names: str) -> tuple[Callable[[Any], bool], str]:
    return names.__contains__, "one of " + ", ".join(names)


_AT_LEAST_ONE = (lambda v: v >= 1, "at least 1")
_NOT_NEGATIVE = (lambda v: v >= 0, "0 or more")
_POSITIVE = (lambda v: v > 0, "more than 0")
_SHARE = (lambda v: 0 <= v <= 1, "between 0 and 1")
_BELOW_ONE = (lambda v: 0 <= v < 1, "at least 0 and less than 1")

_DEMANDS: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("precision", *_one_of("bfloat16", "float32")),
    ("prng", *_one_of("threefry2x32", "rbg")),
    ("compute.attention", *_one_of("auto", "xla", "cudnn", "splash")),
    ("compute.remat", *_one_of("none", "products", "blocks", "all")),
    ("data.sampling", *_one_of("duration", "track")),
    ("init_parts", *_one_of("trunk", "all")),
    ("model.conv_norm", *_one_of("layer", "group")),
    ("model.positional", *_one_of("stacked", "weight_norm")),
    ("optimizer.name", *_one_of("adam_fairseq", "adamw")),
    ("schedule.name", *_one_of("tri_stage", "polynomial", "cosine")),
    ("steps log_every batch.clips batch.per_device mesh.fsdp", *_AT_LEAST_ONE),
    ("data.crop_grid data.sample_rate valid.every valid.batches", *_AT_LEAST_ONE),
    ("model.width model.ffn model.heads model.layers", *_AT_LEAST_ONE),
    ("model.positional_kernel model.positional_depth model.positional_groups", *_AT_LEAST_ONE),
    ("mask.length mask.channel_length", *_AT_LEAST_ONE),
    ("checkpoint.every checkpoint.keep collapse.patience", *_AT_LEAST_ONE),
    ("seed data.threads mask.min_masks mask.trim_group", *_NOT_NEGATIVE),
    ("model.feature_grad_mult optimizer.weight_decay optimizer.clip_norm", *_NOT_NEGATIVE),
    ("schedule.init_scale schedule.final_scale", *_NOT_NEGATIVE),
    ("checkpoint.keep_every checkpoint.keep_hours checkpoint.minutes", *_NOT_NEGATIVE),
    ("data.crop_seconds optimizer.eps schedule.peak schedule.power", *_POSITIVE),
    ("mask.prob mask.dropout mask.channel_prob model.layer_drop", *_SHARE),
    ("collapse.after", *_SHARE),
    ("schedule.warmup schedule.hold schedule.decay", *_SHARE),
    ("model.dropout model.attention_dropout model.activation_dropout model.input_dropout", *_BELOW_ONE),
    ("optimizer.b1 optimizer.b2", *_BELOW_ONE),
    ("mesh.data", lambda v: v == -1 or v >= 1, "a number of devices, or -1 for all that are left"),
    ("data.weights", lambda v: all(isinstance(w, int | float) and w > 0 for w in v), "numbers above 0"),
    (
        "model.conv_layers",
        lambda v: v and all(map(_is_conv_layer, v)),
        "triples (channels, kernel, stride) of whole numbers above 0",
    ),
)

_DEMANDS_OF: dict[str, tuple[tuple[str, Callable[[Any], bool], str], ...]] = {
    "data2vec": (
        ("teacher.average", *_one_of("blocks", "transformer", "all")),
        ("target.top_k teacher.steps_per_update", *_AT_LEAST_ONE),
        ("loss.beta loss.scale teacher.anneal_steps", *_NOT_NEGATIVE),
        ("collapse.target_spread collapse.prediction_spread collapse.swap_gap", *_NOT_NEGATIVE),
        ("teacher.decay teacher.end_decay collapse.positional_share", *_SHARE),
    ),
    "hubert": (
        ("targets", lambda v: v and all(map(_is_target, v)), f"names out of {', '.join(FRONT_ENDS)}, or layer:N@RUN"),
        ("regression", *_one_of("", *FRONT_ENDS)),
        ("clusters", lambda v: v and all(isinstance(k, int) and k >= 2 for k in v), "whole numbers, at least 2"),
        ("codebook.batch_frames codebook.frames_per_crop codebook.initial_frames", *_AT_LEAST_ONE),
        ("codebook.restarts codebook.patience codebook.max_batches prediction.width", *_AT_LEAST_ONE),
        ("prediction.masked_weight prediction.unmasked_weight prediction.feature_penalty", *_NOT_NEGATIVE),
        ("prediction.regression_weight", *_NOT_NEGATIVE),
        ("prediction.temperature", *_POSITIVE),
        ("codebook.reassignment_ratio collapse.used", *_SHARE),
    ),
}
"""What only one objective asks."""


def _is_target(target: Any) -> bool:
    return target in FRONT_ENDS or parse_layer(target) is not None


def _is_conv_layer(layer: Any) -> bool:
    return isinstance(layer, tuple) and len(layer) == 3 and all(isinstance(n, int) and n >= 1 for n in layer)


def _relations(config: ConfigDict) -> Iterator[tuple[bool, str]]:
    """(holds, message) for each demand that joins two fields; the fields are sound by themselves."""
    data, model, schedule = config.data, config.model, config.schedule
    paths = data.path.split(",")
    yield (
        config.compute.attention in ("auto", "xla") or not model.attention_dropout,
        f"config.compute.attention={config.compute.attention}: fused kernels have no dropout; set "
        "model.attention_dropout=0, or leave it auto",
    )
    yield all(paths) or not data.path, f"config.data.path={data.path!r}: nothing between two commas"
    yield (
        len(data.weights) in (0, len(paths)),
        f"config.data.weights has {len(data.weights)} entries for {len(paths)} paths in config.data.path",
    )
    for field in ("heads", "positional_groups"):
        yield (
            model.width % model[field] == 0,
            f"config.model.{field}={model[field]} does not divide config.model.width={model.width}",
        )
    yield (
        model.positional == "stacked" or model.positional_depth == 1,
        f"config.model.positional_depth={model.positional_depth}: {model.positional} is one convolution",
    )
    yield (
        config.mask.prob > 0 or config.mask.min_masks > 0,
        "config.mask.prob and config.mask.min_masks are both 0: nothing would be masked",
    )
    stages = schedule.warmup + schedule.hold + schedule.decay
    yield (
        schedule.name != "tri_stage" or abs(stages - 1) < 1e-6,
        f"config.schedule: warmup + hold + decay is {stages:.6g}, and a tri_stage schedule needs 1",
    )
    yield from _data2vec_relations(config) if config.objective == "data2vec" else _hubert_relations(config)
    # Only here, so that other complaints need not wait for JAX to load.
    from musicssl_jax.models.conv_encoder import hop_and_receptive_field

    crop = round(data.crop_seconds * data.sample_rate)
    hop, needed = hop_and_receptive_field(model.conv_layers)
    yield (
        crop >= needed,
        f"config.data.crop_seconds={data.crop_seconds}: {crop} samples, but a frame needs {needed}",
    )
    yield (
        not config.get("labels") or data.crop_grid % hop == 0,
        f"config.data.crop_grid={data.crop_grid}: precomputed labels are of crops that begin with a frame, at "
        f"multiples of {hop} samples",
    )


def _data2vec_relations(config: ConfigDict) -> Iterator[tuple[bool, str]]:
    yield (
        config.target.top_k <= config.model.layers,
        f"config.target.top_k={config.target.top_k} is more than config.model.layers={config.model.layers}",
    )


def _hubert_relations(config: ConfigDict) -> Iterator[tuple[bool, str]]:
    targets, clusters = config.targets, config.clusters
    yield (
        len(targets) == len(clusters),
        f"config.clusters has {len(clusters)} numbers for the {len(targets)} sets in config.targets",
    )
    names = [set_name(target) for target in targets]
    yield len(set(names)) == len(names), f"config.targets={','.join(targets)}: two sets have the same name"
    paths = config.codebooks.split(",") if config.codebooks else []
    yield (
        len(paths) in (0, len(targets)),
        f"config.codebooks has {len(paths)} folders for the {len(targets)} sets in config.targets",
    )
    labels, music = config.labels.split(",") if config.labels else [], config.data.path.split(",")
    yield (
        len(labels) in (0, len(music)),
        f"config.labels has {len(labels)} folders for {len(music)} paths in config.data.path",
    )
    weighed = config.prediction.masked_weight + config.prediction.unmasked_weight
    yield weighed > 0, "config.prediction.masked_weight and unmasked_weight are both 0: there is nothing to learn"
    most = max(clusters)
    yield (
        config.codebooks or most <= config.codebook.initial_frames,
        f"config.clusters={most} is more than config.codebook.initial_frames={config.codebook.initial_frames}, the "
        "frames that clusters start from",
    )
