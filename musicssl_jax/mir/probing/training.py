"""Many probes side by side: epochs of all of them, their validation scores, and who goes on.

Each probe has its own layer, rate and seed; those of a seed see the same rows in the same order, and lose the same
hidden units. Probes are trained in groups, and those that have stopped are compacted out of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from musicssl_jax.mir.probing.feed import Chunk, Feed
from musicssl_jax.mir.probing.network import Params, init_probe, probabilities
from musicssl_jax.mir.probing.problem import TEST, TRAIN, VALID, Problem
from musicssl_jax.mir.probing.programs import ADAM, Roles, State, kept_units, train_group, unit_sums
from musicssl_jax.mir.probing.progress import shown_progress
from musicssl_jax.mir.probing.settings import Settings
from musicssl_jax.shapes import Array, Bool, Float, Int

MIXED = -1
"""The `layer` of a probe that learns a weighted sum of layers 1 to the last."""

Weights = dict[str, np.ndarray]

_LEAST_GAIN = 1e-4  # relative: what PyTorch's plateau rule takes for an improvement


class Probe(NamedTuple):
    """layer: one of the problem's, or MIXED."""

    layer: int
    rate: float
    seed: int


@dataclass(frozen=True, eq=False)
class Trained:
    """Of each probe its best validation score, the epoch that gave it, and the epochs it ran. answers: of every unit
    (probes, units, outputs), at the best epoch, where asked for: NaN but for validation and test units that have rows.
    mix: weights of layers 1 to the last, of mixing probes, NaN of one that never had a finite score. losses: mean
    training loss of each epoch (probes, epochs), NaN where a probe did not run."""

    scores: Float[np.ndarray, " P"]
    best_epoch: Int[np.ndarray, " P"]
    epochs: Int[np.ndarray, " P"]
    losses: Float[np.ndarray, "P epochs"]
    answers: Float[np.ndarray, "P units K"] | None
    mix: Float[np.ndarray, "P layers"] | None


def train_probes(
    problem: Problem, probes: Sequence[Probe], settings: Settings, hidden: int | None, *, keep: bool, title: str = ""
) -> Trained:
    """Trains all probes side by side, each until its own validation score has stopped to rise.

    hidden: None for linear probes. keep: whether answers are wanted. title: of the progress that is shown. Either all
    probes mix layers or none does. A probe whose answers are not finite scores -inf.
    """
    bench = _Bench(problem, probes, settings, hidden)
    course = _Course(probes, settings)
    groups = bench.begin()
    best: dict[int, Weights] = {}
    with shown_progress(title, settings.epochs, len(probes)) as progress:
        for epoch in range(settings.epochs):
            groups, losses = bench.train(groups, course.rates, epoch, progress.chunk)
            improved = course.take(epoch, losses, bench.validate(groups))
            if keep or bench.mixed:
                best |= _copies(groups, improved)
            groups = _regrouped(groups, course.going_on(epoch))
            progress.epoch(len(course.active), course.scores.max())
            if not groups:
                break
    return Trained(
        course.scores,
        course.best_epoch,
        course.epochs,
        course.losses,
        bench.held_out_answers(best) if keep else None,
        bench.mixes(best) if bench.mixed else None,
    )


def probes_at_once() -> int:
    """Of a group, which is one program: a CPU's caches hold one probe's state, accelerators want work."""
    return 1 if jax.local_devices()[0].platform == "cpu" else 32


