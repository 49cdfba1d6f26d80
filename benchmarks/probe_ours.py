"""Our side of `benchmarks.probe`: `train_probes`, the inside of `musicssl evaluate`."""

import dataclasses
from typing import Any

import jax
import numpy as np

from benchmarks.probe_problem import Sizes, grid_flops, make_problem, make_settings, weights_file
from benchmarks.turns import memory, serve, timed
from musicssl_jax.flops import peak_flops
from musicssl_jax.mir.probing.network import init_probe
from musicssl_jax.mir.probing.selection import choose_and_train
from musicssl_jax.mir.probing.settings import Settings
from musicssl_jax.mir.probing.training import MIXED, Probe, train_probes


class Ours:
    """The grid of a task; `prepare` first."""

    def prepare(self, sizes: list[int], epochs: int, folder: str) -> dict[str, Any]:
        """Makes the problem, and writes the parameters that probes begin with into the folder."""
        of = Sizes(*sizes)
        self.problem, self.settings = make_problem(of), make_settings(epochs)
        settings = self.settings
        begun = init_probe(settings.selection_seed, of.width, settings.hidden, of.outputs, of.layers - 1)
        np.savez(weights_file(folder), **begun)
        device = jax.devices()[0]
        return {
            "row": {"flops": grid_flops(of, settings), "peak": peak_flops(device, "float32")},
            "device": device.device_kind,
        }

    def losses(self, epochs: int) -> list[list[float]]:
        """Mean loss of every probe and epoch, without dropout."""
        return self._train(dataclasses.replace(self.settings, dropout=0.0, epochs=epochs)).tolist()

    def work(self, number: int) -> dict[str, float]:
        """Trains the grid."""
        del number
        return timed(lambda: self._train(self.settings))

    def whole(self) -> dict[str, float]:
        """The grid with each probe's own end, then the choice with five seeds: what a user waits for."""
        found = []
        took = timed(lambda: found.append(choose_and_train(self.problem, Settings(), "mlp")))
        return took | {"layer": found[0].layer, "valid": float(found[0].valid_scores.mean())}

    def _train(self, settings: Settings) -> np.ndarray:
        seed = settings.selection_seed
        singles = [Probe(layer, rate, seed) for layer in range(self.problem.layers.count) for rate in settings.rates]
        mixing = [Probe(MIXED, rate, seed) for rate in settings.rates]
        parts = [train_probes(self.problem, part, settings, settings.hidden, keep=False) for part in (singles, mixing)]
        return np.concatenate([part.losses for part in parts])


if __name__ == "__main__":
    side = Ours()
    serve({"prepare": side.prepare, "losses": side.losses, "work": side.work, "whole": side.whole, "memory": memory})
