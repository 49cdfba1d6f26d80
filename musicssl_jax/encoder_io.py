"""From the path of a checkpoint to an encoder.

from musicssl_jax import load_encoder

encode = load_encoder("runs/music2vec_base")
hidden = encode(waveform)["hidden"]  # (layers + 1, frames, width); waveform: mono at encode.sample_rate
"""

import json
from typing import Literal

import jax

from musicssl_jax import config as configs
from musicssl_jax.errors import UserError
from musicssl_jax.frozen_encoder import FrozenEncoder, frozen_encoder
from musicssl_jax.models.objective import make_objective
from musicssl_jax.training.reading import read_newest

Weights = Literal["student", "teacher"]

RANDOM = "random:"


def load_encoder(path: str, *, weights: Weights = "student") -> FrozenEncoder:
    """The encoder of a run folder (its newest whole checkpoint), of one checkpoint (RUN/checkpoints/STEP), or, as
    `random:CONFIG.py[:VARIANT]`, with the initial parameters that training with that config begins with.

    `weights`: the student's, or the teacher's where it has its own.
    Raises UserError: nothing there, no whole checkpoint, no such config.
    """
    if path.startswith(RANDOM):
        config = configs.read(path.removeprefix(RANDOM))
        params = jax.jit(make_objective(config).init)(jax.random.key(config.seed))
        return frozen_encoder(config, params["encoder"], name=path)
    found, state, meta = read_newest(path, ("params", "teacher"))
    config = configs.from_json(json.dumps(meta["config"]))
    encoder = state["params"]["encoder"]
    if weights == "teacher":
        if "teacher" not in state:
            raise UserError(f"{path} is a run without a teacher: ask for the student's weights")
        encoder = {**encoder, **state["teacher"]}
    return frozen_encoder(config, encoder, name=str(found))
