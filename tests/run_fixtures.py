"""Tiny runs: a config that compiles in seconds, and what comes out of it."""

from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from musicssl_jax.config import load
from musicssl_jax.models.objective import make_objective
from musicssl_jax.training.batches import BatchPlan
from musicssl_jax.training.optimizer import make_optimizer, make_schedule
from musicssl_jax.training.step import batch_sharding, make_train_step, sharded_state

# Two devices' worth of everything small; the conv stack keeps the base model's hop of 320 samples.
TINY = {
    "steps": 12,
    "log_every": 1,
    "data.crop_seconds": 1.0,
    "data.threads": 1,
    "batch.clips": 8,
    "batch.per_device": 4,
    "mesh.data": 1,
    "mask.trim_group": 4,
    "model.conv_layers": ((16, 10, 5), *((16, 3, 2),) * 4, *((16, 2, 2),) * 2),
    "model.width": 32,
    "model.ffn": 64,
    "model.layers": 2,
    "model.heads": 4,
    "model.dropout": 0.1,
    "model.attention_dropout": 0.1,
    "model.layer_drop": 0.05,
    "model.positional_groups": 8,
    "model.positional_depth": 2,
    "model.positional_kernel": 14,
    "target.top_k": 2,
    "valid.every": 6,
    "valid.batches": 1,
    "checkpoint.every": 5,
    "collapse.stop": False,
}


def flags(data: Path | str, **overrides) -> list[str]:
    """Command line of a tiny run; `overrides` are fields with `__` for the dot."""
    fields = TINY | {"data.path": str(data)} | {name.replace("__", "."): v for name, v in overrides.items()}
    return ["--config=configs/music2vec.py:demo", *(f"--config.{name}={value}" for name, value in fields.items())]


HUBERT = {name: value for name, value in TINY.items() if not name.startswith(("target.", "model.positional"))} | {
    "model.positional_kernel": 8,
    "model.positional_groups": 8,
    "targets": "mfcc39,cqt84",
    "clusters": (12, 6),
    "codebook.batch_frames": 400,
    "codebook.frames_per_crop": 25,
    "codebook.initial_frames": 400,
    "codebook.restarts": 2,
    "codebook.max_batches": 4,
    "prediction.width": 16,
    "prediction.temperature": 0.1,
    "prediction.unmasked_weight": 0.0,
    "prediction.feature_penalty": 10.0,
    "model.input_dropout": 0.1,
}


def hubert_flags(data: Path | str, **overrides) -> list[str]:
    """Command line of a tiny musicHuBERT run."""
    fields = HUBERT | {"data.path": str(data)} | {name.replace("__", "."): v for name, v in overrides.items()}
    return ["--config=configs/musichubert.py:demo", *(f"--config.{name}={value}" for name, value in fields.items())]


def tiny_config(data: Path | str = "unused", **overrides):
    """The resolved config of a tiny run."""
    return load(flags(data, **overrides))[0]


def run_steps(config, mesh: Mesh, steps: int, *, seed: int = 0):
    """(state, losses, metrics of the last step) after `steps` updates on noise that only depends on `seed`."""
    objective = make_objective(config)
    schedule = make_schedule(config.schedule, config.steps)
    optimizer = make_optimizer(config.optimizer, schedule)
    plan = BatchPlan(config.batch.clips, config.batch.per_device, batch_sharding(mesh))
    samples = round(config.data.crop_seconds * config.data.sample_rate)
    losses = []
    with jax.set_mesh(mesh):
        state = sharded_state(objective, optimizer, mesh, config.seed)
        train_step = make_train_step(objective, optimizer, schedule, mesh, config.seed, prng=config.prng)
        for step in range(steps):
            state, row = train_step(state, (), plan.arrays(noise(plan.rows, samples, seed + step)))
            losses.append(float(row["train/loss"]))
    return state, np.array(losses), row


def noise(rows, samples: int, seed: int) -> dict[str, np.ndarray]:
    """Crops of noise whose colour differs from row to row; row n is the same whichever rows are asked for."""
    audio = np.stack([np.random.default_rng([seed, row]).normal(0, 3000, samples) for row in rows])
    return {
        "audio": audio.astype(np.int16),
        "mean": np.zeros(len(rows), np.float32),
        "std": np.full(len(rows), 3000 / 32768, np.float32),
    }
