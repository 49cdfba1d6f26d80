"""A fresh run whose encoder is an earlier run's."""

import json
from typing import Any

import jax
from flax import traverse_util

from musicssl_jax import config as configs
from musicssl_jax.errors import UserError, shortened
from musicssl_jax.training.reading import read_newest
from musicssl_jax.training.state import TrainState

RATES = ("dropout", "attention_dropout", "activation_dropout", "input_dropout", "layer_drop", "feature_grad_mult")
"""Fields of `config.model` that no parameter depends on, nor what it means."""


def warm_start(state: TrainState, objective: Any, config: Any) -> tuple[TrainState, str]:
    """The state with the encoder of the newest whole checkpoint at `config.init_from`, and a line that says so.

    Heads, label embeddings and the optimizer's moments stay new; a teacher begins as the student does.
    Raises UserError: no such checkpoint, or its encoder is another one (what differs is listed).
    """
    path = config.init_from
    step, found, meta = read_newest(path, ("params",))
    changed = [
        f"{name} {theirs!r} there, {config.model[name]!r} here"
        for name, theirs in configs.from_json(json.dumps(meta["config"])).model.items()
        if name not in RATES and theirs != config.model[name]
    ]
    if changed:
        raise UserError(f"config.init_from={path} has another encoder than this config: {shortened(changed)}")
    have = traverse_util.flatten_dict(found["params"]["encoder"], sep="/")
    want = traverse_util.flatten_dict(state.params["encoder"], sep="/")
    taken = {name: jax.device_put(have[name], leaf.sharding) for name, leaf in want.items()}
    params = {**state.params, "encoder": traverse_util.unflatten_dict(taken, sep="/")}
    where = jax.tree.map(lambda leaf: leaf.sharding, state.teacher)
    teacher = jax.jit(objective.init_teacher, out_shardings=where)(params)
    new = ", ".join(sorted(name for name in params if name != "encoder"))
    return state._replace(params=params, teacher=teacher), f"the encoder is that of {step}; new are {new}"
