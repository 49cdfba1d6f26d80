"""Mel-frequency cepstral coefficients as Kaldi computes them, with deltas: what HuBERT's first iteration predicts.

The reference is torchaudio's `compliance.kaldi.mfcc` as called by fairseq's `simple_kmeans`: waveform in [-1, 1],
no dither, no energy, snip_edges, else the defaults; deltas as torchaudio's `compute_deltas`.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from musicssl_jax.errors import UserError
from musicssl_jax.shapes import Array, Float, Int
from musicssl_jax.targets.features import Batch, Features, with_margin
from musicssl_jax.targets.filter_bank import FrameGrid, filtered, in_blocks

PRE_EMPHASIS = 0.97
MEL_BANDS = 23
LOWEST = 20.0  # Hz; the highest band ends at half the sample rate
LIFTER = 22
ENERGY_FLOOR = float(np.finfo(np.float32).eps)
REACH = 2  # frames on each side that a delta looks at: a regression over 5

Kernels = Mapping[str, Array]


def mfcc_with_deltas(name: str, grid: FrameGrid, *, cepstra: int) -> Features:
    """Cepstra, deltas and double deltas, 3 * `cepstra` a frame.

    A cepstrum's window is an encoder frame's receptive field and its shift half a hop: with the base conv stack at
    16 kHz Kaldi's 25 ms and 10 ms. Encoder frame i takes frame 2 i, whose samples are exactly those that the
    encoder sees. Its double deltas look 4 shifts further on both sides: a window of 1680 samples, 105 ms.

    Raises UserError when half a hop is no number of samples, or the window is too short for the mel bands.
    """
    sample_rate, hop, window = grid
    if hop % 2:
        raise UserError(f"{name} has two frames a hop and the encoder's hop is {hop}: use strides with an even product")
    shift = hop // 2
    kernels = mfcc_kernels(cepstra=cepstra, sample_rate=sample_rate, shift=shift, window=window)
    if not kernels["mel"].any(0).all():
        raise UserError(
            f"{name}: {window} samples at {sample_rate} Hz, the encoder's receptive field, are too short for "
            f"{MEL_BANDS} mel bands: use a conv stack that sees more, or another front end"
        )
    around = 2 * REACH
    margin = around * shift

    def apply(kernels: Kernels, batch: Batch) -> Float[Array, "B T W"]:
        samples, first, last = with_margin(batch, margin)
        statics = mfcc(kernels, samples, window=window)
        inside = -(-first // shift), (last - window) // shift
        speed = deltas(statics, *inside)
        every = jnp.concatenate([statics, speed, deltas(speed, *inside)], axis=-1)
        return every[:, around : every.shape[1] - around : 2]

    return Features(
        name=name,
        width=3 * cepstra,
        window=window + 2 * margin,
        margin=margin,
        description={
            "front_end": name,
            "kind": "Kaldi MFCC with deltas and double deltas",
            **grid._asdict(),
            "cepstra": cepstra,
            "mel_bands": MEL_BANDS,
            "lowest_hz": LOWEST,
            "pre_emphasis": PRE_EMPHASIS,
            "lifter": LIFTER,
            "energy_floor": ENERGY_FLOOR,
            "delta_frames": 2 * REACH + 1,
        },
        kernels=kernels,
        apply=apply,
    )


def mfcc(kernels: Kernels, waveform: Float[Array, "B N"], *, window: int) -> Float[Array, "B J C"]:
    """Static cepstra of a waveform in [-1, 1]; frame j covers `window` samples from `shift` * j, and all are inside."""
    shift = kernels["spectrum"].shape[1]
    count = (waveform.shape[1] - window) // shift + 1
    real, imaginary = jnp.split(filtered(waveform, kernels["spectrum"], first=0, count=count), 2, axis=-1)
    energies = jnp.matmul(real**2 + imaginary**2, kernels["mel"], precision=jax.lax.Precision.HIGHEST)
    log_energies = jnp.log(jnp.maximum(energies, ENERGY_FLOOR))
    return jnp.matmul(log_energies, kernels["cepstra"], precision=jax.lax.Precision.HIGHEST)


def mfcc_kernels(*, cepstra: int, sample_rate: int, shift: int, window: int) -> dict[str, np.ndarray]:
    """What `mfcc` multiplies with: "spectrum" (K, shift, 2F) in blocks, "mel" (F, bands), "cepstra" (bands, C).

    All that Kaldi does before it squares is linear, and one matrix here: subtract the frame's mean, pre-emphasis,
    povey window, Fourier transform of the next power of two.
    """
    size = 1 << (window - 1).bit_length()
    n, k, band = np.arange(window), np.arange(size // 2), np.arange(MEL_BANDS)
    without_mean = np.eye(window) - 1 / window
    emphasis = np.eye(window) - PRE_EMPHASIS * np.eye(window, k=1)
    # Zero at the first sample, whose predecessor is therefore of no account.
    povey = (0.5 - 0.5 * np.cos(2 * np.pi * n / (window - 1))) ** 0.85
    phase = 2 * np.pi * n[:, None] * k / size
    fourier = povey[:, None] * np.concatenate([np.cos(phase), np.sin(phase)], axis=1)

    lifter = 1 + LIFTER / 2 * np.sin(np.pi * np.arange(cepstra) / LIFTER)
    cosines = np.cos(np.pi / MEL_BANDS * (band[:, None] + 0.5) * np.arange(cepstra)) * np.sqrt(2 / MEL_BANDS)
    cosines[:, 0] = np.sqrt(1 / MEL_BANDS)
    return {
        "spectrum": in_blocks(without_mean @ emphasis @ fourier, shift),
        "mel": _mel_triangles(k * sample_rate / size, sample_rate).astype(np.float32),
        "cepstra": (cosines * lifter).astype(np.float32),
    }


def _mel_triangles(frequencies: Float[np.ndarray, " F"], sample_rate: int) -> Float[np.ndarray, "F bands"]:
    """Triangles of height 1 on the mel scale itself, equally spaced from `LOWEST` to half the sample rate."""

    def mel(hertz):
        return 1127 * np.log1p(hertz / 700)

    corners = np.linspace(mel(LOWEST), mel(sample_rate / 2), MEL_BANDS + 2)
    place = (mel(frequencies)[:, None] - corners[0]) / (corners[1] - corners[0])
    return np.maximum(0, 1 - abs(place - np.arange(1, MEL_BANDS + 1)))


def deltas(frames: Float[Array, "B J W"], first: Int[Array, " B"], last: Int[Array, " B"]) -> Float[Array, "B J W"]:
    """sum_n n (frame[j + n] - frame[j - n]) / (2 sum_n n^2), n = 1, 2, at each frame j.

    Frames before number `first` of a row count as that one, and those after number `last` likewise.
    """
    count = frames.shape[1]
    held = jnp.clip(jnp.arange(count), first[:, None], last[:, None])
    frames = jnp.take_along_axis(frames, held[..., None], axis=1)
    frames = jnp.pad(frames, ((0, 0), (REACH, REACH), (0, 0)), mode="edge")

    def moved(by: int):
        return frames[:, REACH + by : REACH + by + count]

    steps = range(1, REACH + 1)
    return sum(n * (moved(n) - moved(-n)) for n in steps) / (2 * sum(n**2 for n in steps))
