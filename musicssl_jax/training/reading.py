"""Parts of a run's checkpoints, read without touching the run: it may be training."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from flax import traverse_util

from musicssl_jax.errors import UserError
from musicssl_jax.object_store import reach
from musicssl_jax.training.checksums import checksum
from musicssl_jax.training.file_hashes import damaged_files


def read_newest(path: str, parts: Sequence[str]) -> tuple[epath.Path, dict[str, Any], dict[str, Any]]:
    """(checkpoint's folder, {part: nested dict of arrays}, what was saved as `meta`).

    `path`: a run's folder, its `checkpoints`, or one of these. Of several the newest whole one is taken, and damaged
    ones are reported on stderr. `parts`: of the state, such as "params"; one device holds them.
    Raises UserError: no checkpoint there, or none that is whole.
    """
    steps = _step_folders(reach(path))
    if not steps:
        raise UserError(f"no checkpoint in {path}: want a run's folder, or RUN/checkpoints/STEP")
    for step in steps:
        damage = damaged_files(step)
        if damage is None:
            meta = _read(step / "meta", ocp.JsonCheckpointHandler(), ocp.args.JsonRestore())
            state, wrong = _read_parts(step / "state", parts, meta["leaves"])
            if not wrong:
                return step, state, meta["meta"]
            damage = f"{', '.join(wrong[:3])} differ from what was saved"
        print(f"checkpoint {step} is damaged ({damage})", file=sys.stderr)
    raise UserError(f"no checkpoint in {path} is whole")


def _step_folders(path: epath.Path) -> list[epath.Path]:
    """Newest first."""
    if path.name.isdecimal() and (path / "state").is_dir():
        return [path]
    for folder in (path / "checkpoints", path):
        if folder.is_dir():
            found = [step for step in folder.iterdir() if step.name.isdecimal()]
            return sorted(found, key=lambda step: int(step.name), reverse=True)
    return []


def _read_parts(path: epath.Path, parts: Sequence[str], leaves: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The parts, and the names of those leaves whose checksum is wrong."""
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    wanted = {
        name: jax.ShapeDtypeStruct(leaf["shape"], np.dtype(leaf["dtype"]), sharding=device)
        for name, leaf in leaves.items()
        if name.split("/")[0] in parts
    }
    item = traverse_util.unflatten_dict(wanted, sep="/")
    args = ocp.args.PyTreeRestore(
        item, restore_args=ocp.checkpoint_utils.construct_restore_args(item), partial_restore=True
    )
    state = _read(path, ocp.PyTreeCheckpointHandler(), args)
    found = traverse_util.flatten_dict(state, sep="/")
    return state, [name for name in wanted if int(checksum(found[name])) != leaves[name]["checksum"]]


def _read(path: epath.Path, handler: ocp.CheckpointHandler, args: ocp.args.CheckpointArgs) -> Any:
    with ocp.Checkpointer(handler) as checkpointer:
        return checkpointer.restore(path, args=args)
