"""Layer and rate by validation with one seed; then the chosen probe with several."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from musicssl_jax.mir.probing.problem import Problem
from musicssl_jax.mir.probing.settings import Network, Settings, for_seeds
from musicssl_jax.mir.probing.training import MIXED, Probe, Trained, train_probes
from musicssl_jax.shapes import Float

WEIGHTED = "weighted"


@dataclass(frozen=True, eq=False)
class Outcome:
    """choices: names of the layers, and WEIGHTED. grid: best validation score of every choice and rate, with the
    selection seed. layer, rate: the chosen ones. valid_scores: of the chosen probe with each seed. answers: its answers
    for validation and test units, NaN for others and those without rows. mix: the best weighted sum's weights of layers
    1 to the last, from the grid. seconds: of both stages."""

    choices: tuple[str, ...]
    grid: Float[np.ndarray, "choices rates"]
    layer: str
    rate: float
    valid_scores: Float[np.ndarray, " seeds"]
    answers: Float[np.ndarray, "seeds units K"]
    mix: Float[np.ndarray, " layers"] | None
    seconds: float


def choose_and_train(
    problem: Problem, settings: Settings, network: Network, *, say: Callable[[str], None] = lambda _: None
) -> Outcome:
    """The grid of layers x rates, then the chosen one with `settings.seeds`. The problem holds no test label.

    A weighted sum is a choice where there are at least two layers above the first. `say` is told of progress.
    """
    began = time.monotonic()
    hidden = settings.hidden if network == "mlp" else None
    singles = list(range(problem.layers.count))
    weighted = problem.layers.count > 2
    say(f"{network}: {(len(singles) + weighted) * len(settings.rates)} probes on validation")
    grid = _stage(problem, singles, settings, hidden, title=f"{network}: layers").scores
    mix = None
    if weighted:
        mixing = _stage(problem, [MIXED], settings, hidden, title=f"{network}: weighted sums")
        grid, best = np.concatenate([grid, mixing.scores]), int(np.argmax(mixing.scores))
        mix = mixing.mix[best] if mixing.mix is not None and np.isfinite(mixing.scores[best]) else None
    grid = grid.reshape(-1, len(settings.rates))
    choice, rate = np.unravel_index(np.argmax(grid), grid.shape)
    names = (*map(str, singles), *([WEIGHTED] if weighted else []))
    say(f"{network}: layer {names[choice]} at {settings.rates[rate]:g}, now with {len(settings.seeds)} seeds")
    layer = MIXED if choice == len(singles) else int(choice)
    probes = [Probe(layer, settings.rates[rate], seed) for seed in settings.seeds]
    final = train_probes(problem, probes, for_seeds(settings), hidden, keep=True, title=f"{network}: seeds")
    assert final.answers is not None
    return Outcome(
        choices=names,
        grid=grid,
        layer=names[choice],
        rate=settings.rates[rate],
        valid_scores=final.scores,
        answers=final.answers,
        mix=mix,
        seconds=time.monotonic() - began,
    )


def _stage(problem: Problem, layers: list[int], settings: Settings, hidden: int | None, *, title: str) -> Trained:
    probes = [Probe(layer, rate, settings.selection_seed) for layer in layers for rate in settings.rates]
    return train_probes(problem, probes, settings, hidden, keep=False, title=title)
