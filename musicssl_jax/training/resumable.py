"""Which changes of a run's config and data a resumption accepts."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from flax import traverse_util

from musicssl_jax.errors import UserError, shortened
from musicssl_jax.targets.names import set_name

# What may change between the start of a run and its resumption; `steps` may grow.
FREE_FIELDS = (
    "name",
    "mesh",
    "batch.per_device",
    "compute",
    "log_every",
    "checkpoint",
    "data.path",
    "data.threads",
    "codebooks",
    "init_from",
    "init_parts",
    "labels",
    "valid",
    "wandb",
    "collapse",
)


def check_resumable(saved: Mapping[str, Any], new: Mapping[str, Any], allow_change: Sequence[str]) -> None:
    """Refuses to go on under another config or on other data than the run began with.

    Args:
        saved: `meta` of the checkpoint: {"config": resolved config, "data": fingerprint, ...}.
        new: the same of this start; values are compared as JSON, so that tuples equal lists.
        allow_change: fields, or sections, that may differ nevertheless; `data.path` allows other data.

    Raises:
        UserError: names every field that differs, with both values.
    """
    before, now = _flat(saved["config"]), _flat(new["config"])
    allowed = (*FREE_FIELDS, *allow_change)
    changed = [
        name
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
        and not _within_any(name, allowed)
        and not (name == "steps" and now[name] > before[name])
    ]
    if changed:
        listed = [f"{name} {before.get(name)!r} -> {now.get(name)!r}" for name in changed]
        raise UserError(
            f"this run began with another config: {shortened(listed)}; "
            f"use another --workdir, or --allow_change={','.join(changed)}"
        )
    if _plain(saved["data"]) != _plain(new["data"]) and not _within_any("data.path", allow_change):
        raise UserError(
            f"this run began on other data: {_plain(saved['data'])} -> {_plain(new['data'])}; "
            "use another --workdir, or --allow_change=data.path"
        )


def check_codebooks(saved: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """UserError: the run began with other codebooks than those of this start (`meta["codebooks"]`, ids)."""
    if saved.get("codebooks", []) != new["codebooks"]:
        raise UserError(
            "this run began with other codebooks: its labels would change their meaning; put those back, or use "
            "another --workdir"
        )


def _within_any(name: str, fields: Sequence[str]) -> bool:
    return any(name == field or name.startswith(field + ".") for field in fields)


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    flat = traverse_util.flatten_dict(_plain(config), sep=".")
    # Where the run of a layer lies may change; that it is the same one is seen by the codebook.
    return flat | {"targets": [set_name(target) for target in flat.get("targets", [])]}
