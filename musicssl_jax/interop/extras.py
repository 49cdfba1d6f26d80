"""What foreign formats have no place for, packed to travel beside what they have: config, heads, teacher, codebooks.

Packed as (JSON values, arrays by name), which a transformers folder keeps in two files of ours and a fairseq file under
a key of ours.
"""

import dataclasses
import json
import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple, TypeVar

from ml_collections import ConfigDict

from musicssl_jax import config as configs
from musicssl_jax.errors import UserError
from musicssl_jax.interop.pretrained import Origin, Pretrained, Tensors, shapes_of, teacher_shapes_of
from musicssl_jax.targets.codebook import Codebook

FORMAT = 1

Value = TypeVar("Value")


class Packed(NamedTuple):
    """values: JSON. arrays: "params/...", "teacher/...", "foreign/...", "codebooks/0/centroids"."""

    values: dict[str, Any]
    arrays: Tensors


def pack(model: Pretrained, placed: Collection[str]) -> Packed:
    """All of the model but the tensors in `placed`, which the format holds itself ("params/...", "teacher/...")."""
    named = prefixed("params", model.params) | prefixed("teacher", model.teacher)
    arrays = {name: value for name, value in named.items() if name not in placed}
    arrays |= prefixed("foreign", model.origin.foreign)
    descriptions = []
    for i, codebook in enumerate(model.codebooks):
        arrays |= {f"codebooks/{i}/centroids": codebook.centroids, f"codebooks/{i}/usage": codebook.usage}
        arrays[f"codebooks/{i}/inertia_curve"] = codebook.inertia_curve
        descriptions.append({name: getattr(codebook, name) for name in ("front_end", "data", "settings", "agreement")})
    values = {
        "format": FORMAT,
        "config": without_paths(model.config).to_dict(),
        "step": model.step,
        "data": model.data,
        "codebooks": descriptions,
        "origin": {**origin_to_json(model.origin), "options": _without_path_values(model.origin.options)},
    }
    return Packed(json.loads(json.dumps(values)), arrays)


def without_paths(config: ConfigDict) -> ConfigDict:
    """The config as others may see it: what it says of this machine's folders is left out."""
    config = config.copy_and_resolve_references().unlock()
    config.data.path = config.init_from = ""
    if config.objective == "hubert":
        config.codebooks = config.labels = ""
        config.targets = tuple(re.sub(r"@.*", "@", target) for target in config.targets)
    return config.lock()


def _without_path_values(options: Any) -> Any:
    """The same options, text that looks like a path left empty."""
    if isinstance(options, Mapping):
        return {name: _without_path_values(value) for name, value in options.items()}
    if isinstance(options, list | tuple):
        return [_without_path_values(value) for value in options]
    return "" if isinstance(options, str) and ("/" in options or "\\" in options) else options


def unpack(packed: Packed, what: str) -> Pretrained:
    """What was packed of a model, which is all but the tensors that the format holds itself.

    UserError, which calls it `what`: it is damaged, or of another version.
    """
    values, arrays = packed
    if values.get("format") != FORMAT:
        raise UserError(f"{what} has format {values.get('format')!r}, and this version reads {FORMAT}: export it again")
    try:
        config = configs.from_json(json.dumps(values["config"]))
        kept = Pretrained(
            config=config,
            params=under("params", arrays),
            teacher=under("teacher", arrays),
            codebooks=tuple(_codebook(i, d, arrays) for i, d in enumerate(values["codebooks"])),
            step=int(values["step"]),
            data=dict(values["data"]),
            origin=origin_from_json(values["origin"], under("foreign", arrays)),
        )
        for part, shapes in (("params", shapes_of(config)), ("teacher", teacher_shapes_of(config))):
            for name, value in getattr(kept, part).items():
                if value.shape != shapes[name]:
                    raise ValueError(f"{part}/{name} is {list(value.shape)} instead of {list(shapes[name])}")
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise UserError(f"{what} is damaged ({error!r}): copy it again") from None
    return kept


def completed(kept: Pretrained, params: Tensors, teacher: Tensors) -> Pretrained:
    """The model whose other tensors the format held itself."""
    return dataclasses.replace(kept, params=params | kept.params, teacher=teacher | kept.teacher)


def _codebook(number: int, description: Mapping[str, Any], arrays: Tensors) -> Codebook:
    fields: dict[str, Any] = {**description, **under(f"codebooks/{number}", arrays)}
    return Codebook(**fields)


def origin_to_json(origin: Origin) -> dict[str, Any]:
    """All of an origin but its tensors."""
    return {f.name: getattr(origin, f.name) for f in dataclasses.fields(origin) if f.name != "foreign"}


def origin_from_json(values: Mapping[str, Any], foreign: Tensors) -> Origin:
    """The same backwards."""
    return Origin(**values, foreign=foreign)


def prefixed(prefix: str, tensors: Mapping[str, Value]) -> dict[str, Value]:
    """The same values under PREFIX/NAME."""
    return {f"{prefix}/{name}": value for name, value in tensors.items()}


def under(prefix: str, tensors: Mapping[str, Value]) -> dict[str, Value]:
    """Those under PREFIX/, without it."""
    return {name.removeprefix(f"{prefix}/"): v for name, v in tensors.items() if name.startswith(f"{prefix}/")}
