"""Our side of `benchmarks.pretrain`: the step that training jits, on one device."""

import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from safetensors.numpy import save_file

from benchmarks.turns import memory, serve
from musicssl_jax import config as configs
from musicssl_jax.flops import peak_flops, update_flops
from musicssl_jax.host_memory import keep_memory
from musicssl_jax.interop.key_map import write_tensors
from musicssl_jax.interop.transformers_folder import key_table
from musicssl_jax.models.conv_encoder import frame_count
from musicssl_jax.models.objective import make_objective
from musicssl_jax.parallel import make_mesh
from musicssl_jax.training.batches import BatchPlan
from musicssl_jax.training.optimizer import make_optimizer, make_schedule
from musicssl_jax.training.state import parameter_count
from musicssl_jax.training.step import batch_sharding, make_train_step, sharded_state


def device() -> dict[str, str]:
    """What JAX computes on."""
    found = jax.devices()[0]
    return {"platform": found.platform, "kind": found.device_kind}


class Ours:
    """State and step; `prepare` or `build` first."""

    def build(self, flags: list[str]) -> dict[str, Any]:
        """Makes state, step and a batch of noise, and says what an update costs."""
        config = self.config = configs.load(flags)[0]
        self.mesh = make_mesh(1, 1)
        self.device = jax.devices()[0]
        self.objective = make_objective(config, self.device.platform)
        schedule = make_schedule(config.schedule, config.steps)
        optimizer = make_optimizer(config.optimizer, schedule)
        self.crops = noise(config)
        with jax.set_mesh(self.mesh):
            self.state = sharded_state(self.objective, optimizer, self.mesh, config.seed)
            self.step = make_train_step(self.objective, optimizer, schedule, self.mesh, config.seed, prng=config.prng)
        plan = BatchPlan(config.batch.clips, config.batch.per_device, batch_sharding(self.mesh))
        self.batch = plan.arrays(self.crops)
        samples = round(config.data.crop_seconds * config.data.sample_rate)
        return {
            "parameters": parameter_count(self.state.params),
            "flops": update_flops(self.objective, samples),
            "peak": peak_flops(self.device, config.precision),
            "attention": self.objective.model.attention,
        }

    def prepare(self, flags: list[str], folder: str, updates: int) -> dict[str, Any]:
        """As `build`; and writes parameters, crops and masks for the peer.

        losses: of the first masks, without dropout, in float32, and in the step's precision and with its attention.
        """
        built = self.build(flags)
        config, crops = self.config, self.crops
        rows = crops | {"row": np.arange(config.batch.clips), "weight": np.ones(config.batch.clips, np.float32)}
        keys = [jax.random.fold_in(jax.random.key(config.seed), number) for number in range(updates)]
        masks = [np.array(self.objective.example((), rows, key)["mask"]) for key in keys]
        np.savez(Path(folder) / "batch.npz", masks=np.stack(masks), **crops)
        save_file(self._tensors(config), Path(folder) / "weights.safetensors")
        rows |= {"mask": masks[0]}
        losses = {config.precision: self._loss(self.objective, rows)}
        if config.precision != "float32":
            losses["float32"] = self._loss(_in_float32(config), rows)
        return built | {"losses": losses}

    def _tensors(self, config: Any) -> dict[str, np.ndarray]:
        """By transformers' names; what it has none for under ours."""
        flat = traverse_util.flatten_dict(jax.tree.map(np.asarray, self.state.params), sep="/")
        theirs = write_tensors(flat, key_table(config.model), {})
        heads = {name: value for name, value in flat.items() if not name.startswith("encoder/")}
        return {name: np.ascontiguousarray(value) for name, value in (theirs | heads).items()}

    def _loss(self, objective: Any, rows: dict[str, np.ndarray]) -> float:
        with jax.set_mesh(self.mesh):
            evaluate = jax.jit(lambda *state: objective.loss(*state, jax.random.key(0), train=False)[:2])
            loss, (weight, _) = evaluate(self.state.params, self.state.teacher, (), jax.tree.map(jnp.asarray, rows))
        return float(loss / weight)

    def update(self, number: int) -> dict[str, float]:
        """Seconds and loss of the next update; the state knows its number, which draws the masks."""
        del number
        began = time.perf_counter()
        with jax.set_mesh(self.mesh):
            self.state, row = jax.block_until_ready(self.step(self.state, (), self.batch))
        return {"seconds": time.perf_counter() - began, "loss": float(row["train/loss"])}

    def memory(self) -> float:
        """Most bytes that it has held: of the device, or of the process on a CPU."""
        stats = self.device.memory_stats() if self.device.platform != "cpu" else None
        return stats["peak_bytes_in_use"] if stats else memory()


def _in_float32(config: Any) -> Any:
    """The objective, with attention written out."""
    config = config.copy_and_resolve_references()
    config.precision = "float32"
    return make_objective(config)


def noise(config: Any) -> dict[str, np.ndarray]:
    """Crops, and labels where the objective wants them."""
    random = np.random.default_rng(0)
    clips, samples = config.batch.clips, round(config.data.crop_seconds * config.data.sample_rate)
    crops = {
        "audio": random.normal(0, 3000, (clips, samples)).astype(np.int16),
        "mean": np.zeros(clips, np.float32),
        "std": np.full(clips, 3000 / 32768, np.float32),
    }
    if config.objective == "hubert":
        frames = frame_count(samples, config.model.conv_layers)
        crops["labels"] = random.integers(0, config.clusters, (clips, frames, len(config.clusters))).astype(np.int16)
    return crops


if __name__ == "__main__":
    keep_memory()  # as the training command does
    side = Ours()
    serve(
        {
            "device": device,
            "prepare": side.prepare,
            "build": side.build,
            "update": side.update,
            "memory": side.memory,
        }
    )
