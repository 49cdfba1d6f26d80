"""All that can stand in a table of results, as one thing: a function from clips of audio to features of layers."""

import dataclasses
import hashlib
import inspect
import warnings
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import numpy as np

from musicssl_jax.embedding.batching import Batch
from musicssl_jax.encoder_io import RANDOM, Weights, load_encoder, untrained_encoder
from musicssl_jax.errors import UserError
from musicssl_jax.frozen_encoder import FrozenEncoder
from musicssl_jax.mir import baselines
from musicssl_jax.mir.baselines import Baseline, baseline_frames
from musicssl_jax.shapes import Float, Int, Int16

EncoderKind = Literal["checkpoint", "random", "baseline", "function", "files"]

BASELINES: dict[str, Baseline] = {"mfcc": "MFCC", "chroma": "chroma", "mel": "log-mel"}
"""By the names that the command line has for them."""

_BASELINE_RATE, _BASELINE_HOP = 16000, 320  # what the paper's encoders hear, and how often they say something
_BATCH_SECONDS = 240  # of audio on an accelerator at a time
_MOST_ROWS = 64


class Clips(NamedTuple):
    """Windows of any recordings, one a row. mean, std: what each is normalised by, in [-1, 1], where an encoder
    normalises. lengths: samples of each row that are audio."""

    audio: Int16[np.ndarray, "B N"]
    mean: Float[np.ndarray, " B"]
    std: Float[np.ndarray, " B"]
    lengths: Int[np.ndarray, " B"]


class Encoded(NamedTuple):
    """Of every row one vector a layer; and, if frames were asked for, of every row those of the chosen layers."""

    pooled: Float[np.ndarray, "layers B width"]
    frames: list[Float[np.ndarray, "chosen T frame_width"]]


@dataclasses.dataclass(frozen=True, eq=False)
class Representation:
    """What is evaluated.

    name: for people. sha256: of all that its features follow from; features are kept under it. sample_rate: of the
    audio that it wants. layers: their count. width: of a window's vector; frame_width: of a frame's. frame_rate: frames
    a second, 0 if it has none; first_frame: the centre of the first one in seconds.
    encode(clips, chosen layers or none): a row's features depend on this row alone. rows: windows of so many seconds
    that a batch should have. flops: of a forward pass over so many samples, where that is known.
    notes: what the user should know, a line each.
    """

    name: str
    kind: EncoderKind
    sha256: str
    sample_rate: int
    layers: int
    width: int
    frame_width: int
    frame_rate: float
    first_frame: float
    encode: Callable[[Clips, tuple[int, ...]], Encoded] = dataclasses.field(repr=False)
    rows: Callable[[float], int] = dataclasses.field(repr=False, default=lambda seconds: 1)
    flops: Callable[[int], int] | None = dataclasses.field(repr=False, default=None)
    notes: tuple[str, ...] = ()


def checkpoint(
    path: str, *, weights: Weights = "student", precision: str | None = None, download: bool = False
) -> Representation:
    """The encoder that `load_encoder` finds at `path`; its kind is "random" for `random:CONFIG`.

    Raises UserError as `load_encoder`.
    """
    encoder = load_encoder(path, weights=weights, download=download)
    return of_encoder(encoder, "random" if path.startswith(RANDOM) else "checkpoint", precision=precision)


def untrained(path: str, *, precision: str | None = None, download: bool = False) -> Representation:
    """The encoder of the checkpoint at `path` before its training. Raises UserError as `untrained_encoder`."""
    return of_encoder(untrained_encoder(path, download=download), "random", precision=precision)


def of_encoder(
    encoder: FrozenEncoder, kind: EncoderKind = "checkpoint", *, precision: str | None = None
) -> Representation:
    """The means of all hidden states, 0 to the last. precision: "float32", "bfloat16", or the encoder's own."""
    if precision:
        encoder = encoder.with_precision(precision)
    return Representation(
        name=encoder.name,
        kind=kind,
        sha256=encoder.identity,
        sample_rate=encoder.sample_rate,
        layers=encoder.layers + 1,
        width=encoder.width,
        frame_width=encoder.width,
        frame_rate=encoder.sample_rate / encoder.hop,
        first_frame=encoder.receptive_field / 2 / encoder.sample_rate,
        encode=lambda clips, chosen: _encode(encoder, clips, chosen),
        rows=lambda seconds: encoder.rows(_rows_per_device(seconds)),
        flops=encoder.flops,
        notes=_rate_notes(encoder.name, encoder.sample_rate),
    )


