"""Many probes in one program: an epoch of all of them, their validation scores, and who goes on.

Each probe has its own layer, rate and seed; those of a seed see the same rows in the same order. Features stay where
they are (on the disk) and come to the device in chunks, so that memory does not grow with a task.
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from musicssl_jax.mir.probing.network import Params, answer, init_probe, loss_of, probabilities
from musicssl_jax.mir.probing.problem import TEST, TRAIN, VALID, Kind, Problem
from musicssl_jax.mir.probing.settings import Settings
from musicssl_jax.shapes import Array, Float, Int, Key, Shaped

CHUNK_BYTES = 128 << 20
MIXED = -1
"""The `layer` of a probe that learns a weighted sum of layers 1 to the last."""

_LEAST_GAIN = 1e-4  # relative: what PyTorch's plateau rule takes for an improvement


class Probe(NamedTuple):
    """layer: one of the problem's, or MIXED."""

    layer: int
    rate: float
    seed: int


@dataclass(frozen=True, eq=False)
class Trained:
    """Of each probe its best validation score, the epoch that gave it, and the epochs it ran. answers: of every unit
    (probes, units, outputs), at the best epoch, where asked for. mix: weights of layers 1 to the last, of mixing
    probes. losses: mean training loss of each epoch (probes, epochs), NaN where a probe did not run."""

    scores: Float[np.ndarray, " P"]
    best_epoch: Int[np.ndarray, " P"]
    epochs: Int[np.ndarray, " P"]
    losses: Float[np.ndarray, "P epochs"]
    answers: Float[np.ndarray, "P units K"] | None
    mix: Float[np.ndarray, "P layers"] | None


def train_probes(
    problem: Problem, probes: Sequence[Probe], settings: Settings, hidden: int | None, *, keep: bool
) -> Trained:
    """Trains all probes side by side, each until its own validation score has stopped to rise.

    hidden: None for linear probes. keep: whether the answers of all units are wanted. Either all probes mix layers or
    none does. A probe whose answers are not finite scores -inf.
    """
    bench = _Bench(problem, probes, settings, hidden)
    state = bench.initial()
    count = len(probes)
    scores, losses = np.full(count, -np.inf), np.full((count, settings.epochs), np.nan)
    best_epoch, epochs = np.zeros(count, int), np.zeros(count, int)
    rates = np.array([probe.rate for probe in probes])
    stale = np.zeros(count, int)  # epochs since the score or, after it, the rate last changed
    best: dict[int, Any] = {}
    active = np.arange(count)
    for epoch in range(settings.epochs):
        state, loss = bench.epoch(state, active, rates, epoch)
        answers = bench.validation(state, active)
        losses[active, epoch] = loss[active]
        now = np.array([bench.score(answers[probe]) for probe in active])
        better = now > scores[active] + _LEAST_GAIN * np.abs(np.where(np.isfinite(scores[active]), scores[active], 0))
        improved = active[better]
        if keep:
            for probe in improved:
                best[int(probe)] = jax.tree.map(lambda leaf, probe=probe: np.asarray(leaf[probe]), state.params)
        scores[improved], best_epoch[improved] = now[better], epoch
        stale[active] += 1
        stale[improved] = 0
        slow = active[stale[active] > settings.patience_rate]
        rates[slow] *= 0.5
        stale[slow] = 0
        epochs[active] = epoch + 1
        active = active[epoch - best_epoch[active] < settings.patience_stop]
        active = _halved(active, scores, epoch, settings)
        if not len(active):
            break
    kept = bench.answers(best) if keep else (None, None)
    return Trained(scores, best_epoch, epochs, losses, *kept)


