"""How much arithmetic a model is, and how much a device can do: what MFU and time estimates are made of.

A multiplication and an addition count as 2. Counted are the matrix products and convolutions of the model
itself: no recomputation, no rows that only fill up, attention in full.
"""

import time
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from musicssl_jax.models.conv_encoder import frame_count
from musicssl_jax.models.encoder import EncoderConfig

# Dense peaks in TFLOP/s by the start of JAX's device kind: (bfloat16, float32 at full precision).
PEAKS: Mapping[str, tuple[float, float]] = {
    "TPU v4": (275, 275 / 6),
    "TPU v5 lite": (197, 197 / 6),
    "TPU v5p": (459, 459 / 6),
    "TPU v5": (459, 459 / 6),
    "TPU v6 lite": (918, 918 / 6),
    "NVIDIA H200": (989, 67),
    "NVIDIA H100": (989, 67),
    "NVIDIA A100": (312, 19.5),
}
"""Makers' data sheets; a TPU multiplies float32 exactly in six bfloat16 passes."""


def conv_flops(model: EncoderConfig, samples: int) -> int:
    """Forward pass of the conv stack over one clip."""
    total, inputs = 0, 1
    for i, (channels, kernel, _) in enumerate(model.conv_layers):
        total += 2 * frame_count(samples, model.conv_layers[: i + 1]) * kernel * inputs * channels
        inputs = channels
    return total


def transformer_flops(model: EncoderConfig, frames: int) -> int:
    """Forward pass of positional convolutions and blocks over one clip."""
    taps = max(3, model.positional_kernel // model.positional_depth)
    per_group = model.width // model.positional_groups
    positional = model.positional_depth * 2 * frames * taps * per_group * model.width
    linears = 2 * frames * (4 * model.width**2 + 2 * model.width * model.ffn)
    attention = 4 * frames**2 * model.width
    return positional + model.layers * (linears + attention)


def encoder_flops(model: EncoderConfig, samples: int) -> int:
    """Forward pass of the encoder over one clip of `samples`."""
    frames = frame_count(samples, model.conv_layers)
    projection = 2 * frames * model.conv_layers[-1][0] * model.width
    return conv_flops(model, samples) + projection + transformer_flops(model, frames)


def update_flops(objective, samples: int) -> float:
    """One update of clips of `samples`; front ends and optimizer are left out."""
    return float(objective.clips) * objective.clip_flops(samples)


def peak_flops(device: jax.Device, precision: str) -> float:
    """FLOP/s that a device reaches at best: from its data sheet, or, if it has none here, measured.

    The measured figure is the fastest of the 1024 x 1024 float32 products that the device does in a third of a second:
    the first of them wait for threads and clocks.
    """
    for kind, (bfloat16, float32) in PEAKS.items():
        if device.device_kind.startswith(kind):
            return (bfloat16 if precision == "bfloat16" else float32) * 1e12
    size = 1024
    with jax.set_mesh(Mesh(np.asarray([device]), ("device",))):  # a run's own mesh may be set already
        x = jax.device_put(jnp.ones((size, size)), device)
        product = jax.jit(lambda x: jnp.matmul(x, x, precision="highest"))
        product(x).block_until_ready()
        times = [_seconds(product, x)]
        while sum(times) < 1 / 3:
            times.append(_seconds(product, x))
        return 2 * size**3 / min(times)


def _seconds(function, *arguments) -> float:
    start = time.perf_counter()
    function(*arguments).block_until_ready()
    return time.perf_counter() - start
