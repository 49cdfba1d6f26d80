"""Other people's encoders as a function of theirs: `--encoder=module:function`.

def encode(waveform, rate):   # float32 (samples,) in [-1, 1], one window; samples a second
    return features           # (layers, frames, dims)

encode.sample_rate = 24000    # what it wants; 16000 where it does not say
"""

import hashlib
import importlib
import inspect
import numbers
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from musicssl_jax.errors import UserError
from musicssl_jax.mir.features.encoders import Clips, Encoded, Representation
from musicssl_jax.shapes import Float

_RATE = 16000
_TRIAL_SECONDS = 5.0


def user_function(name: str) -> Representation:
    """The encoder that `module:function` is, the module from the current directory or installed.

    It is called once a window. What it gives is asked of it with 5 and 10 s of noise. Its features are kept under the
    hash of its module's file: weights that it reads from elsewhere are taken to stay the same.
    Raises UserError: no such function, it fails, or does not return (layers, frames, dims).
    """
    function, source = _imported(name)
    rate = _sample_rate(function, name)
    noise = 0.1 * np.random.default_rng(0).standard_normal(round(2 * _TRIAL_SECONDS * rate))
    waveform = np.clip(noise, -1, 1).astype(np.float32)
    half, whole = (_called(function, name, part, rate) for part in (waveform[: len(waveform) // 2], waveform))
    layers, frames, width = whole.shape
    if (half.shape[0], half.shape[2]) != (layers, width):
        raise UserError(
            f"--encoder={name} returned {half.shape} for 5 s and {whole.shape} for 10 s: want the same number of "
            "layers and dims for every waveform"
        )
    frame_rate = (frames - half.shape[1]) / _TRIAL_SECONDS

    def encode(clips: Clips, chosen: tuple[int, ...]) -> Encoded:
        rows = []
        for audio, length in zip(clips.audio, clips.lengths, strict=True):
            row = _called(function, name, audio[:length].astype(np.float32) / 32768, rate)
            if (row.shape[0], row.shape[2]) != (layers, width):
                raise UserError(
                    f"--encoder={name} returned {row.shape} for {length} samples: want ({layers}, frames, {width}), as "
                    "for others"
                )
            rows.append(row)
        pooled = np.stack([row.mean(axis=1, dtype=np.float64) for row in rows], axis=1).astype(np.float32)
        return Encoded(pooled, [row[list(chosen)] for row in rows] if chosen else [])

    return Representation(
        name=name,
        kind="function",
        sha256=hashlib.sha256(name.encode() + source).hexdigest(),
        sample_rate=rate,
        layers=layers,
        width=width,
        frame_width=width,
        frame_rate=frame_rate,
        first_frame=0.5 / frame_rate if frame_rate else 0.0,
        encode=encode,
        notes=_notes(name, function, rate, frame_rate),
    )


def _imported(name: str) -> tuple[Callable[..., Any], bytes]:
    """The function, and the text of the file that it is in."""
    module_name, colon, function_name = name.partition(":")
    if not (module_name and colon and function_name):
        raise UserError(f"--encoder={name}: want module:function, for example my_encoders:mert")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        where = f"importing {module_name} failed: {_in_one_line(error)}"
        raise UserError(f"--encoder={name}: {where}; it is looked for in {Path.cwd()} and among packages") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        where = (
            getattr(module, "__file__", None) or f"module {module_name}"
        )  # which has none where Python has it built in
        raise UserError(f"--encoder={name}: {where} has no function {function_name}")
    try:
        return function, Path(inspect.getsourcefile(module) or "").read_bytes()
    except (OSError, TypeError):  # compiled
        return function, b""


def _sample_rate(function: Callable[..., Any], name: str) -> int:
    rate = getattr(function, "sample_rate", _RATE)
    is_number = isinstance(rate, numbers.Real) and not isinstance(rate, bool)
    if not is_number or not 0 < rate < np.inf or rate != int(rate):
        raise UserError(f"--encoder={name}: its sample_rate is {rate!r}: want samples a second, for example 24000")
    return int(rate)


def _called(
    function: Callable[..., Any], name: str, waveform: Float[np.ndarray, " samples"], rate: int
) -> Float[np.ndarray, "layers frames dims"]:
    asked = f"--encoder={name}, called with {len(waveform)} samples at {rate} Hz,"
    try:
        returned = function(waveform, rate)
    except Exception as error:
        raise UserError(f"{asked} failed: {_in_one_line(error)}") from error
    want = "want an array of numbers (layers, frames, dims)"
    try:
        array = np.asarray(returned)
    except Exception as error:
        raise UserError(f"{asked} returned {type(returned).__name__}: {_in_one_line(error)}; {want}") from error
    if array.dtype.kind not in "fiu" and array.dtype.name != "bfloat16":
        raise UserError(f"{asked} returned {type(returned).__name__} of {array.dtype}: {want}")
    if array.ndim != 3 or 0 in array.shape:
        raise UserError(f"{asked} returned an array of shape {array.shape}: {want}")
    features = array.astype(np.float32)
    if not np.isfinite(features).all():
        raise UserError(f"{asked} returned NaN or infinite values: {want}")
    return features


def _in_one_line(error: Exception) -> str:
    """What happened, and the last line of the user's code that it happened in."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}:{frames[-1].lineno})" if len(frames) > 1 else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{where}"


def _notes(name: str, function: Callable[..., Any], rate: int, frame_rate: float) -> tuple[str, ...]:
    notes = []
    if not hasattr(function, "sample_rate"):
        notes.append(f"{name} does not say its sample rate and gets audio of {rate} Hz ({name}.sample_rate = ...)")
    elif rate != _RATE:
        notes.append(f"{name} wants audio of {rate} Hz: every recording is resampled to that for it")
    if not frame_rate:
        notes.append(f"{name} gives as many frames for 5 as for 10 s: it cannot be asked for beats")
    return tuple(notes)
