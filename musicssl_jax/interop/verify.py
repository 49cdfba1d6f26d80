"""Proof of a conversion: equal tensors read back, and equal hidden states beside transformers' own class."""

import hashlib
import importlib.util
import tempfile
from pathlib import Path

import jax
import numpy as np

from musicssl_jax.errors import UserError
from musicssl_jax.interop.pretrained import Pretrained, nested
from musicssl_jax.interop.transformers_config import check_expressible
from musicssl_jax.interop.transformers_folder import write_transformers
from musicssl_jax.models.encoder import EncoderConfig, encoder_with, hidden_states
from musicssl_jax.shapes import Float

LARGEST_DIFFERENCE = 1e-4
"""Of a hidden state, as a share of its largest value: what two float32 programs may differ by."""


def checksum(model: Pretrained) -> str:
    """SHA-256 over names and shapes of all parameters, the teacher's too, by our names."""
    named = {f"params/{n}": v for n, v in model.params.items()} | {f"teacher/{n}": v for n, v in model.teacher.items()}
    lines = [f"{name} {list(value.shape)}\n" for name, value in sorted(named.items())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def differing(before: Pretrained, after: Pretrained) -> list[str]:
    """Names of parameters that are not bit for bit the same in both."""
    wrong = []
    for part in ("params", "teacher"):
        one, other = getattr(before, part), getattr(after, part)
        for name in sorted(one.keys() | other.keys()):
            same = name in one and name in other and one[name].shape == other[name].shape
            if not same or one[name].tobytes() != other[name].tobytes():
                wrong.append(f"{part}/{name}")
    return wrong


def check_comparable(model: Pretrained) -> None:
    """UserError: transformers or PyTorch is not installed, or has no class for this model."""
    check_expressible(model.config)
    for package in ("torch", "transformers"):
        if importlib.util.find_spec(package) is None:
            raise UserError(f"--verify compares with transformers on PyTorch: {package} is not installed")


def differences(model: Pretrained, folder: Path | None, waveform: Float[np.ndarray, " N"]) -> list[tuple[str, float]]:
    """(name, largest difference as a share of the largest value) of each hidden state, ours beside transformers'.

    folder: a transformers folder of the same model; None: one is written for the purpose, as for fairseq's files, whose
    program does not run on today's Python. waveform: mono at the model's rate; the folder's feature extractor makes of
    it what both sides hear.
    UserError: as of `check_comparable`.
    """
    with tempfile.TemporaryDirectory(prefix="musicssl-verify-") as scratch:
        if folder is None:
            folder = Path(scratch, "model")
            write_transformers(model, folder, license="", scores={})
        audio, theirs = _transformers_states(folder, waveform, model.config.data.sample_rate)
    ours = _our_states(model, audio)
    compared = []
    for name, (one, other) in zip(_names(len(ours)), zip(ours, theirs, strict=True), strict=True):
        compared.append((name, float(np.abs(one - other).max() / np.abs(other).max())))
    return compared


def _names(count: int) -> list[str]:
    return ["conv features", *(f"hidden state {i}" for i in range(count - 1))]


def _our_states(model: Pretrained, audio: Float[np.ndarray, "1 N"]) -> list[np.ndarray]:
    """Features of the conv stack, then the hidden states as transformers numbers them, in float32."""
    config = model.config
    encoder_config = EncoderConfig(**config.model, dtype="float32")
    apply = jax.jit(lambda params, audio: hidden_states(encoder_with(encoder_config, params), audio))
    states = jax.device_get(apply(nested(model.encoder), audio))
    # transformers' last hidden state is behind the final norm of a model that normalises first.
    hidden = [*states["hidden"][:-1], states["last"]] if config.model.norm_first else list(states["hidden"])
    return [states["conv"][0], *(state[0] for state in hidden)]


def _transformers_states(
    folder: Path, waveform: Float[np.ndarray, " N"], rate: int
) -> tuple[Float[np.ndarray, "1 N"], list[np.ndarray]]:
    """(what the feature extractor makes of the waveform, the same states of transformers' class)."""
    import torch
    from transformers import AutoFeatureExtractor, AutoModel

    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    if (folder / "preprocessor_config.json").is_file():
        extractor = AutoFeatureExtractor.from_pretrained(folder)
        inputs = extractor(waveform, sampling_rate=rate, return_tensors="pt")["input_values"]
    else:
        inputs = torch.from_numpy(waveform[None].astype(np.float32))
    with torch.no_grad():
        output = model(inputs, output_hidden_states=True)
        conv = model.feature_extractor(inputs).transpose(1, 2)
    # The last of transformers 5's hidden states is not behind the final norm, that of 4's is.
    states = [*output.hidden_states[:-1], output.last_hidden_state]
    return inputs.numpy(), [conv[0].numpy(), *(state[0].numpy() for state in states)]
