"""Problems with a planted answer."""

import numpy as np
from sklearn.metrics import average_precision_score, r2_score

from musicssl_jax.mir.features.store import Layers
from musicssl_jax.mir.probing.problem import TEST, Problem, blank_test
from musicssl_jax.mir.probing.settings import Settings

QUICK = Settings(hidden=32, rates=(1e-3, 1e-2), batch=32, epochs=25, seeds=(0, 1))


def stack(values):
    """Features in memory, (layers, rows, width), as a store gives them."""
    times = np.zeros(values.shape[1])
    return Layers(np.arange(values.shape[1]), times, times, values)


def score_of(kind):
    if kind == "class":
        return lambda truth, answers: float(np.mean(truth == answers.argmax(axis=1)))
    if kind == "tags":
        return lambda truth, answers: average_precision_score(truth > 0.5, answers, average="macro")
    return lambda truth, answers: float(r2_score(truth, answers))


def planted(kind="class", *, units=240, rows=2, layers=3, width=24, outputs=4, knows=(1,), noise=0.3, seed=0):
    """(problem, truth of every unit): the layers in `knows` hold the labels, the others noise alone."""
    random = np.random.default_rng(seed)
    part = random.permutation(np.repeat([0, 1, 2], [units // 2, units // 4, units - units // 2 - units // 4]))
    unit = np.repeat(np.arange(units), rows)
    if kind == "class":
        truth = random.integers(0, outputs, units)
        shown = np.eye(outputs)[truth]
    elif kind == "tags":
        truth = (random.random((units, outputs)) < 0.3).astype(np.float32)
        shown = truth
    else:
        truth = random.normal(3, 2, (units, outputs)).astype(np.float32)
        shown = truth
    values = random.normal(size=(layers, len(unit), width))
    basis = np.linalg.qr(random.normal(size=(width, width)))[0][:outputs]
    for layer in knows:
        values[layer] = noise * values[layer] + (shown @ basis)[unit] * 3
    problem = Problem(
        stack(values.astype(np.float16)), unit, part, blank_test(truth, part, kind), kind, outputs, score_of(kind)
    )
    return problem, truth


def score_on_test(problem, truth, answers):
    of_test = problem.part == TEST
    return problem.score(truth[of_test], answers[of_test])
