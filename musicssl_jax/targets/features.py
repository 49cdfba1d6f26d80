"""What a front end is: a function of a crop and the audio around it that gives one vector an encoder frame."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp

from musicssl_jax.models.encoder import to_float
from musicssl_jax.shapes import Array, Float, Int

Batch = Mapping[str, Array]
"""audio (B, N) PCM16 or float; mean, std (B,) of the whole track; and where the data were asked for margins, before,
after (B, M) audio on both sides, zeros outside of the track, and real_before, real_after (B,), the numbers of samples
of them that are inside of it."""


@dataclasses.dataclass(frozen=True)
class Features:
    """A front end, aligned with the encoder: its frame i is centred where the encoder's frame i is.

    With the base conv stack that is sample 320 i + 200 of the crop.
    """

    name: str
    width: int
    """Dimensions of a frame."""
    window: int
    """Samples that a frame depends on."""
    margin: int
    """Samples that it needs before and after the crop for every frame to be what the whole track gives."""
    description: Mapping[str, Any]
    """Plain JSON values: all settings, from which a codebook is known to fit."""
    kernels: Any
    """A pytree of arrays (filters, an encoder's parameters), the first argument of `apply`."""
    apply: Callable[[Any, Batch], Float[Array, "B T W"]]
    """(kernels, batch) -> frames, float32; pure, can be jitted, and is not differentiated."""


class Waveform(NamedTuple):
    """A crop with `margin` samples on both sides; samples outside of [first, last) of a row are not of its track."""

    samples: Float[Array, "B N"]
    first: Int[Array, " B"]
    last: Int[Array, " B"]


def with_margin(batch: Batch, margin: int) -> Waveform:
    """The crop and `margin` samples before and after it, in [-1, 1).

    Raises ValueError when the batch was made with a smaller margin.
    """
    audio = batch["audio"]
    have = batch["before"].shape[1] if "before" in batch else 0
    if have < margin:
        raise ValueError(f"the batch has margins of {have} samples, and {margin} are needed")
    rows, samples = audio.shape
    if not margin:
        return Waveform(to_float(audio), jnp.zeros(rows, jnp.int32), jnp.full(rows, samples, jnp.int32))
    joined = jnp.concatenate([batch["before"][:, have - margin :], audio, batch["after"][:, :margin]], axis=1)
    return Waveform(
        to_float(joined),
        margin - jnp.minimum(batch["real_before"], margin),
        margin + samples + jnp.minimum(batch["real_after"], margin),
    )
