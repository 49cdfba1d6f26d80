"""The peer of `benchmarks.probe`: the same probes in PyTorch."""

import dataclasses

import numpy as np
import torch

from benchmarks.probe_problem import Sizes, make_problem, make_settings, weights_file
from benchmarks.turns import memory, serve, timed
from musicssl_jax.mir.probing.settings import Settings


class Peer:
    """Probes of every layer and rate, and weighted sums of layers 1 to the last. Features are in memory, as float32.

    `prepare` first.
    """

    def prepare(self, sizes: list[int], epochs: int, folder: str) -> None:
        """folder: where our side wrote the parameters that probes begin with."""
        problem = make_problem(Sizes(*sizes))
        self.settings = make_settings(epochs)
        self.values = torch.from_numpy(np.stack([problem.layers.layer(i) for i in range(problem.layers.count)])).float()
        self.labels = torch.from_numpy(problem.labels).long()
        self.train_rows, self.valid_rows = (torch.from_numpy(problem.rows_of(part)) for part in (0, 1))
        with np.load(weights_file(folder)) as begun:
            self.mix = torch.from_numpy(begun["mix"])
            self.begun = {name: torch.from_numpy(value) for name, value in begun.items() if name != "mix"}

    def work(self, number: int, threads: int, how: str) -> dict[str, float]:
        """Trains the grid. how: "one by one" or "batched"."""
        del number
        torch.set_num_threads(threads)
        train = self._one_by_one if how == "one by one" else self._batched
        return timed(lambda: train(self.settings))

    def losses(self, epochs: int) -> list[list[float]]:
        """Mean loss of every probe and epoch, without dropout, one probe after the other."""
        return self._one_by_one(dataclasses.replace(self.settings, dropout=0.0, epochs=epochs))

    def _one_by_one(self, settings: Settings) -> list[list[float]]:
        layers = [*range(len(self.values)), None]
        return [self._one(layer, rate, settings) for layer in layers for rate in settings.rates]

    def _orders(self, settings: Settings) -> list[torch.Tensor]:
        rows = self.train_rows.numpy()
        seed = settings.selection_seed
        orders = [np.random.default_rng([seed, epoch]).permutation(rows) for epoch in range(settings.epochs)]
        return [torch.from_numpy(order) for order in orders]

    def _one(self, layer: int | None, rate: float, settings: Settings) -> list[float]:
        begun = self.begun if layer is not None else self.begun | {"mix": self.mix}
        params = {name: torch.nn.Parameter(value.clone()) for name, value in begun.items()}
        adam = torch.optim.Adam(params.values(), lr=rate, fused=True)
        losses = []
        for order in self._orders(settings):
            batches = order.split(settings.batch)
            total = 0.0
            for rows in batches:
                adam.zero_grad(set_to_none=True)
                logits = self._logits(params, layer, rows, settings.dropout)
                loss = torch.nn.functional.cross_entropy(logits, self.labels[rows])
                loss.backward()
                adam.step()
                total += loss.item()
            with torch.no_grad():
                self._logits(params, layer, self.valid_rows, 0.0).softmax(dim=1)
            losses.append(total / len(batches))
        return losses

    def _logits(self, params: dict, layer: int | None, rows: torch.Tensor, dropout: float) -> torch.Tensor:
        if layer is None:
            features = torch.einsum("l,lbd->bd", params["mix"].softmax(dim=0), self.values[1:, rows])
        else:
            features = self.values[layer, rows]
        hidden = torch.relu(torch.nn.functional.linear(features, params["kernel0"], params["bias0"]))
        hidden = torch.nn.functional.dropout(hidden, dropout, training=dropout > 0)
        return torch.nn.functional.linear(hidden, params["kernel1"], params["bias1"])

    def _batched(self, settings: Settings) -> None:
        """All layers of a rate at once, their products batched; the weighted sums one by one."""
        for rate in settings.rates:
            params = {
                name: torch.nn.Parameter(value.expand(len(self.values), *value.shape).clone())
                for name, value in self.begun.items()
            }
            adam = torch.optim.Adam(params.values(), lr=rate, fused=True)
            for order in self._orders(settings):
                for rows in order.split(settings.batch):
                    adam.zero_grad(set_to_none=True)
                    logits = self._batched_logits(params, rows, settings.dropout)
                    labels = self.labels[rows].expand(len(self.values), -1)
                    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
                    (loss * len(self.values)).backward()  # each probe's own mean
                    adam.step()
                with torch.no_grad():
                    self._batched_logits(params, self.valid_rows, 0.0).softmax(dim=2)
            self._one(None, rate, settings)

    def _batched_logits(self, params: dict, rows: torch.Tensor, dropout: float) -> torch.Tensor:
        hidden = torch.relu(torch.baddbmm(params["bias0"][:, None], self.values[:, rows], params["kernel0"].mT))
        hidden = torch.nn.functional.dropout(hidden, dropout, training=dropout > 0)
        return torch.baddbmm(params["bias1"][:, None], hidden, params["kernel1"].mT)


if __name__ == "__main__":
    side = Peer()
    serve({"prepare": side.prepare, "losses": side.losses, "work": side.work, "memory": memory})
