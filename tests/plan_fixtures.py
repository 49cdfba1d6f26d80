"""Tiny trainings to plan, on simulated devices."""

import jax
from run_fixtures import HUBERT, TINY

from musicssl_jax.config import load
from musicssl_jax.parallel import make_mesh
from musicssl_jax.planning.abstract import front_ends
from musicssl_jax.planning.compiled import Inputs, make_inputs

WEAK = {"batch__per_device": 2}
"""Beside 4 clips a device: two micro-batches on any number of devices."""


def plan_flags(file: str = "music2vec", **overrides) -> list[str]:
    """Config flags of a tiny run on whatever devices there are; `overrides` are fields with `__` for the dot."""
    fields = (TINY if file == "music2vec" else HUBERT) | {"mesh.data": -1, "data.path": ""}
    fields |= {name.replace("__", "."): value for name, value in overrides.items()}
    return [f"--config=configs/{file}.py:demo", *(f"--config.{name}={value}" for name, value in fields.items())]


def inputs_on(data: int, fsdp: int, file: str = "music2vec", **overrides) -> Inputs:
    """What `plan` compiles of a tiny run on data x fsdp CPU devices."""
    config, _ = load(plan_flags(file, **overrides))
    mesh = make_mesh(data, fsdp, jax.devices()[: data * fsdp])
    return make_inputs(config, front_ends(config), mesh, "cpu")
