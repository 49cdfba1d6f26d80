"""Seconds per update of music2vec on the CPU, beside the same update in PyTorch.

    python -m benchmarks.pretrain [--size=base|demo] [--seconds=5] [--batch=2] [--precision=float32|bfloat16]
                                  [--peer=torch|none] [--repeats=3]

Ours is the jitted step of training: int16 crops in; normalised, masked, student, teacher, loss, gradients, AdamW,
teacher's average, logged figures. The peer does the same with transformers' Data2VecAudioModel in eager mode
(`benchmarks.pretrain_torch`): same sizes, same crops, same masks, all cores that the process may use. One process
runs both in turns after a warm-up of each; ratios are taken between neighbours, and their median counts.

What differs: ours draws its masks in the step, the peer is given them. Ours also logs positional share and swap
gap, and keeps the old state if the gradient is not finite. Each has its own initial parameters and its own
dropout, which is on for both. Layer drop is off for both, since its draws would decide the time. bfloat16 is
autocast in the peer. Both use AdamW in PyTorch's form (the peer: fused).
"""

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from musicssl_jax import config as configs
from musicssl_jax.command import ArgumentParser, run_command
from musicssl_jax.errors import UserError
from musicssl_jax.models.objective import Data2Vec, make_objective
from musicssl_jax.parallel import make_mesh
from musicssl_jax.training.batches import BatchPlan
from musicssl_jax.training.optimizer import make_optimizer, make_schedule
from musicssl_jax.training.state import parameter_count
from musicssl_jax.training.step import batch_sharding, make_train_step, sharded_state

Crops = dict[str, np.ndarray]


class Side(NamedTuple):
    """One of those that are compared. `update(n)` does update number n, on the same crops, and returns its loss."""

    name: str
    parameters: int
    update: Callable[[int], float]


def main(argv: list[str]) -> None:
    options = parse(argv)
    jax.config.update("jax_platforms", "cpu")
    config = make_config(options)
    crops = noise(options.batch, round(options.seconds * config.data.sample_rate))
    sides = [ours(config, crops)]
    if options.peer == "torch":
        sides.append(torch_peer(config, crops, updates=options.repeats + 1))
    print(f"{machine(options.peer)}\n{options.batch} crops of {options.seconds:g} s, {options.precision}\n", flush=True)
    times, losses = measure(sides, options.repeats)
    print(table(sides, times, losses, options.batch * options.seconds))
    if options.peer != "none":
        ratio = np.median(times[:, 1] / times[:, 0])
        print(f"\nratio {ratio:.2f} (ours/peer throughput, median of {options.repeats})")


def parse(argv: list[str]) -> argparse.Namespace:
    parser = ArgumentParser(
        prog="benchmarks.pretrain", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=("base", "demo"), default="base")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a crop")
    parser.add_argument("--batch", type=int, default=2, help="crops in an update")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--peer", choices=("torch", "none"), default="torch")
    parser.add_argument("--repeats", type=int, default=3, help="updates that are timed")
    options = parser.parse_args(argv)
    if options.repeats < 1:
        raise UserError(f"--repeats={options.repeats}: at least one update has to be timed")
    return options


def make_config(options: argparse.Namespace) -> Any:
    fields = {
        "data.crop_seconds": options.seconds,
        "batch.clips": options.batch,
        "batch.per_device": options.batch,
        "precision": options.precision,
        "model.layer_drop": 0.0,
        "optimizer.name": "adamw",  # PyTorch's form of Adam
    }
    flags = [f"--config.{name}={value}" for name, value in fields.items()]
    return configs.load([f"--config=configs/music2vec.py:{options.size}", *flags])[0]


def noise(clips: int, samples: int) -> Crops:
    audio = np.random.default_rng(0).normal(0, 3000, (clips, samples)).astype(np.int16)
    return {"audio": audio, "mean": np.zeros(clips, np.float32), "std": np.full(clips, 3000 / 32768, np.float32)}


def ours(config: Any, crops: Crops) -> Side:
    """The step that training jits, on one device."""
    mesh = make_mesh(1, 1)
    objective = make_objective(config)
    schedule = make_schedule(config.schedule, config.steps)
    optimizer = make_optimizer(config.optimizer, schedule)
    with jax.set_mesh(mesh):
        state = sharded_state(objective, optimizer, mesh, config.seed)
        train_step = make_train_step(objective, optimizer, schedule, mesh, config.seed)
    batch = BatchPlan(config.batch.clips, config.batch.per_device, batch_sharding(mesh)).arrays(crops)

    def update(_: int) -> float:  # the state knows the number
        nonlocal state
        with jax.set_mesh(mesh):
            state, row = jax.block_until_ready(train_step(state, (), batch))
        return float(row["train/loss"])

    return Side("ours", parameter_count(state.params), update)


def torch_peer(config: Any, crops: Crops, *, updates: int) -> Side:
    """The same in PyTorch. UserError: PyTorch or transformers is missing."""
    # Threads that spin at PyTorch's barriers take the cores from whatever else runs: 10 times slower on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        from benchmarks.pretrain_torch import Peer
    except ImportError as error:
        raise UserError(f"--peer=torch: {error}; install torch and transformers, or take --peer=none") from None
    masks = drawn_masks(make_objective(config), crops, config.seed, updates)
    peer = Peer(config, crops)
    return Side("PyTorch", peer.size, lambda number: peer.step(masks[number]))


def drawn_masks(objective: Data2Vec, crops: Crops, seed: int, updates: int) -> list[np.ndarray]:
    """The masks (B, T) that our step draws in its first updates."""
    batch = jax.tree.map(jnp.asarray, crops | {"row": np.arange(len(crops["audio"]))})
    keys = [jax.random.fold_in(jax.random.key(seed), number) for number in range(updates)]
    return [np.array(objective.example((), batch, key)["mask"]) for key in keys]


def measure(sides: Sequence[Side], repeats: int) -> tuple[np.ndarray, np.ndarray]:
    """(seconds, losses), each (repeats, sides). Who begins changes from turn to turn; the first turn warms up."""
    times, losses = np.zeros((2, repeats + 1, len(sides)))
    for turn in range(repeats + 1):
        for place in range(len(sides))[:: 1 if turn % 2 else -1]:
            began = time.perf_counter()
            losses[turn, place] = sides[place].update(turn)
            times[turn, place] = time.perf_counter() - began
    return times[1:], losses[1:]


def table(sides: Sequence[Side], times: np.ndarray, losses: np.ndarray, audio_seconds: float) -> str:
    lines = [
        "| | parameters | seconds per update | median | audio seconds per second | last loss |",
        "|---|---|---|---|---|---|",
    ]
    for side, column, loss in zip(sides, times.T, losses[-1], strict=True):
        each = ", ".join(f"{seconds:.2f}" for seconds in column)
        median = np.median(column)
        lines.append(
            f"| {side.name} | {side.parameters / 1e6:.2f}M | {each} | {median:.2f} | {audio_seconds / median:.2f} "
            f"| {loss:.2f} |"
        )
    return "\n".join(lines)


def machine(peer: str) -> str:
    cpu = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in cpu.read_text().splitlines() if "model name" in line]
    packages = ["jax", *(["torch", "transformers"] if peer == "torch" else [])]
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return f"{len(os.sched_getaffinity(0))} cores of {names[0]}, Python {platform.python_version()}, {versions}"


if __name__ == "__main__":
    sys.exit(run_command(main))
