"""Filters over audio, a hop at a time: what every front end begins with.

A bank of filters is kept in blocks of a hop, so that all frames of all filters are one convolution over blocks:
a matrix product on every kind of device, which follows the sharding of the rows (an FFT would gather them) and
needs no copy of a window per frame.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from musicssl_jax.errors import UserError
from musicssl_jax.models.conv_encoder import hop_and_receptive_field
from musicssl_jax.models.convolution import conv1d
from musicssl_jax.shapes import Array, Float


class FrameGrid(NamedTuple):
    """Where the encoder's frames lie: frame i covers `receptive_field` samples from `hop` * i."""

    sample_rate: int
    hop: int
    receptive_field: int

    @property
    def centre(self) -> int:
        """The sample in the middle of frame 0."""
        return self.receptive_field // 2

    def count(self, samples: int) -> int:
        """Frames of so many samples."""
        return (samples - self.receptive_field) // self.hop + 1

    def check_range(self, name: str, highest: float) -> None:
        """Raises UserError when the audio does not reach up to `highest` Hz."""
        if highest > self.sample_rate / 2:
            raise UserError(
                f"{name} needs frequencies up to {highest:g} Hz and audio of {self.sample_rate} Hz ends at "
                f"{self.sample_rate / 2:g}: build the data at a higher sample rate, or choose another front end"
            )


def frame_grid(config: Any) -> FrameGrid:
    """Where the frames of the config's encoder lie."""
    return FrameGrid(config.data.sample_rate, *hop_and_receptive_field(config.model.conv_layers))


def in_blocks(filters: Float[np.ndarray, "L F"], hop: int) -> Float[np.ndarray, "K hop F"]:
    """Filters of L samples as float32 in the fewest blocks of a hop that hold them, with zeros after the last."""
    blocks = -(-len(filters) // hop)
    filled = np.pad(filters, ((0, blocks * hop - len(filters)), (0, 0)))
    return filled.reshape(blocks, hop, -1).astype(np.float32)


def filtered(
    audio: Float[Array, "B N"], filters: Float[Array, "K hop F"], *, first: int, count: int
) -> Float[Array, "B T F"]:
    """Inner products of the filters with the samples from `first`, `first` + hop ..., `count` times.

    Float32 at the highest precision. Samples beyond the end of the audio are zeros.
    """
    blocks, hop, _ = filters.shape
    size = (count + blocks - 1) * hop
    used = audio[:, first : first + size]
    used = jnp.pad(used, ((0, 0), (0, size - used.shape[1])))
    return conv1d(used.reshape(len(audio), -1, hop), filters)


def sinusoids(
    frequencies: Float[np.ndarray, " F"], lengths: Float[np.ndarray, " F"] | int, grid: FrameGrid
) -> Float[np.ndarray, "K hop G"]:
    """Complex sinusoids in Hann windows, cosines and then sines (G = 2 F), for `power`.

    Filter k at n samples from the middle (half of all blocks) is w(n) exp(2 pi i frequencies_k n / sample_rate) with
    w(n) = cos(pi n / lengths_k)^2 for |n| < lengths_k / 2, the periodic Hann window where the length is even. It is
    scaled so that a sine of this frequency and amplitude 1 has a response of 1.
    """
    size = -(-int(np.ceil(np.max(lengths))) // grid.hop) * grid.hop
    n = np.arange(size)[:, None] - size // 2
    window = np.where(abs(n) < np.divide(lengths, 2), np.cos(np.pi * n / lengths) ** 2, 0.0)
    window *= 2 / window.sum(0)
    phase = 2 * np.pi * n * frequencies / grid.sample_rate
    return in_blocks(np.concatenate([window * np.cos(phase), window * np.sin(phase)], axis=1), grid.hop)


def margin_of(filters: Float[np.ndarray, "K hop G"], grid: FrameGrid) -> int:
    """Samples beyond a crop that filters in the middle of its frames reach."""
    blocks, hop, _ = filters.shape
    return max(0, (blocks * hop + 1) // 2 - grid.centre)


def power(
    audio: Float[Array, "B N"], filters: Float[Array, "K hop G"], *, first: int, count: int
) -> Float[Array, "B T F"]:
    """|response|^2 of `sinusoids` whose middle stands on sample `first`, `first` + hop ..., `count` times."""
    blocks, hop, _ = filters.shape
    real, imaginary = jnp.split(filtered(audio, filters, first=first - blocks * hop // 2, count=count), 2, axis=-1)
    return real**2 + imaginary**2
