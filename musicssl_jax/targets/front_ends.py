"""The front ends by name."""

from collections.abc import Callable
from functools import partial

from musicssl_jax.errors import UserError
from musicssl_jax.targets.constant_q import constant_q
from musicssl_jax.targets.features import Features
from musicssl_jax.targets.filter_bank import FrameGrid
from musicssl_jax.targets.kaldi import mfcc_with_deltas
from musicssl_jax.targets.spectrogram import chroma, log_mel

_MAKERS: dict[str, Callable[[str, FrameGrid], Features]] = {
    "mfcc39": partial(mfcc_with_deltas, cepstra=13),
    "mfcc60": partial(mfcc_with_deltas, cepstra=20),  # our reading of the paper's run name, MFCC_dim_60
    "logmel229": log_mel,
    "chroma12": partial(chroma, bins=12),
    "chroma24": partial(chroma, bins=24),
    "cqt84": partial(constant_q, bins=12),
    "cqt336": partial(constant_q, bins=48),
}

FRONT_ENDS = tuple(_MAKERS)


def make_front_end(name: str, *, sample_rate: int = 16000, hop: int = 320, receptive_field: int = 400) -> Features:
    """The front end of this name for an encoder's frames: frame i covers `receptive_field` samples from `hop` * i.

    Windows at 16 kHz: mfcc39 and mfcc60 105 ms, logmel229 128 ms, chroma12 and chroma24 256 ms, cqt84 0.53 s,
    cqt336 2.12 s. Raises UserError on another name, and when the sample rate or the frames do not suit it.
    """
    if name not in _MAKERS:
        raise UserError(f"there is no front end {name!r}: choose one of {', '.join(FRONT_ENDS)}")
    return _MAKERS[name](name, FrameGrid(sample_rate, hop, receptive_field))
