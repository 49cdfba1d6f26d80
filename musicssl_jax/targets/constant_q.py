"""Constant-Q frames: as many bins in every octave, each heard through as many periods of its own frequency."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from musicssl_jax.shapes import Array, Float
from musicssl_jax.targets.features import Batch, Features, with_margin
from musicssl_jax.targets.filter_bank import FrameGrid, margin_of, power, sinusoids

LOWEST = 32.703  # Hz: C1
OCTAVES = 7
QUIET = 1e-3


def constant_q(name: str, grid: FrameGrid, *, bins: int) -> Features:
    """log(1 + 1000 |X|) of `bins` an octave, 7 octaves from C1 (32.7 Hz).

    X_k = sum_n w_k(n) x(n) exp(-2 pi i f_k n / sample_rate) around the centre of the encoder's frame, zeros beyond
    the track; f_k = 32.703 * 2^(k / bins) Hz; w_k a Hann window of Q sample_rate / f_k samples, scaled so that a
    sine of amplitude 1 has |X_k| = 1. Q = 1 / tanh(ln 2 / bins) is librosa's: the mean of a bin's neighbours over
    half their distance, close to Brown's (1991) 1 / (2^(1 / bins) - 1). The logarithm is ours, linear under 1/1000.

    The window is the lowest bin's: at 16 kHz and 12 bins 8480 samples (0.53 s), at 48 bins 33883 (2.12 s).
    Filters of higher octaves are shorter, and each octave is a convolution of its own length.

    Raises UserError when the sample rate is below 8373 Hz.
    """
    grid.check_range(name, LOWEST * 2**OCTAVES)
    frequencies = LOWEST * 2 ** (np.arange(OCTAVES * bins) / bins)
    lengths = grid.sample_rate / frequencies / np.tanh(np.log(2) / bins)
    octaves = zip(frequencies.reshape(OCTAVES, bins), lengths.reshape(OCTAVES, bins), strict=True)
    kernels = [sinusoids(f, length, grid) for f, length in octaves]
    margin = margin_of(kernels[0], grid)

    def apply(kernels: Sequence[Array], batch: Batch) -> Float[Array, "B T W"]:
        audio, count = with_margin(batch, margin).samples, grid.count(batch["audio"].shape[1])
        powers = [power(audio, octave, first=margin + grid.centre, count=count) for octave in kernels]
        return jnp.log1p(jnp.sqrt(jnp.concatenate(powers, axis=-1)) / QUIET)

    return Features(
        name=name,
        width=len(frequencies),
        window=int(np.ceil(lengths[0])),
        margin=margin,
        description={
            "front_end": name,
            "kind": "constant-Q magnitude: log(1 + magnitude / quiet)",
            **grid._asdict(),
            "bins_per_octave": bins,
            "octaves": OCTAVES,
            "lowest_hz": LOWEST,
            "quiet": QUIET,
        },
        kernels=kernels,
        apply=apply,
    )
