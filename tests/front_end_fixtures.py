"""Crops of a track with their margins, and the frames that a front end makes of them."""

import functools

import jax
import numpy as np

from data_pipelines.musicbox import render_track
from musicssl_jax.targets.features import Features
from musicssl_jax.targets.front_ends import make_front_end

HOP, FIELD, CENTRE = 320, 400, 200  # of the base conv stack's frames

front_end = functools.cache(make_front_end)


@functools.cache
def track(samples: int, family: str = "additive", sample_rate: int = 16000) -> np.ndarray:
    """The beginning of a musicbox track, int16."""
    waveform, _ = render_track(7, family, seconds=6.0, sample_rate=sample_rate)
    return np.round(waveform[:samples] * 32767).astype(np.int16)


def crops(track: np.ndarray, starts: list[int], samples: int, margin: int) -> dict[str, np.ndarray]:
    """A batch as the data pipeline makes it: zeros outside of the track, and how much of the margins is inside."""
    padded = np.concatenate([np.zeros(margin, np.int16), track, np.zeros(margin, np.int16)])
    begin = np.array(starts)
    return {
        "audio": np.stack([track[start : start + samples] for start in starts]),
        "before": np.stack([padded[start : start + margin] for start in starts]),
        "after": np.stack([padded[start + margin + samples :][:margin] for start in starts]),
        "real_before": np.minimum(margin, begin).astype(np.int32),
        "real_after": np.minimum(margin, len(track) - begin - samples).astype(np.int32),
    }


def frames_of(features: Features, track: np.ndarray, starts: list[int] | None = None, samples: int = 0) -> np.ndarray:
    """Frames (rows, T, W) of the crops that begin at `starts`, by default (T, W) of the track as one crop."""
    batch = crops(track, starts or [0], samples or len(track), features.margin)
    frames = np.asarray(jax.jit(features.apply)(features.kernels, batch))
    return frames if starts else frames[0]
