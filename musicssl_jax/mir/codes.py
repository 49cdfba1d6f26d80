"""The labels that a musicHuBERT run was trained on, as features: what a codebook alone knows of music."""

import functools
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from musicssl_jax.config import from_json
from musicssl_jax.models.conv_encoder import hop_and_receptive_field
from musicssl_jax.shapes import Float
from musicssl_jax.targets.codebook import load_codebook
from musicssl_jax.targets.open_targets import codebook_folders, make_features
from musicssl_jax.targets.target_set import TargetSet

Frames = tuple[Float[np.ndarray, "layers T D"], Float[np.ndarray, " T"]]


def bag_of_codes(run: Path) -> Callable[[Float[np.ndarray, " samples"]], Frames]:
    """A function of a waveform: one hot vector a frame and label set, whose mean over a window is the histogram of its
    labels, and the frames' centres in seconds. UserError: the run has no codebooks, or they are damaged."""
    config = from_json((run / "config.json").read_text())
    fronts = [make_features(target, config) for target in config.targets]
    centroids = [load_codebook(folder).centroids for folder in codebook_folders(config, run)]
    sets = tuple(TargetSet(f.kernels, c, f.apply) for f, c in zip(fronts, centroids, strict=True))
    margin = max(features.margin for features in fronts)
    hop, field = hop_and_receptive_field(config.model.conv_layers)

    def codes(sets, waveform):
        outside = jnp.zeros((1, margin), waveform.dtype)
        nothing = jnp.zeros(1, jnp.int32)
        batch = {"audio": waveform[None], "before": outside, "after": outside}
        batch |= {"real_before": nothing, "real_after": nothing, "mean": jnp.zeros(1), "std": jnp.ones(1)}
        return jnp.concatenate([jax.nn.one_hot(s.labels(batch)[0], len(s.centroids)) for s in sets], axis=-1)

    compiled = functools.partial(jax.jit(codes), sets)

    def represent(waveform):
        frames = np.asarray(compiled(waveform))
        return frames[None], (np.arange(len(frames)) * hop + field / 2) / config.data.sample_rate

    return represent
