"""The task that both sides of `benchmarks.probe` learn. JAX is not imported: its memory is not the peer's."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from musicssl_jax.mir.features.store import Layers
from musicssl_jax.mir.probing.problem import Problem, blank_test
from musicssl_jax.mir.probing.settings import Settings


class Sizes(NamedTuple):
    """Rows of each part, layers, and the widths of features and answers."""

    train: int
    valid: int
    test: int
    layers: int
    width: int
    outputs: int


def make_problem(sizes: Sizes) -> Problem:
    """Classes that are in the middle layers, under noise."""
    random = np.random.default_rng(0)
    part = np.repeat([0, 1, 2], [sizes.train, sizes.valid, sizes.test])
    labels = random.integers(0, sizes.outputs, len(part))
    directions = random.normal(size=(sizes.layers, sizes.outputs, sizes.width))
    strength = 0.25 * np.exp(-0.5 * ((np.arange(sizes.layers) - sizes.layers / 2) / 2) ** 2)
    values = random.normal(size=(sizes.layers, len(part), sizes.width))
    values += strength[:, None, None] * directions[:, labels]
    hidden = blank_test(labels, part, "class")
    score = lambda truth, answers: float(np.mean(truth == answers.argmax(axis=1)))  # noqa: E731
    rows = np.arange(len(part))
    features = Layers(rows, np.zeros(len(part)), np.zeros(len(part)), values.astype(np.float16))
    return Problem(features, rows, part, hidden, "class", sizes.outputs, score)


def make_settings(epochs: int) -> Settings:
    """The grid's, with nothing stopped before its time."""
    return Settings(epochs=epochs, patience_rate=10**6, patience_stop=10**6, standardise=False)


def grid_flops(sizes: Sizes, settings: Settings) -> int:
    """Of training the whole grid: training rows forwards and backwards and validation rows forwards, each epoch.

    A multiplication and an addition count as 2; features of single layers have no gradient.
    """
    first, second = 2 * sizes.width * settings.hidden, 2 * settings.hidden * sizes.outputs
    mix = 2 * (sizes.layers - 1) * sizes.width
    single = sizes.train * (2 * first + 3 * second) + sizes.valid * (first + second)
    mixing = sizes.train * (3 * first + 3 * second + 2 * mix) + sizes.valid * (first + second + mix)
    return settings.epochs * len(settings.rates) * (sizes.layers * single + mixing)


def weights_file(folder: str) -> Path:
    """Of the parameters that every probe begins with, as our side writes them."""
    return Path(folder) / "weights.npz"
