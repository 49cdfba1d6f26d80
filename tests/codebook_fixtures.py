"""A front end small enough for tests, crops of music made for it, and codebooks fitted to them."""

import jax.numpy as jnp
import numpy as np

from musicssl_jax.models.encoder import to_float
from musicssl_jax.parallel import make_mesh
from musicssl_jax.targets.features import Features
from musicssl_jax.targets.filter_bank import FrameGrid
from musicssl_jax.targets.fitting import FitOptions, fit_codebook
from musicssl_jax.training.batches import BatchPlan
from musicssl_jax.training.step import batch_sharding

GRID = FrameGrid(16000, 320, 400)
CLIPS, SAMPLES, FRAMES = 6, 3600, 11
SMALL = FitOptions(
    batch_frames=150, frames_per_crop=5, initial_frames=200, restarts=3, patience=12, max_batches=25, seed=1
)


def band_energies(apply=None, **description) -> Features:
    """Logarithms of a frame's energy in four bands, with the frame's loudest sample as a fifth dimension."""
    time = np.arange(GRID.receptive_field)
    angles = 2 * np.pi * np.array([300, 700, 1500, 4000])[:, None] * time / GRID.sample_rate
    filters = jnp.asarray(np.concatenate([np.cos(angles), np.sin(angles)]).T, jnp.float32)

    def energies(filters, batch):
        samples = to_float(batch["audio"])
        starts = GRID.hop * np.arange(GRID.count(samples.shape[1]))
        frames = samples[:, starts[:, None] + time]
        cosines, sines = jnp.split(frames @ filters, 2, axis=-1)
        return jnp.concatenate([jnp.log(cosines**2 + sines**2 + 1e-3), abs(frames).max(-1, keepdims=True)], axis=-1)

    return Features(
        name="bands",
        width=5,
        window=GRID.receptive_field,
        margin=0,
        description={"front_end": "bands", **GRID._asdict(), "bands": 4} | description,
        kernels=filters,
        apply=apply or energies,
    )


def crop(step: int, row: int) -> np.ndarray:
    """A tone that comes and goes, in noise."""
    rng = np.random.default_rng([step, row])
    time = np.arange(SAMPLES) / GRID.sample_rate
    tone = np.sin(2 * np.pi * rng.uniform(200, 5000) * time) * (np.sin(2 * np.pi * rng.uniform(3, 9) * time) > 0)
    return ((rng.uniform(0.01, 0.5) * tone + rng.normal(0, 0.01, SAMPLES)) * 32767).astype(np.int16)


def batches(mesh, *, per_device=CLIPS, crop=crop, opened=None):
    """`open_batches` of `fit_codebook`; what is `opened` and closed is noted in the list."""
    plan = BatchPlan(CLIPS, per_device, batch_sharding(mesh))

    def open_batches(first):
        step = first
        try:
            while True:
                audio = np.stack([crop(step, row) for row in plan.rows])
                std = np.ones(len(audio), np.float32)
                yield plan.arrays({"audio": audio, "mean": 0 * std, "std": std})
                step += 1
        finally:
            if opened is not None:
                opened.append((first, step))

    return open_batches


def fit(features=None, *, mesh=None, clusters=8, options=SMALL, data="some music", **how):
    mesh = mesh or make_mesh(1, 1)
    of_batches = {name: how.pop(name) for name in ("per_device", "crop", "opened") if name in how}
    return fit_codebook(
        features or band_energies(),
        batches(mesh, **of_batches),
        clusters=clusters,
        grid=GRID,
        mesh=mesh,
        options=options,
        data=data,
        **how,
    )