def baseline(name: str) -> Representation:
    """MFCC, chroma or mel statistics: mean and standard deviation over a window's frames, 50 a second, as one layer.

    Raises UserError: no such baseline.
    """
    if name not in BASELINES:
        raise UserError(f"--baselines: no baseline {name!r}; there are {', '.join(BASELINES)} and random")
    title = BASELINES[name]
    width = _baseline_frames(title, np.zeros(_BASELINE_RATE, np.int16)).shape[1]

    def encode(clips: Clips, chosen: tuple[int, ...]) -> Encoded:
        frames = [_baseline_frames(title, audio[:n]) for audio, n in zip(clips.audio, clips.lengths, strict=True)]
        pooled = np.stack([np.concatenate([of_row.mean(axis=0), of_row.std(axis=0)]) for of_row in frames])
        return Encoded(pooled[None], [of_row[None] for of_row in frames] if chosen else [])

    return Representation(
        name=title,
        kind="baseline",
        sha256=hashlib.sha256(f"{title} {inspect.getsource(baselines)}".encode()).hexdigest(),
        sample_rate=_BASELINE_RATE,
        layers=1,
        width=2 * width,
        frame_width=width,
        frame_rate=_BASELINE_RATE / _BASELINE_HOP,
        first_frame=0.0,
        encode=encode,
    )


def _encode(encoder: FrozenEncoder, clips: Clips, chosen: tuple[int, ...]) -> Encoded:
    """On all local devices. Frames are asked for in one pass with the means, which are then taken of them here."""
    asked = len(clips.audio)
    clips = _filled(clips, encoder.rows(_rows_per_device(clips.audio.shape[1] / encoder.sample_rate)))
    counts = np.array([encoder.grid.count(int(length)) for length in clips.lengths])
    real = np.arange(encoder.grid.count(clips.audio.shape[1])) < counts[:, None]
    batch = Batch(*clips, segments=np.where(real, 0, -1).astype(np.int32))
    every = tuple(range(encoder.layers + 1))
    if not chosen:
        sums = np.asarray(encoder.states(batch, 1, layers=every))[:, :asked, 0]
        return Encoded(sums / counts[:asked, None].astype(np.float32), [])
    hidden = np.asarray(encoder.states(batch, 0, layers=every))
    rows = [hidden[:, row, : counts[row]] for row in range(asked)]
    means = np.stack([row.mean(axis=1, dtype=np.float64) for row in rows], axis=1)
    return Encoded(means.astype(np.float32), [row[list(chosen)] for row in rows])


def _filled(clips: Clips, rows: int) -> Clips:
    """With the first row once more where there are fewer: a batch always has the same shape."""
    return Clips(*(np.concatenate([part, np.repeat(part[:1], rows - len(part), axis=0)]) for part in clips))


def _rows_per_device(seconds: float) -> int:
    if jax.local_devices()[0].platform == "cpu":  # which a batch does not make faster
        return 1
    return min(_MOST_ROWS, max(1, round(_BATCH_SECONDS / seconds)))


def _baseline_frames(name: Baseline, pcm: Int16[np.ndarray, " samples"]) -> Float[np.ndarray, "T D"]:
    """Of less than half a second those of half a second of which the rest is silence: differences need 9 frames."""
    waveform = pcm.astype(np.float32) / 32768
    waveform = np.pad(waveform, (0, max(0, _BASELINE_RATE // 2 - len(waveform))))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of short or silent windows
        frames, _ = baseline_frames(name, waveform, sample_rate=_BASELINE_RATE, hop=_BASELINE_HOP)
    return frames[: 1 + len(pcm) // _BASELINE_HOP].astype(np.float32)


def _rate_notes(name: str, sample_rate: int) -> tuple[str, ...]:
    if sample_rate == _BASELINE_RATE:
        return ()
    return (f"{name} was trained on audio of {sample_rate} Hz: every recording is resampled to that for it",)
