"""Probes trained per second on the CPU, beside PyTorch.

    python -m benchmarks.probe [--train=443] [--valid=197] [--layers=13] [--width=768] [--outputs=10] [--epochs=3]
                               [--peer_threads=1,2] [--peer=torch|none] [--repeats=5] [--whole]

The grid of a task as large as GTZAN: an MLP of 512 units for each of 13 layers and 6 rates, and 6 on a weighted sum of
layers, batches of 64, Adam, dropout, the validation part answered after each epoch. Both sides train every probe for
the same epochs, with nothing stopped; a training loss without dropout is compared first. Ours is `train_probes`, the
inside of `musicssl evaluate`. The peer has the same probes as PyTorch modules: one after the other with fused Adam, and
all layers of a rate at once as batched products with fused Adam; each with every number of threads that is named, and
the best of them by its median counts. All sides run in turns in one process; ratios are taken between neighbours.
--whole also times the whole of ours once: the grid with each probe's own end, then the choice with five seeds.
"""

import argparse
import dataclasses
import os
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.machine import machine
from musicssl_jax.command import ArgumentParser, run_command
from musicssl_jax.errors import UserError
from musicssl_jax.mir.features.store import Layers
from musicssl_jax.mir.probing.problem import Problem, blank_test
from musicssl_jax.mir.probing.selection import choose_and_train
from musicssl_jax.mir.probing.settings import Settings
from musicssl_jax.mir.probing.training import MIXED, Probe, train_probes


class Side(NamedTuple):
    name: str
    train: Callable[[], Any]


def main(argv: list[str]) -> None:
    options = parse(argv)
    jax.config.update("jax_platforms", "cpu")
    problem = make_problem(options)
    settings = Settings(epochs=options.epochs, patience_rate=10**6, patience_stop=10**6, standardise=False)
    sides = [Side("ours", lambda: ours(problem, settings))]
    if options.peer == "torch":
        # Threads that spin at PyTorch's barriers take the cores from whatever else runs.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        from benchmarks.probe_torch import Peer

        peer = Peer(problem, settings)
        check_losses(problem, settings, peer)
        sides += [
            Side(f"PyTorch {how}, {threads} threads", lambda t=threads, h=how: peer.train(t, h))
            for how in ("one by one", "batched")
            for threads in options.peer_threads
        ]
    times, cpu = measure(sides, options.repeats)
    medians = np.median(times, axis=0)
    print(machine(["jax", "torch"]))
    for side, column, median, spent in zip(sides, times.T, medians, np.median(cpu, axis=0), strict=True):
        each = ", ".join(f"{seconds:.2f}" for seconds in column)
        print(f"{side.name}: {median:.2f} s ({each}), of processors {spent:.2f} s")
    if options.whole:
        print(whole(problem))
    if len(sides) > 1:
        best = 1 + int(np.argmin(medians[1:]))
        ratios = times[:, best] / times[:, 0]
        print(f"against {sides[best].name}: {', '.join(f'{ratio:.2f}' for ratio in ratios)}")
        print(f"ratio {np.median(ratios):.2f} (ours/peer throughput, median of {len(ratios)})")


def make_problem(options: argparse.Namespace) -> Problem:
    """Classes that are in the middle layers, under noise."""
    random = np.random.default_rng(0)
    part = np.repeat([0, 1, 2], [options.train, options.valid, options.test])
    labels = random.integers(0, options.outputs, len(part))
    directions = random.normal(size=(options.layers, options.outputs, options.width))
    strength = 0.25 * np.exp(-0.5 * ((np.arange(options.layers) - options.layers / 2) / 2) ** 2)
    values = random.normal(size=(options.layers, len(part), options.width))
    values += strength[:, None, None] * directions[:, labels]
    hidden = blank_test(labels, part, "class")
    score = lambda truth, answers: float(np.mean(truth == answers.argmax(axis=1)))  # noqa: E731
    rows = np.arange(len(part))
    features = Layers(rows, np.zeros(len(part)), np.zeros(len(part)), values.astype(np.float16))
    return Problem(features, rows, part, hidden, "class", options.outputs, score)


def ours(problem: Problem, settings: Settings) -> np.ndarray:
    """The grid; mean training losses by epoch."""
    seed = settings.selection_seed
    singles = [Probe(layer, rate, seed) for layer in range(problem.layers.count) for rate in settings.rates]
    mixing = [Probe(MIXED, rate, seed) for rate in settings.rates]
    parts = [train_probes(problem, probes, settings, settings.hidden, keep=False) for probes in (singles, mixing)]
    return np.concatenate([part.losses for part in parts])


def check_losses(problem: Problem, settings: Settings, peer: Any) -> None:
    """Equal begin, equal batches, no dropout: equal losses of the first epochs, to float32's noise."""
    still = dataclasses.replace(settings, dropout=0.0, epochs=2)
    mine, theirs = ours(problem, still), peer.losses(still)
    off = float(np.max(np.abs(mine - theirs) / theirs[:, :1]))  # later losses go to nothing
    if not off < 1e-3:
        raise UserError(f"losses differ by {off:.1e} of their first epoch's: the two sides do not do the same")
    print(f"losses of {len(mine)} probes over 2 epochs agree to {off:.0e} of their first epoch's")


def measure(sides: list[Side], repeats: int) -> tuple[np.ndarray, np.ndarray]:
    """(seconds, CPU seconds), (repeats, sides) each; the order changes from turn to turn, the first turn warms up."""
    times, cpu = np.zeros((2, repeats + 1, len(sides)))
    for turn in range(repeats + 1):
        for place in range(len(sides))[:: 1 if turn % 2 else -1]:
            began, spent = time.perf_counter(), time.process_time()
            sides[place].train()
            times[turn, place], cpu[turn, place] = time.perf_counter() - began, time.process_time() - spent
    return times[1:], cpu[1:]


def whole(problem: Problem) -> str:
    began = time.perf_counter()
    outcome = choose_and_train(problem, Settings(), "mlp")
    seconds = time.perf_counter() - began
    return f"the whole task, MLP: {seconds:.0f} s (layer {outcome.layer}, validation {outcome.valid_scores.mean():.2f})"


def parse(argv: list[str]) -> argparse.Namespace:
    parser = ArgumentParser(
        prog="benchmarks.probe", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, value in {"train": 443, "valid": 197, "test": 290, "layers": 13, "width": 768, "outputs": 10}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peer", choices=("torch", "none"), default="torch")
    parser.add_argument("--peer_threads", type=lambda text: [int(n) for n in text.split(",")], default=[1, 2])
    parser.add_argument("--whole", action="store_true")
    options = parser.parse_args(argv)
    if min(options.repeats, options.epochs) < 1 or options.layers < 3:
        raise UserError("--repeats and --epochs: want at least 1; --layers: at least 3")
    return options


if __name__ == "__main__":
    sys.exit(run_command(main))