class _Course:
    """How far each probe has come, and by which rate it goes on."""

    def __init__(self, probes: Sequence[Probe], settings: Settings):
        count = len(probes)
        self.settings = settings
        self.rates = np.array([probe.rate for probe in probes])
        self.scores, self.level = np.full((2, count), -np.inf)  # level: what the plateau rule compares with
        self.best_epoch, self.epochs, self.stale = np.zeros((3, count), int)
        self.losses = np.full((count, settings.epochs), np.nan)
        self.active = np.arange(count)

    def take(self, epoch: int, losses: Float[np.ndarray, " P"], scores: Float[np.ndarray, " P"]) -> set[int]:
        """Notes an epoch's losses and validation scores; gives the probes that have never been as good.

        Rates are halved as by PyTorch's ReduceLROnPlateau(mode="max", factor=0.5).
        """
        active = self.active
        self.losses[active, epoch], self.epochs[active] = losses[active], epoch + 1
        improved = active[scores[active] > self.scores[active]]
        self.scores[improved], self.best_epoch[improved] = scores[improved], epoch
        gain = _LEAST_GAIN * np.abs(np.nan_to_num(self.level[active], neginf=0.0))
        risen = active[scores[active] > self.level[active] + gain]
        self.level[risen] = scores[risen]
        self.stale[active] += 1
        self.stale[risen] = 0
        slow = active[self.stale[active] > self.settings.patience_rate]
        self.rates[slow] *= 0.5
        self.stale[slow] = 0
        return set(improved.tolist())

    def going_on(self, epoch: int) -> Int[np.ndarray, " A"]:
        """Without the probes that end here: by their own patience, or as the worse half in a round of successive
        halving (Jamieson and Talwalkar, 2016)."""
        active = self.active[epoch - self.best_epoch[self.active] < self.settings.patience_stop]
        if epoch + 1 in {2**n for n in range(self.settings.halving)} and len(active) > 1:
            order = np.argsort(-self.scores[active], kind="stable")
            active = np.sort(active[order[: (len(active) + 1) // 2]])
        self.active = active
        return active


class _Group(NamedTuple):
    """probes: numbers of those that are trained in one program; the last again until the group is full. state: theirs,
    stacked."""

    probes: Int[np.ndarray, " G"]
    state: State

    def members(self) -> list[tuple[int, int]]:
        """Place in the group and number of each probe."""
        return [(place, int(probe)) for place, probe in enumerate(self.probes) if probe not in self.probes[:place]]


def _grouped(states: dict[int, State]) -> list[_Group]:
    size, numbers = probes_at_once(), np.array(list(states))
    groups = [numbers[first : first + size] for first in range(0, len(numbers), size)]
    groups = [np.pad(probes, (0, size - len(probes)), mode="edge") for probes in groups]
    stack = lambda *leaves: jnp.stack(leaves)  # noqa: E731
    return [_Group(probes, jax.tree.map(stack, *(states[int(probe)] for probe in probes))) for probes in groups]


def _regrouped(groups: list[_Group], active: Int[np.ndarray, " A"]) -> list[_Group]:
    """Without those that are not active, where that makes fewer groups."""
    if probes_at_once() == 1:
        return [group for group in groups if group.probes[0] in active]
    if -(-len(active) // probes_at_once()) == len(groups):
        return groups
    return _grouped(
        {
            probe: jax.tree.map(lambda leaf, place=place: leaf[place], group.state)
            for group in groups
            for place, probe in group.members()
            if probe in active
        }
    )


def _copies(groups: list[_Group], wanted: set[int]) -> dict[int, Weights]:
    """The parameters of these probes, on the host: the states' own memory is used again."""
    copies: dict[int, Weights] = {}
    for group in groups:
        members = [(place, probe) for place, probe in group.members() if probe in wanted]
        if members:
            params = jax.device_get(group.state.params)
            copies |= {probe: {name: leaf[place].copy() for name, leaf in params.items()} for place, probe in members}
    return copies


class _Bench:
    """A problem's rows and some probes, in the compiled programs."""

    def __init__(self, problem: Problem, probes: Sequence[Probe], settings: Settings, hidden: int | None):
        self.problem, self.probes, self.settings, self.hidden = problem, probes, settings, hidden
        self.mixed = probes[0].layer == MIXED
        if any((probe.layer == MIXED) != self.mixed for probe in probes):
            raise ValueError("probes that mix layers are trained apart from those that do not")
        self.layers = list(range(1, problem.layers.count)) if self.mixed else sorted({p.layer for p in probes})
        self.seeds = sorted({probe.seed for probe in probes})
        self.layer_of = np.array([0 if self.mixed else self.layers.index(p.layer) for p in probes], np.int32)
        self.seed_of = np.array([self.seeds.index(probe.seed) for probe in probes], np.int32)
        self.feed = Feed(problem, self.layers, standardise=settings.standardise)
        self.standards = tuple(map(jnp.asarray, self.feed.standards))
        self.train_rows = problem.rows_of(TRAIN)
        self.valid_rows = problem.rows_of(VALID)
        if settings.valid_rows is not None and len(self.valid_rows) > settings.valid_rows:
            drawn = np.random.default_rng(settings.selection_seed).choice(
                self.valid_rows, settings.valid_rows, replace=False
            )
            self.valid_rows = np.sort(drawn)

    def begin(self) -> list[_Group]:
        mixed = len(self.layers) if self.mixed else 0
        width, outputs = self.problem.layers.width, self.problem.outputs
        params = {seed: init_probe(seed, width, self.hidden, outputs, mixed) for seed in self.seeds}
        begun = {seed: State(of_seed, ADAM.init(of_seed)) for seed, of_seed in params.items()}
        return _grouped({number: begun[probe.seed] for number, probe in enumerate(self.probes)})

    def train(
        self, groups: list[_Group], rates: Float[np.ndarray, " P"], epoch: int, tick: Callable[[float], None]
    ) -> tuple[list[_Group], Float[np.ndarray, " P"]]:
        """Every training row once, in an order that follows from seed and epoch; and the mean losses. tick: is told of
        each share of the rows."""
        orders = [np.random.default_rng([seed, epoch]).permutation(self.train_rows) for seed in self.seeds]
        rows = np.stack(orders)[:, : self.settings.rows_per_epoch]
        total, steps = np.zeros(len(self.probes)), 0
        running: list[tuple[np.ndarray, Array]] = []
        for number, chunk in enumerate(self.feed.chunks(rows, self.settings.batch)):
            steps += len(chunk.weights)
            given = jax.device_put(chunk), self._kept(chunk, epoch, number), self.standards
            trained = [self._train_group(group, given, rates) for group in groups]
            _add(total, running)  # waits for the chunk before: there are never more than two in memory
            groups, running = [group for group, _ in trained], [(group.probes, losses) for group, losses in trained]
            tick(float(chunk.weights.sum()) / rows.shape[1])
        _add(total, running)
        return groups, total / steps

    def _train_group(
        self, group: _Group, given: tuple[Chunk, Any, Any], rates: Float[np.ndarray, " P"]
    ) -> tuple[_Group, Array]:
        probes = group.probes
        roles = Roles(self.layer_of[probes], self.seed_of[probes], rates[probes].astype(np.float32))
        state, losses = train_group(
            group.state, *given, roles, kind=self.problem.kind, dropout=self.settings.dropout, mixed=self.mixed
        )
        return _Group(probes, state), losses

    def _kept(self, chunk: Chunk, epoch: int, number: int) -> Bool[Array, "seeds S H B"] | None:
        if self.hidden is None or not self.settings.dropout:
            return None
        steps, batch = chunk.weights.shape
        shape = steps, self.hidden, batch
        return kept_units(jnp.array(self.seeds), epoch, number, shape=shape, dropout=self.settings.dropout)

    def validate(self, groups: list[_Group]) -> Float[np.ndarray, " P"]:
        """Scores of the groups' probes; NaN of others."""
        units, answers = self._answers([(group.probes, group.state.params) for group in groups], self.valid_rows)
        scores = np.full(len(self.probes), np.nan)
        for probe in np.unique(np.concatenate([group.probes for group in groups])):
            finite = np.isfinite(answers[probe]).all()
            scores[probe] = self.problem.score(self.problem.labels[units], answers[probe]) if finite else -np.inf
        return scores

    def held_out_answers(self, best: dict[int, Weights]) -> Float[np.ndarray, "P units K"]:
        out = np.full((len(self.probes), len(self.problem.part), self.problem.outputs), np.nan, np.float32)
        rows = self.problem.rows_of(VALID, TEST)
        if best and len(rows):
            groups = [(group.probes, group.state.params) for group in _grouped({p: State(best[p], None) for p in best})]
            units, answers = self._answers(groups, rows)
            for probe in best:
                out[probe, units] = answers[probe]
        return out

    def mixes(self, best: dict[int, Weights]) -> Float[np.ndarray, "P layers"]:
        out = np.full((len(self.probes), len(self.layers)), np.nan, np.float32)
        for probe, params in best.items():
            out[probe] = jax.nn.softmax(params["mix"])
        return out

    def _answers(
        self, groups: list[tuple[np.ndarray, Params]], rows: Int[np.ndarray, " n"]
    ) -> tuple[Int[np.ndarray, " units"], Float[np.ndarray, "P units K"]]:
        """The units of the rows; and of the groups' probes the means over the rows of each (0 of other probes)."""
        units, unit = np.unique(self.problem.unit[rows], return_inverse=True)
        total = np.zeros((len(self.probes), len(units), self.problem.outputs), np.float32)
        for piece in self.feed.pieces(rows, unit):
            features, of_rows = jax.device_put((piece.features, (piece.unit, piece.weights)))
            sums = [
                unit_sums(
                    params,
                    features,
                    of_rows,
                    self.standards,
                    jnp.asarray(self.layer_of[probes]),
                    units=piece.units,
                    kind=self.problem.kind,
                    mixed=self.mixed,
                    average=self.settings.average,
                )
                for probes, params in groups
            ]
            here = total[:, piece.first : piece.first + piece.units]
            _add(here, [(probes, s[:, : here.shape[1]]) for (probes, _), s in zip(groups, sums, strict=True)])
        total /= np.bincount(unit)[:, None].astype(np.float32)
        if self.settings.average == "logits":
            total = np.asarray(probabilities(self.problem.kind, jnp.asarray(total)))
        return units, total * self.feed.label_scale + self.feed.label_shift


def _add(total: np.ndarray, groups: list[tuple[np.ndarray, Array]]) -> None:
    """Adds what the groups' programs give, when they are done."""
    for probes, values in groups:
        total[probes] += np.asarray(values)
