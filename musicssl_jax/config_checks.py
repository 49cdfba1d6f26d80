"""Which values of a config make sense; every objection names the field."""

from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Any

from ml_collections import ConfigDict

from musicssl_jax.errors import UserError


def check(config: ConfigDict) -> None:
    """UserError naming the field: its value makes no sense, alone or beside another field."""
    for fields, holds, demand in _DEMANDS:
        for field in fields.split():
            value = _value(config, field)
            if not _satisfies(value, holds):
                raise UserError(f"config.{field}={value!r}: must be {demand}")
    for sound, message in _relations(config):
        if not sound:
            raise UserError(message)


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
    ("objective", *_one_of("data2vec")),
    ("precision", *_one_of("bfloat16", "float32")),
    ("data.sampling", *_one_of("duration", "track")),
    ("model.conv_norm", *_one_of("layer", "group")),
    ("model.positional", *_one_of("stacked")),
    ("teacher.average", *_one_of("blocks", "transformer", "all")),
    ("optimizer.name", *_one_of("adam_fairseq", "adamw")),
    ("schedule.name", *_one_of("tri_stage", "polynomial", "cosine")),
    ("steps log_every batch.clips batch.per_device mesh.fsdp", *_AT_LEAST_ONE),
    ("data.crop_grid data.sample_rate valid.every valid.batches", *_AT_LEAST_ONE),
    ("model.width model.ffn model.heads model.layers", *_AT_LEAST_ONE),
    ("model.positional_kernel model.positional_depth model.positional_groups", *_AT_LEAST_ONE),
    ("mask.length mask.channel_length target.top_k teacher.steps_per_update", *_AT_LEAST_ONE),
    ("checkpoint.every checkpoint.keep collapse.patience", *_AT_LEAST_ONE),
    ("seed data.threads mask.min_masks mask.trim_group loss.beta loss.scale teacher.anneal_steps", *_NOT_NEGATIVE),
    ("model.feature_grad_mult optimizer.weight_decay optimizer.clip_norm", *_NOT_NEGATIVE),
    ("schedule.init_scale schedule.final_scale", *_NOT_NEGATIVE),
    ("checkpoint.keep_every checkpoint.keep_hours checkpoint.minutes", *_NOT_NEGATIVE),
    ("collapse.target_spread collapse.prediction_spread collapse.swap_gap", *_NOT_NEGATIVE),
    ("data.crop_seconds optimizer.eps schedule.peak schedule.power", *_POSITIVE),
    ("mask.prob mask.dropout mask.channel_prob model.layer_drop", *_SHARE),
    ("teacher.decay teacher.end_decay collapse.after collapse.positional_share", *_SHARE),
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


def _is_conv_layer(layer: Any) -> bool:
    return isinstance(layer, tuple) and len(layer) == 3 and all(isinstance(n, int) and n >= 1 for n in layer)


def _relations(config: ConfigDict) -> Iterator[tuple[bool, str]]:
    """(holds, message) for each demand that joins two fields; the fields are sound by themselves."""
    data, model, schedule = config.data, config.model, config.schedule
    paths = data.path.split(",")
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
        config.target.top_k <= model.layers,
        f"config.target.top_k={config.target.top_k} is more than config.model.layers={model.layers}",
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
    # Only here, so that other complaints need not wait for JAX to load.
    from musicssl_jax.models.conv_encoder import hop_and_receptive_field

    crop = round(data.crop_seconds * data.sample_rate)
    _, needed = hop_and_receptive_field(model.conv_layers)
    yield (
        crop >= needed,
        f"config.data.crop_seconds={data.crop_seconds}: {crop} samples, but a frame needs {needed}",
    )
