"""The peer of `benchmarks.probe`: the same probes in PyTorch."""

import numpy as np
import torch

from musicssl_jax.mir.probing.network import init_probe
from musicssl_jax.mir.probing.problem import Problem
from musicssl_jax.mir.probing.settings import Settings


class Peer:
    """Probes of every layer and rate, and weighted sums of layers 1 to the last. Features are in memory, as float32."""

    def __init__(self, problem: Problem, settings: Settings):
        self.problem, self.settings = problem, settings
        self.values = torch.from_numpy(np.stack([problem.layers.layer(i) for i in range(problem.layers.count)])).float()
        self.labels = torch.from_numpy(problem.labels).long()
        self.train_rows, self.valid_rows = (torch.from_numpy(problem.rows_of(part)) for part in (0, 1))

    def train(self, threads: int, how: str) -> None:
        torch.set_num_threads(threads)
        if how == "one by one":
            self.losses(self.settings)
        else:
            self._batched(self.settings)

    def losses(self, settings: Settings) -> np.ndarray:
        """Mean loss of every epoch, (probes, epochs), one probe after the other."""
        layers = [*range(len(self.values)), None]
        return np.array([self._one(layer, rate, settings) for layer in layers for rate in settings.rates])

    def _orders(self, settings: Settings) -> list[torch.Tensor]:
        rows = self.train_rows.numpy()
        seed = settings.selection_seed
        orders = [np.random.default_rng([seed, epoch]).permutation(rows) for epoch in range(settings.epochs)]
        return [torch.from_numpy(order) for order in orders]

    def _one(self, layer: int | None, rate: float, settings: Settings) -> list[float]:
        mixed = 0 if layer is not None else len(self.values) - 1
        begun = init_probe(settings.selection_seed, self.values.shape[2], settings.hidden, self.problem.outputs, mixed)
        params = {name: torch.nn.Parameter(torch.from_numpy(value)) for name, value in begun.items()}
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
            begun = init_probe(settings.selection_seed, self.values.shape[2], settings.hidden, self.problem.outputs, 0)
            params = {
                name: torch.nn.Parameter(torch.from_numpy(value).expand(len(self.values), *value.shape).clone())
                for name, value in begun.items()
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
