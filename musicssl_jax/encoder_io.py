"""From the path of a checkpoint to an encoder.

from musicssl_jax import load_encoder

encode = load_encoder("runs/music2vec_base")
hidden = encode(waveform)["hidden"]  # (layers + 1, frames, width); waveform: mono at encode.sample_rate
"""

import warnings
from typing import Literal

import jax

from musicssl_jax import config as configs
from musicssl_jax.frozen_encoder import FrozenEncoder, frozen_encoder
from musicssl_jax.interop.pretrained import nested
from musicssl_jax.interop.reading import read_pretrained
from musicssl_jax.models.objective import make_objective

Weights = Literal["student", "teacher"]

RANDOM = "random:"


def load_encoder(path: str, *, weights: Weights = "student", download: bool = False) -> FrozenEncoder:
    """The encoder of a run folder (its newest whole checkpoint), of one checkpoint (RUN/checkpoints/STEP), of a
    transformers folder or a fairseq .pt file, of `hf:OWNER/NAME`, or, as `random:CONFIG.py[:VARIANT]`, with the initial
    parameters that training with that config begins with.

    weights: the student's, or the teacher's where it has its own. download: whether a model of the Hugging Face hub
    may be fetched.
    Raises UserError: nothing there, no whole checkpoint, another kind of model, no such config.
    """
    if path.startswith(RANDOM):
        config = configs.read(path.removeprefix(RANDOM))
        params = jax.jit(make_objective(config).init)(jax.random.key(config.seed))
        return frozen_encoder(config, params["encoder"], name=path)
    model = read_pretrained(path, download=download).with_weights(weights)
    for note in model.notes:
        warnings.warn(f"{path}: {note}", stacklevel=2)
    name = model.origin.where if model.origin.kind == "run" else path
    return frozen_encoder(model.config, nested(model.encoder), name=name)


def untrained_encoder(path: str, *, download: bool = False) -> FrozenEncoder:
    """The encoder with which the training of what is at `path` began, or begins with its config and seed.

    Raises UserError as `load_encoder`.
    """
    if path.startswith(RANDOM):
        return load_encoder(path)
    config = read_pretrained(path, download=download).config
    params = jax.jit(make_objective(config).init)(jax.random.key(config.seed))
    return frozen_encoder(config, params["encoder"], name=f"{path}, untrained")
