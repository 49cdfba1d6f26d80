"""What music features were before encoders: MFCC, log-mel and chroma frames, at the encoders' frame rate."""

from typing import Literal

import librosa
import numpy as np

from musicssl_jax.shapes import Float

Baseline = Literal["MFCC", "log-mel", "chroma"]
BASELINES: tuple[Baseline, ...] = ("MFCC", "log-mel", "chroma")


def baseline_frames(
    name: Baseline, waveform: Float[np.ndarray, "N"], *, sample_rate: int, hop: int
) -> tuple[Float[np.ndarray, "T D"], Float[np.ndarray, "T"]]:
    """Features of every frame and the frames' centres in seconds.

    MFCC: 20 coefficients with first and second differences (the baseline of Castellon et al. 2021, "Codified
    audio language modeling learns useful representations for music information retrieval"). log-mel: 128 bands in
    decibels. chroma: 12 pitch classes of a constant-Q transform, each frame divided by its maximum.
    """
    if name == "chroma":
        frames = librosa.feature.chroma_cqt(y=waveform, sr=sample_rate, hop_length=hop)
    else:
        mel = librosa.feature.melspectrogram(
            y=waveform, sr=sample_rate, n_fft=_power_of_two(0.064 * sample_rate), hop_length=hop, n_mels=128
        )
        frames = librosa.power_to_db(mel)
    if name == "MFCC":
        mfcc = librosa.feature.mfcc(S=frames, n_mfcc=20)
        frames = np.concatenate([mfcc, librosa.feature.delta(mfcc), librosa.feature.delta(mfcc, order=2)])
    return frames.T, np.arange(frames.shape[1]) * hop / sample_rate


def _power_of_two(samples: float) -> int:
    return 1 << round(np.log2(samples))
