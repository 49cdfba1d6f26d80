"""Log-mel and chroma frames: two ways to add up the bins of one short-time power spectrum.

The spectrum's Hann window stands on the centre of the encoder's frame, zeros beyond the track, and a sine of
amplitude 1 has power 1.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from musicssl_jax.shapes import Array, Float
from musicssl_jax.targets.features import Batch, Features, with_margin
from musicssl_jax.targets.filter_bank import FrameGrid, margin_of, power, sinusoids

MEL_SECONDS = 0.128  # 2048 samples at 16 kHz
MEL_BANDS = 229
MEL_RANGE = (30.0, 8000.0)  # Hz
MEL_FLOOR = 1e-10

CHROMA_SECONDS = 0.256  # 4096 samples at 16 kHz
CHROMA_RANGE = (65.406, 4186.009)  # Hz: C2 to C8
CHROMA_FLOOR = 1e-8
A4 = 440.0


def log_mel(name: str, grid: FrameGrid) -> Features:
    """log(energy + 1e-10) of 229 mel bands from 30 to 8000 Hz; a window of 2048 samples (128 ms) at 16 kHz.

    Window, range and number of bands are those of piano transcription ("Onsets and Frames", Hawthorne et al. 2018).
    The bands, `mel_triangles`, have equal areas: white noise is flat over them. The floor is 91 dB under a sine of
    amplitude 1 in the lowest band and 35 dB over the rounding noise of 16 bits: dithered silence is silence.

    Raises UserError when the sample rate is below 16 kHz.
    """
    window = _even(MEL_SECONDS * grid.sample_rate)
    frequencies = _bins(name, grid, window, *MEL_RANGE)
    bands = mel_triangles(frequencies, MEL_BANDS, *MEL_RANGE)
    settings = {
        "kind": "log of mel bands: HTK scale, triangles of equal area",
        "range_hz": list(MEL_RANGE),
        "floor": MEL_FLOOR,
    }

    def log(energies: Array) -> Array:
        return jnp.log(energies + MEL_FLOOR)

    return _weighted_spectrum(name, grid, window, frequencies, bands, log, settings)


def chroma(name: str, grid: FrameGrid, *, bins: int) -> Features:
    """Power in `bins` pitch classes from C, to unit length; a window of 4096 samples (256 ms) at 16 kHz.

    Our own definition: the spectrum from C2 (65.4 Hz) to C8 (4186 Hz), A4 = 440 Hz, given to `pitch_classes`,
    every octave alike. A frame's Euclidean length is 1 where that of its power was above 1e-8 (80 dB under a sine
    of amplitude 1) and falls to 0 with the power below it: silence is the zero vector.

    Raises UserError when the sample rate is below 8373 Hz.
    """
    window = _even(CHROMA_SECONDS * grid.sample_rate)
    frequencies = _bins(name, grid, window, *CHROMA_RANGE)
    classes = pitch_classes(frequencies, bins, spacing=grid.sample_rate / window)
    settings = {
        "kind": "chroma: power in pitch classes from C, unit length",
        "range_hz": list(CHROMA_RANGE),
        "tuning_hz": A4,
        "floor": CHROMA_FLOOR,
    }

    def to_unit_length(energies: Array) -> Array:
        length = jnp.linalg.norm(energies, axis=-1, keepdims=True)
        return energies / jnp.maximum(length, CHROMA_FLOOR)

    return _weighted_spectrum(name, grid, window, frequencies, classes, to_unit_length, settings)


def mel_triangles(
    frequencies: Float[np.ndarray, " F"], bands: int, low: float, high: float
) -> Float[np.ndarray, "F bands"]:
    """Weights of triangles between corners equally spaced on the HTK mel scale, 2595 log10(1 + f / 700).

    Straight in Hz and of area 1 (height 2 / width), which is librosa's `mel(htk=True, norm="slaney")`.
    """
    mels = np.linspace(2595 * np.log10(1 + low / 700), 2595 * np.log10(1 + high / 700), bands + 2)
    corners = 700 * (10 ** (mels / 2595) - 1)
    left, middle, right = corners[:-2], corners[1:-1], corners[2:]
    rising = (frequencies[:, None] - left) / (middle - left)
    falling = (right - frequencies[:, None]) / (right - middle)
    return np.maximum(0, np.minimum(rising, falling)) * 2 / (right - left)


def pitch_classes(frequencies: Float[np.ndarray, " F"], bins: int, *, spacing: float) -> Float[np.ndarray, "F bins"]:
    """How much a frequency belongs to each pitch class: a Gaussian of their distance, each frequency of unit length.

    Its deviation is half a class, or half of the distance to the next frequency of the spectrum (`spacing` Hz
    higher) where classes are closer than that: librosa's `filters.chroma` without its octave weights.
    """
    pitch = bins * (np.log2(frequencies / A4) + 9 / 12)  # C is 0
    apart = np.maximum(1, bins * np.log2(1 + spacing / frequencies))
    distance = (pitch[:, None] - np.arange(bins) + bins / 2) % bins - bins / 2
    weights = np.exp(-0.5 * (2 * distance / apart[:, None]) ** 2)
    return weights / np.linalg.norm(weights, axis=1, keepdims=True)


def _even(samples: float) -> int:
    return 2 * round(samples / 2)


def _bins(name: str, grid: FrameGrid, window: int, low: float, high: float) -> Float[np.ndarray, " F"]:
    """The frequencies from `low` to `high` of the Fourier transform of a window."""
    grid.check_range(name, high)
    frequencies = np.arange(window // 2 + 1) * grid.sample_rate / window
    return frequencies[(frequencies >= low) & (frequencies <= high)]


def _weighted_spectrum(
    name: str,
    grid: FrameGrid,
    window: int,
    frequencies: Float[np.ndarray, " F"],
    weights: Float[np.ndarray, "F W"],
    finish: Callable[[Array], Array],
    settings: dict[str, Any],
) -> Features:
    """Frames `finish(spectrum @ weights)`."""
    filters = sinusoids(frequencies, window, grid)
    margin = margin_of(filters, grid)

    def apply(kernels: Mapping[str, Array], batch: Batch) -> Float[Array, "B T W"]:
        audio, count = with_margin(batch, margin).samples, grid.count(batch["audio"].shape[1])
        spectrum = power(audio, kernels["sinusoids"], first=margin + grid.centre, count=count)
        return finish(jnp.matmul(spectrum, kernels["weights"], precision=jax.lax.Precision.HIGHEST))

    return Features(
        name=name,
        width=weights.shape[1],
        window=window,
        margin=margin,
        description={"front_end": name, **grid._asdict(), "window": window, **settings},
        kernels={"sinusoids": filters, "weights": weights.astype(np.float32)},
        apply=apply,
    )
