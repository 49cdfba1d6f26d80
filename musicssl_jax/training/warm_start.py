"""A fresh run whose encoder is an earlier run's."""

from typing import Any

import jax
from flax import traverse_util

from musicssl_jax.errors import UserError, shortened
from musicssl_jax.training.reading import read_newest
from musicssl_jax.training.state import TrainState


def warm_start(state: TrainState, objective: Any, path: str) -> tuple[TrainState, str]:
    """The state with the encoder of the newest whole checkpoint at `path`, and a line that says so.

    Heads, label embeddings and the optimizer's moments stay new; a teacher begins as the student does.
    Raises UserError: no such checkpoint, or its encoder has other parameters (which are listed).
    """
    step, found, _ = read_newest(path, ("params",))
    have = traverse_util.flatten_dict(found["params"]["encoder"], sep="/")
    want = traverse_util.flatten_dict(state.params["encoder"], sep="/")
    differing = [
        f"{name}: {have[name].shape if name in have else 'nothing'} there, "
        f"{want[name].shape if name in want else 'nothing'} here"
        for name in sorted(have.keys() | want.keys())
        if name not in have or name not in want or have[name].shape != want[name].shape
    ]
    if differing:
        raise UserError(f"config.init_from={path} has another encoder than this config: {shortened(differing)}")
    taken = {name: jax.device_put(have[name], leaf.sharding) for name, leaf in want.items()}
    params = {**state.params, "encoder": traverse_util.unflatten_dict(taken, sep="/")}
    where = jax.tree.map(lambda leaf: leaf.sharding, state.teacher)
    teacher = jax.jit(objective.init_teacher, out_shardings=where)(params)
    new = ", ".join(sorted(name for name in params if name != "encoder"))
    return state._replace(params=params, teacher=teacher), f"the encoder is that of {step}; new are {new}"
