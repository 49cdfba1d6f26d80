"""The two parts of an update whose shares change with a clip's length, timed alone for `benchmarks.growth`."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.growth import ATTENTION, CONV_STACK
from benchmarks.turns import serve
from musicssl_jax import config as configs
from musicssl_jax.host_memory import keep_memory
from musicssl_jax.models.attention import attend
from musicssl_jax.models.conv_encoder import frame_count
from musicssl_jax.models.objective import make_objective


def parts(flags: list[str], repeats: int) -> dict[str, float]:
    """Median seconds: of the conv stack forwards and backwards; of the student's attention forwards and backwards and
    the teacher's forwards, all blocks, without the projections around it."""
    config = configs.load(flags)[0]
    objective = make_objective(config, jax.devices()[0].platform)
    model = objective.model
    clips, samples = config.batch.clips, round(config.data.crop_seconds * config.data.sample_rate)
    encoder = objective.encoder(objective.init(jax.random.key(0)))
    graph, params = nnx.split(encoder.conv_encoder)
    audio = jax.random.normal(jax.random.key(1), (clips, samples), model.dtype)

    def conv_stack(params, audio):
        return jnp.square(nnx.merge(graph, params)(audio)).sum().astype(jnp.float32)

    shape = (clips, frame_count(samples, model.conv_layers), model.heads, model.width // model.heads)
    frames = tuple(jax.random.normal(jax.random.key(n), shape, model.dtype) for n in range(3))
    keys = jax.random.split(jax.random.key(4), clips)

    def student(frames):
        mixed = attend(*frames, None, model.attention_dropout, keys, kernel=model.attention)
        return jnp.square(mixed).sum().astype(jnp.float32)

    def teacher(frames):
        return attend(*frames, None, 0.0, None, kernel=model.attention)

    conv = _seconds(jax.jit(jax.grad(conv_stack)), repeats, params, audio)
    taught = _seconds(jax.jit(teacher), repeats, frames)
    learned = _seconds(jax.jit(jax.grad(student)), repeats, frames)
    return {CONV_STACK: conv, ATTENTION: model.layers * (learned + taught)}


def _seconds(function: Callable, repeats: int, *arguments: Any) -> float:
    jax.block_until_ready(function(*arguments))
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        times.append(time.perf_counter() - began)
    return float(np.median(times))


if __name__ == "__main__":
    keep_memory()  # as the update that they are parts of
    serve({"parts": parts})
