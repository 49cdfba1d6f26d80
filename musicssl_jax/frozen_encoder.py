"""A trained encoder as a function of a waveform: windows, hidden states, times."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from musicssl_jax.models.conv_encoder import hop_and_receptive_field
from musicssl_jax.models.encoder import EncoderConfig, encoder_with, hidden_states, normalize, to_float
from musicssl_jax.shapes import Float, Int16

Audio = Float[np.ndarray, " samples"] | Int16[np.ndarray, " samples"]

SMALLEST_WINDOW = 50
"""Frames; what is shorter is padded to it, so that few window sizes are ever compiled."""


@dataclass(frozen=True)
class FrozenEncoder:
    """Call it with a waveform; see `musicssl_jax.load_encoder`.

    sample_rate: that waveforms must have. hop, receptive_field: of a frame, in samples. layers: transformer blocks
    (hidden states are numbered from 0, the blocks' input, to `layers`). width: of a hidden state.
    name: where the parameters came from.
    """

    name: str
    sample_rate: int
    hop: int
    receptive_field: int
    layers: int
    width: int
    _apply: Callable[..., jax.Array]

    def __call__(
        self,
        waveform: Audio,
        *,
        mean: float | None = None,
        std: float | None = None,
        window_seconds: float = 30.0,
    ) -> dict[str, np.ndarray]:
        """hidden (layers + 1, T, width) float32, and times (T,): the frames' centres in seconds.

        A waveform longer than `window_seconds` is encoded window by window: frames attend within their window only.
        `mean`, `std`: of the whole track in [-1, 1], if `waveform` is a part of it.
        Raises ValueError for a waveform shorter than one frame.
        """
        parts = [hidden for _, hidden in self.windows(waveform, mean=mean, std=std, window_seconds=window_seconds)]
        hidden = np.concatenate(parts, axis=1)
        return {"hidden": hidden, "times": self.times(hidden.shape[1])}

    def times(self, frames: int) -> Float[np.ndarray, " frames"]:
        """Centres of the first `frames` frames in seconds."""
        return (np.arange(frames) * self.hop + self.receptive_field / 2) / self.sample_rate

    def windows(
        self,
        waveform: Audio,
        *,
        mean: float | None = None,
        std: float | None = None,
        window_seconds: float = 30.0,
    ) -> Iterator[tuple[int, Float[np.ndarray, "layers frames width"]]]:
        """(number of its first frame, hidden states) of each window; the windows' frames follow on each other.

        A window holds window_seconds / hop frames; the last one reaches back so far that it is as long, and gives
        the frames that are left. Only a waveform shorter than a window is padded, to the next of its halves.
        """
        frames = self._frames(len(waveform))
        if frames < 1:
            raise ValueError(f"{len(waveform)} samples are less than one frame ({self.receptive_field} samples)")
        statistics = _statistics(waveform, mean, std)
        size = max(SMALLEST_WINDOW, round(window_seconds * self.sample_rate / self.hop))
        while frames <= size // 2 >= SMALLEST_WINDOW:
            size //= 2
        for first in range(0, frames, size):
            start = max(0, min(first, frames - size))
            audio = waveform[start * self.hop :][: self._samples(size)]
            padded = np.pad(audio, (0, self._samples(size) - len(audio)))[None]
            hidden = self._apply(padded, *statistics, np.array([len(audio)]))
            yield first, np.asarray(hidden[:, 0, first - start : min(size, frames - start)], np.float32)

    def _samples(self, frames: int) -> int:
        return (frames - 1) * self.hop + self.receptive_field

    def _frames(self, samples: int) -> int:
        return (samples - self.receptive_field) // self.hop + 1


def frozen_encoder(config: Any, params: dict, *, name: str) -> FrozenEncoder:
    """The encoder whose parameters are `params`, in the precision that the config trains in."""
    encoder_config = EncoderConfig(**config.model, dtype=config.precision)

    def apply(params, audio, mean, std, lengths):
        waveform = normalize(audio, mean, std) if config.data.normalize else to_float(audio)
        return hidden_states(encoder_with(encoder_config, params), waveform, lengths, sealed=True)["hidden"]

    hop, field = hop_and_receptive_field(config.model.conv_layers)
    return FrozenEncoder(
        name=name,
        sample_rate=config.data.sample_rate,
        hop=hop,
        receptive_field=field,
        layers=config.model.layers,
        width=config.model.width,
        _apply=functools.partial(jax.jit(apply), params),
    )


def _statistics(
    waveform: Audio, mean: float | None, std: float | None
) -> tuple[Float[np.ndarray, " one"], Float[np.ndarray, " one"]]:
    """Mean and standard deviation of the waveform in [-1, 1], unless they are given."""
    scale = 1 / 32768 if waveform.dtype == np.int16 else 1.0
    if mean is None:
        mean = float(np.mean(waveform, dtype=np.float64)) * scale
    if std is None:
        std = float(np.std(waveform, dtype=np.float64)) * scale
    return np.array([mean], np.float32), np.array([std], np.float32)
