"""Run folders of ours as models: read from a run's checkpoints, written as a folder that looks like a run's.

A written folder can be evaluated, embedded with, converted and begun with (`init_from`), but not resumed: it has no
optimizer's state.
"""

import json
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import traverse_util

from musicssl_jax import config as configs
from musicssl_jax.interop.extras import origin_from_json, origin_to_json
from musicssl_jax.interop.pretrained import Origin, Pretrained, Tensors, nested
from musicssl_jax.interop.writing import whole_folder
from musicssl_jax.targets.codebook import files_within, read_codebooks
from musicssl_jax.training.checkpointing import open_checkpoints
from musicssl_jax.training.reading import read_newest
from musicssl_jax.training.run_folder import package_versions, save_config

FOREIGN = "foreign.safetensors"
"""In a checkpoint of a converted model: the tensors of the file it came from that have no place among ours."""
ONE_CHECKPOINT = SimpleNamespace(every=1, minutes=0.0, keep=1, keep_every=0, keep_hours=0.0)


def read_run(path: str) -> Pretrained:
    """The newest whole checkpoint of a run's folder, or one checkpoint. UserError: there is none, or none whole."""
    step, state, meta = read_newest(path, ("params", "teacher"))
    if "origin" in meta:
        origin = origin_from_json(meta["origin"], _read_foreign(step / FOREIGN))
    else:
        origin = Origin("run", "/".join(step.parts[-3:]))
    return Pretrained(
        config=configs.from_json(json.dumps(meta["config"])),
        params=_flat(state["params"]),
        teacher=_flat(state.get("teacher", {})),
        codebooks=tuple(read_codebooks(step)),
        step=int(step.name),
        data={"fingerprints": meta["data"], "hours": meta.get("hours", [])} if meta["data"] else {},
        origin=origin,
    )


def write_run(model: Pretrained, folder: Path) -> list[str]:
    """Writes the model as checkpoint number `model.step` of a new run folder. UserError: it cannot be written."""
    from safetensors.numpy import save

    state = {
        "step": jnp.int32(model.step),
        "params": nested(model.params),
        "teacher": nested(model.teacher),
    }
    meta = {
        "config": model.config.to_dict(),
        "versions": package_versions(),
        "data": model.data.get("fingerprints", []),
        "hours": model.data.get("hours", []),
        "origin": origin_to_json(model.origin),
    }
    files = files_within(model.codebooks)
    if model.origin.foreign:
        files[FOREIGN] = save({name: np.ascontiguousarray(value) for name, value in model.origin.foreign.items()})
    with whole_folder(folder) as unfinished:
        save_config(unfinished, configs.to_json(model.config))
        checkpoints = open_checkpoints(unfinished / "checkpoints", ONE_CHECKPOINT)
        try:
            checkpoints.save_and_wait(model.step, state, meta, files)
        finally:
            checkpoints.close()
    return ["it has no optimizer's state: begin a run with it by --config.init_from, it cannot be resumed"]


def _flat(tree: dict[str, Any]) -> Tensors:
    return {name: np.asarray(value) for name, value in traverse_util.flatten_dict(tree, sep="/").items()}


def _read_foreign(path: epath.Path) -> Tensors:
    from safetensors.numpy import load_file

    if not path.exists():
        return {}
    with tempfile.NamedTemporaryFile() as file:  # of bytes in memory safetensors reads no bfloat16
        file.write(path.read_bytes())
        file.flush()
        return load_file(file.name)