def _halved(active: Int[np.ndarray, " A"], scores: np.ndarray, epoch: int, settings: Settings) -> np.ndarray:
    """The better half, in the rounds of successive halving (Jamieson and Talwalkar, 2016)."""
    if epoch + 1 not in {2**n for n in range(settings.halving)} or len(active) < 2:
        return active
    order = np.argsort(-scores[active], kind="stable")
    return np.sort(active[order[: (len(active) + 1) // 2]])


def probes_at_once() -> int:
    """Side by side in one operation: a CPU's caches hold one probe's state, accelerators want work."""
    return 1 if jax.local_devices()[0].platform == "cpu" else 32


class _State(NamedTuple):
    """Of all probes in the program, stacked."""

    params: Params
    moments: Any


class _Chunk(NamedTuple):
    """Rows of some seeds, in batches. features: of the chosen layers, as they are stored."""

    features: Shaped[np.ndarray, "seeds layers S B D"]
    labels: Shaped[np.ndarray, "seeds S B ..."]
    weights: Float[np.ndarray, "S B"]


class _Bench:
    """The compiled programs, and what they need of the problem."""

    def __init__(self, problem: Problem, probes: Sequence[Probe], settings: Settings, hidden: int | None):
        self.problem, self.probes, self.settings, self.hidden = problem, probes, settings, hidden
        self.mixed = probes[0].layer == MIXED
        if any((probe.layer == MIXED) != self.mixed for probe in probes):
            raise ValueError("probes that mix layers are trained apart from those that do not")
        self.layers = list(range(1, problem.layers.count)) if self.mixed else sorted({p.layer for p in probes})
        self.seeds = sorted({probe.seed for probe in probes})
        self.layer_of = np.array([0 if self.mixed else self.layers.index(probe.layer) for probe in probes])
        self.seed_of = np.array([self.seeds.index(probe.seed) for probe in probes])
        self.train_rows = problem.rows_of(TRAIN)
        self.valid_rows = _some(problem.rows_of(VALID), settings.valid_rows, settings.selection_seed)
        self.valid_units, self.valid_index = np.unique(problem.unit[self.valid_rows], return_inverse=True)
        self.maps = {layer: problem.layers.layer(layer) for layer in self.layers}
        self.shift, self.scale = self._standards()
        self.labels, self.label_shift, self.label_scale = _row_labels(problem)
        self.at_once = probes_at_once()
        self.common: dict[str, Any] = {"kind": problem.kind, "mixed": self.mixed, "at_once": self.at_once}

    def initial(self) -> _State:
        width, outputs = self.problem.layers.width, self.problem.outputs
        mixed = len(self.layers) if self.mixed else 0
        begun = {seed: init_probe(seed, width, self.hidden, outputs, mixed) for seed in self.seeds}
        params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(begun[probe.seed] for probe in self.probes))
        return _State(params, jax.vmap(_ADAM.init)(params))

    def epoch(
        self, state: _State, active: Int[np.ndarray, " A"], rates: Float[np.ndarray, " P"], epoch: int
    ) -> tuple[_State, Float[np.ndarray, " P"]]:
        """Every training row once, in an order that follows from seed and epoch; and the mean loss."""
        orders = [
            _some(np.random.default_rng([seed, epoch]).permutation(self.train_rows), self.settings.rows_per_epoch)
            for seed in self.seeds
        ]
        total, steps = np.zeros(len(self.probes)), 0
        seeds = jnp.asarray([probe.seed for probe in self.probes])
        for number, chunk in enumerate(self._chunks(np.stack(orders))):
            state, losses = _train_chunk(
                state,
                chunk,
                (self.shift, self.scale),
                (self.layer_of, self.seed_of, rates.astype(np.float32), _keys(seeds, epoch, number)),
                self._order(active),
                self._groups(active),
                dropout=self.settings.dropout,
                **self.common,
            )
            total, steps = total + np.asarray(losses), steps + len(chunk.weights)
        return state, total / steps

    def validation(self, state: _State, active: Int[np.ndarray, " A"]) -> Float[np.ndarray, "P units K"]:
        """Answers of the validation units."""
        return self._answers(
            state.params, active, self.layer_of, self.valid_rows, self.valid_index, len(self.valid_units)
        )

    def _order(self, active: Int[np.ndarray, " A"]) -> Int[np.ndarray, " P"]:
        """The probes, those first that go on; the last one again until whole groups are full."""
        idle = np.setdiff1d(np.arange(len(self.probes)), active)
        order = np.concatenate([active, idle])
        return np.pad(order, (0, -len(order) % self.at_once), mode="edge").astype(np.int32)

    def _groups(self, active: Int[np.ndarray, " A"]) -> int:
        return -(-len(active) // self.at_once)

    def score(self, answers: Float[np.ndarray, "units K"]) -> float:
        """Of validation units."""
        if not np.isfinite(answers).all():
            return -np.inf
        return self.problem.score(self.problem.labels[self.valid_units], answers)

    def answers(self, best: dict[int, Any]) -> tuple[np.ndarray, np.ndarray | None]:
        """Of every unit that has rows (others NaN), by each probe as it was at its best epoch."""
        units = len(self.problem.part)
        out = np.full((len(self.probes), units, self.problem.outputs), np.nan, np.float32)
        trained = np.array(sorted(best), int)
        if not len(trained):
            return out, None
        params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[best[probe] for probe in trained])
        rows = self.problem.rows_of(TRAIN, VALID, TEST)
        present, index = np.unique(self.problem.unit[rows], return_inverse=True)
        everyone = np.arange(len(trained))
        answers = self._answers(params, everyone, self.layer_of[trained], rows, index, len(present))
        out[np.ix_(trained, present)] = answers
        mix = np.asarray(jax.nn.softmax(params["mix"])) if self.mixed else None
        return out, mix

    def _answers(
        self, params: Params, active: np.ndarray, layer_of: np.ndarray, rows: np.ndarray, index: np.ndarray, units: int
    ) -> Float[np.ndarray, "P units K"]:
        """Means over the rows of each unit, of the active probes; index: of each row the number of its unit."""
        total = np.zeros((len(layer_of), units, self.problem.outputs), np.float64)
        size = min(self._rows_at_once(1), len(rows))
        order = np.pad(active, (0, len(layer_of) - len(active)), mode="edge")
        order = np.pad(order, (0, -len(order) % self.at_once), mode="edge").astype(np.int32)
        for first in range(0, len(rows), size):
            some, of_unit = rows[first : first + size], index[first : first + size]
            low, high = of_unit.min(), of_unit.max() + 1
            padded = np.concatenate([some, np.repeat(some[:1], size - len(some))])
            weights = (np.arange(size) < len(some)).astype(np.float32)
            features = np.stack([self.maps[layer][padded] for layer in self.layers])
            spread = np.concatenate([of_unit - low, np.zeros(size - len(some), int)]).astype(np.int32)
            sums = _unit_sums(
                params,
                features,
                (self.shift, self.scale),
                layer_of,
                (spread, weights),
                order,
                self._groups(active),
                units=_round_up(int(high - low)),
                average=self.settings.average,
                **self.common,
            )
            total[:, low:high] += np.asarray(sums)[:, : high - low]
        means = (total / np.bincount(index, minlength=units)[:, None]).astype(np.float32)
        if self.settings.average == "logits":
            means = np.asarray(probabilities(self.problem.kind, jnp.asarray(means)))
        return means * self.label_scale + self.label_shift

    def _chunks(self, orders: Int[np.ndarray, "seeds rows"]) -> Iterator[_Chunk]:
        """The rows in batches, some batches at a time; the last batch is filled up with rows of no weight."""
        batch = min(self.settings.batch, orders.shape[1])
        steps = max(1, self._rows_at_once(len(orders)) // batch)
        count = -(-orders.shape[1] // batch)
        steps = -(-count // -(-count // steps))  # chunks of nearly one size
        for first in range(0, orders.shape[1], steps * batch):
            rows = orders[:, first : first + steps * batch]
            size = -(-rows.shape[1] // batch) * batch
            weights = (np.arange(size) < rows.shape[1]).astype(np.float32)
            rows = rows[:, np.arange(size) % rows.shape[1]]
            features = np.stack([[self.maps[layer][of_seed] for layer in self.layers] for of_seed in rows])
            shape = (len(rows), -1, batch)
            yield _Chunk(
                features.reshape(len(rows), len(self.layers), -1, batch, features.shape[-1]),
                self.labels[rows].reshape(*shape, *self.labels.shape[1:]),
                weights.reshape(-1, batch),
            )

    def _rows_at_once(self, seeds: int) -> int:
        width, itemsize = self.problem.layers.width, next(iter(self.maps.values())).dtype.itemsize
        return max(self.settings.batch, CHUNK_BYTES // (seeds * len(self.layers) * width * itemsize))

    def _standards(self) -> tuple[Float[Array, "layers D"], Float[Array, "layers D"]]:
        """Shift and scale of each layer's features, by the training rows."""
        width = self.problem.layers.width
        if not self.settings.standardise:
            return jnp.zeros((len(self.layers), width)), jnp.ones((len(self.layers), width))
        moments = [_mean_and_deviation(self.maps[layer], self.train_rows) for layer in self.layers]
        shift, deviation = (np.stack(part).astype(np.float32) for part in zip(*moments, strict=True))
        return jnp.asarray(shift), jnp.asarray(1 / np.maximum(deviation, 1e-5))


_ADAM = optax.scale_by_adam()


@jax.jit
def _keys(seeds: Int[Array, " P"], epoch: int | Array, chunk: int | Array) -> Key[Array, " P"]:
    return jax.vmap(lambda seed: jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), epoch), chunk))(seeds)


@functools.partial(jax.jit, donate_argnums=0, static_argnames=("kind", "dropout", "mixed", "at_once"))
def _train_chunk(
    state: _State,
    chunk: _Chunk,
    standards: tuple[Array, Array],
    probes: tuple[Array, Array, Array, Key[Array, " P"]],
    order: Int[Array, " ordered"],
    groups: int | Array,
    *,
    kind: Kind,
    dropout: float,
    mixed: bool,
    at_once: int,
) -> tuple[_State, Float[Array, " P"]]:
    """A step of every probe that goes on for every batch of the chunk; and the sums of their losses.

    probes: of each its layer, seed, rate and key.
    """

    def one(carried, probe):
        (params, moments), _ = carried
        layer, seed, rate, key = probe

        def step(carried, index):
            params, moments = carried
            weights = chunk.weights[index]
            picked = chunk.features[seed, :, index] if mixed else chunk.features[seed, layer, index]
            features = _standardised(picked, standards, layer, mixed)
            labels = chunk.labels[seed, index]

            def loss(params):
                logits = answer(params, features, dropout, jax.random.fold_in(key, index))
                return loss_of(kind, logits, labels, weights)

            value, gradients = jax.value_and_grad(loss)(params)
            updates, moments = _ADAM.update(gradients, moments)
            return (jax.tree.map(lambda p, u: p - rate * u, params, updates), moments), value

        (params, moments), losses = jax.lax.scan(step, (params, moments), jnp.arange(len(chunk.weights)))
        return _State(params, moments), jnp.sum(losses)

    with jax.default_matmul_precision("float32"):
        return _each(one, (state, jnp.zeros(len(probes[0]))), probes, order, groups, at_once)


@functools.partial(jax.jit, static_argnames=("units", "kind", "mixed", "at_once", "average"))
def _unit_sums(
    params: Params,
    features: Shaped[Array, "layers N D"],
    standards: tuple[Array, Array],
    layer_of: Int[Array, " P"],
    rows: tuple[Int[Array, " N"], Float[Array, " N"]],
    order: Int[Array, " ordered"],
    groups: int | Array,
    *,
    units: int,
    kind: Kind,
    mixed: bool,
    at_once: int,
    average: str,
) -> Float[Array, "P units K"]:
    """Sums of the answers over the rows of each unit, of the probes that go on. rows: of each its unit and weight."""
    unit, weight = rows

    def one(_, probe):
        params, layer = probe
        picked = features if mixed else features[layer]
        logits = answer(params, _standardised(picked, standards, layer, mixed), 0.0, None)
        values = probabilities(kind, logits) if average == "probabilities" else logits
        return jax.ops.segment_sum(values * weight[:, None], unit, units)

    outputs = params["bias1" if "bias1" in params else "bias0"].shape[-1]
    with jax.default_matmul_precision("float32"):
        empty = jnp.zeros((len(layer_of), units, outputs))
        return _each(one, empty, (params, layer_of), order, groups, at_once)


def _each(one: Any, carried: Any, given: Any, order: Int[Array, " ordered"], groups: int | Array, at_once: int) -> Any:
    """`carried` after one(its row, the row of `given`) for the probes of the first `groups` x `at_once` in `order`.

    `groups` is a value of the program, not of its shape: who has stopped costs nothing, and nothing is compiled again.
    """

    def group(number, carried):
        who = jax.lax.dynamic_slice_in_dim(order, number * at_once, at_once)
        rows = jax.tree.map(lambda leaf: leaf[who], (carried, given))
        if at_once == 1:
            new = jax.tree.map(lambda leaf: leaf[None], one(*jax.tree.map(lambda leaf: leaf[0], rows)))
        else:
            new = jax.vmap(one)(*rows)
        return jax.tree.map(lambda leaf, value: leaf.at[who].set(value), carried, new)

    return jax.lax.fori_loop(0, groups, group, carried)


def _standardised(picked: Any, standards: tuple[Array, Array], layer: Array, mixed: bool) -> Float[Array, "..."]:
    shift, scale = standards
    if mixed:
        return (picked.astype(jnp.float32) - shift[:, None]) * scale[:, None]
    return (picked.astype(jnp.float32) - shift[layer]) * scale[layer]


def _row_labels(problem: Problem) -> tuple[np.ndarray, np.ndarray | float, np.ndarray | float]:
    """Labels of every row as the loss takes them; and by what numbers were shifted and scaled (training units')."""
    labels = problem.labels
    if problem.kind != "numbers":
        clean = labels.astype(np.int32) if problem.kind == "class" else np.nan_to_num(labels).astype(np.float32)
        return clean[problem.unit], 0.0, 1.0
    known = labels[problem.part == TRAIN]
    shift, scale = known.mean(axis=0), np.maximum(known.std(axis=0), 1e-8)
    return np.nan_to_num((labels - shift) / scale).astype(np.float32)[problem.unit], shift, scale


def _mean_and_deviation(
    values: Shaped[np.ndarray, "rows D"], rows: Int[np.ndarray, " some"]
) -> tuple[Float[np.ndarray, " D"], Float[np.ndarray, " D"]]:
    """In float64, a piece at a time."""
    total, squares = np.zeros(values.shape[1]), np.zeros(values.shape[1])
    for piece in np.array_split(rows, max(1, len(rows) // 8192)):
        block = values[piece].astype(np.float64)
        total += block.sum(axis=0)
        squares += np.square(block).sum(axis=0)
    mean = total / len(rows)
    return mean, np.sqrt(np.maximum(squares / len(rows) - np.square(mean), 0))


def _some(rows: Int[np.ndarray, " n"], most: int | None, seed: int | None = None) -> Int[np.ndarray, " m"]:
    """At most so many: the first ones, or drawn by `seed` and in order."""
    if most is None or len(rows) <= most:
        return rows
    if seed is None:
        return rows[:most]
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


def _round_up(count: int) -> int:
    """To one of few sizes: each is compiled once."""
    return 1 << max(0, count - 1).bit_length()
