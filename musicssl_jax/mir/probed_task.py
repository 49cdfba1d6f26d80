"""One task by one encoder's window features: from examples to scores of the test part."""

import dataclasses
import functools
import time
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, runtime_checkable

import numpy as np
from sklearn.metrics import confusion_matrix

from musicssl_jax.errors import UserError
from musicssl_jax.mir.features.store import Layers
from musicssl_jax.mir.metrics import ensemble, main_score, score
from musicssl_jax.mir.probing.neighbours import nearest_neighbours
from musicssl_jax.mir.probing.problem import TEST, TRAIN, VALID, Problem, blank_test
from musicssl_jax.mir.probing.selection import Outcome, choose_and_train
from musicssl_jax.mir.probing.settings import Settings, for_size
from musicssl_jax.mir.report.results import Chosen
from musicssl_jax.mir.tasks.task import PARTS, Example, Protocol, Task
from musicssl_jax.shapes import Int, Shaped

Say = Callable[[str], None]

NETWORKS = ("mlp", "linear", "knn")


@runtime_checkable
class Features(typing.Protocol):
    """What gives a task its features: a `FeatureStore`, or `PrecomputedFeatures`."""

    rejected: dict[str, str]

    def layers_for(self, recordings: Sequence[str]) -> Layers: ...


@dataclass(frozen=True)
class Answers:
    """What a result is made of. recording, group, truth: of the test units; the fields of `TaskResult` of their names.
    outputs (seeds, units, K): of the first network; f: for beats instead."""

    recording: np.ndarray
    group: np.ndarray
    scores: dict[str, dict[str, list[float]]]
    chosen: dict[str, Chosen]
    layer_names: tuple[str, ...]
    layer_scores_valid: dict[str, list[float]]
    seconds: float
    truth: np.ndarray | None = None
    outputs: np.ndarray | None = None
    f: np.ndarray | None = None
    layer_weights: tuple[float, ...] | None = None
    confusion: list[list[int]] | None = None


def probe_task(
    task: Task,
    protocol: Protocol,
    examples: Sequence[Example],
    features: Features,
    settings: Settings,
    networks: Sequence[str],
    say: Say,
) -> Answers:
    """Probes of every network on the examples' features.

    Raises UserError: validation cannot tell probes apart.
    """
    began = time.monotonic()
    layers = features.layers_for([example.recording for example in examples])
    units = _units(task, protocol, examples, layers)
    problem = _problem(task, protocol, layers, units)
    check_validation(task, units.truth[units.part == VALID])
    settings = for_size(settings, len(problem.rows_of(TRAIN)))
    outcomes = {network: _outcome(problem, settings, network, say) for network in networks}
    if protocol.ensembles:
        outcomes = {name: _joined(task, outcome, units, protocol) for name, outcome in outcomes.items()}
        _, first = np.unique(units.owner, return_index=True)
        units = _Units(*(of_units[first] for of_units in units))
    return _answers(task, examples, units, outcomes, outcomes[networks[0]], began)


class _Units(NamedTuple):
    """What gets one answer each. owner: its example's number. part: the number of its part."""

    owner: Int[np.ndarray, " n"]
    part: Int[np.ndarray, " n"]
    truth: Shaped[np.ndarray, "n ..."]


def _units(task: Task, protocol: Protocol, examples: Sequence[Example], layers: Layers) -> _Units:
    """Recordings, or all their windows."""
    owner = layers.recording if _by_window(protocol) else np.arange(len(examples))
    part = np.array([PARTS.index(example.part) for example in examples])
    return _Units(owner, part[owner], labels_of(task, examples)[owner])


def _by_window(protocol: Protocol) -> bool:
    return protocol.unit == "window" or bool(protocol.ensembles)


def _problem(task: Task, protocol: Protocol, layers: Layers, units: _Units) -> Problem:
    return Problem(
        layers=layers,
        unit=np.arange(layers.rows) if _by_window(protocol) else layers.recording,
        part=units.part,
        labels=blank_test(units.truth, units.part, task.kind),  # type: ignore[arg-type]
        kind=task.kind,  # type: ignore[arg-type]
        outputs=len(task.outputs),
        score=functools.partial(_validation_score, task),
    )


def _answers(
    task: Task,
    examples: Sequence[Example],
    units: _Units,
    outcomes: Mapping[str, Outcome],
    main: Outcome,
    began: float,
) -> Answers:
    """Of the test part's units; main: of the first network."""
    test = np.flatnonzero(units.part == TEST)
    owners, truth, outputs = units.owner[test], units.truth[test], main.answers[:, test]
    mixing = outcomes.get("mlp", main)
    return Answers(
        recording=np.array([example.recording for example in examples])[owners],
        group=np.array([example.group for example in examples])[owners],
        truth=_as_known(task, truth),
        outputs=outputs,
        scores={name: scores_of_seeds(task, truth, outcome.answers[:, test]) for name, outcome in outcomes.items()},
        chosen={name: chosen_of(name, outcome) for name, outcome in outcomes.items()},
        layer_names=max((outcome.choices for outcome in outcomes.values()), key=len),
        layer_scores_valid={name: list(outcome.grid.max(axis=1)) for name, outcome in outcomes.items()},
        layer_weights=None if mixing.mix is None else tuple(map(float, mixing.mix)),
        confusion=_confusion(task, truth, outputs),
        seconds=time.monotonic() - began,
    )


def labels_of(task: Task, examples: Sequence[Example]) -> Shaped[np.ndarray, "n ..."]:
    """(n,) class numbers, (n, K) tags as 0 or 1, or (n, K) numbers."""
    if task.kind == "class":
        return np.array([example.label for example in examples])
    if task.kind == "numbers":
        return np.array([example.label for example in examples], np.float32)
    tags = np.zeros((len(examples), len(task.outputs)), np.float32)
    for row, example in zip(tags, examples, strict=True):
        row[list(example.label)] = 1
    return tags


def check_validation(task: Task, truth: Shaped[np.ndarray, "n ..."]) -> None:
    """UserError: no probe could be better than another on these labels."""
    if task.kind == "tags" and not np.any((truth.min(axis=0) < 0.5) & (truth.max(axis=0) > 0.5)):
        raise UserError(f"{task.name}: no tag of its valid part is on some recordings and not on others")
    if task.kind == "numbers" and len(truth) < 2:
        raise UserError(f"{task.name}: its valid part has one recording, of which R² is nothing")


def scores_of_seeds(task: Task, truth: Any, answers: Iterable[Any]) -> dict[str, list[float]]:
    """Every metric, of each seed; NaN where a probe has diverged."""
    of_seeds = [_scores(task, truth, answer) for answer in answers]
    names = max(of_seeds, key=len) if of_seeds else {}
    return {name: [scores.get(name, float("nan")) for scores in of_seeds] for name in names or {task.metric: 0.0}}


def chosen_of(network: str, outcome: Outcome) -> Chosen:
    """Layer, rate (of kNN none) and mean validation score over seeds."""
    rate = None if network == "knn" else float(outcome.rate)
    return Chosen(outcome.layer, rate, float(np.mean(outcome.valid_scores)))


def _joined(task: Task, outcome: Outcome, units: _Units, protocol: Protocol) -> Outcome:
    """With one answer a recording, of each seed by the ensemble that is best on validation."""
    _, first = np.unique(units.owner, return_index=True)
    valid = units.part[first] == VALID
    joined = []
    for answers in outcome.answers:
        ways = [ensemble(answers, units.owner, how) for how in protocol.ensembles]
        scores = [_validation_score(task, units.truth[first][valid], way[valid]) for way in ways]
        joined.append(ways[int(np.argmax(scores))])
    return dataclasses.replace(outcome, answers=np.stack(joined))


def _outcome(problem: Problem, settings: Settings, network: str, say: Say) -> Outcome:
    if network == "knn":
        return nearest_neighbours(problem, say=say)
    return choose_and_train(problem, settings, network, say=say)  # type: ignore[arg-type]


def _validation_score(task: Task, truth: np.ndarray, answers: np.ndarray) -> float:
    return main_score(task, _as_known(task, truth), answers)


def _scores(task: Task, truth: np.ndarray, answers: np.ndarray) -> dict[str, float]:
    return score(task, _as_known(task, truth), answers) if np.isfinite(answers).all() else {}


def _as_known(task: Task, truth: np.ndarray) -> np.ndarray:
    return truth > 0.5 if task.kind == "tags" else truth


def _confusion(task: Task, truth: np.ndarray, outputs: np.ndarray) -> list[list[int]] | None:
    """Of the seeds' mean answer."""
    if task.kind != "class":
        return None
    answers = outputs.mean(axis=0).argmax(axis=1)
    return confusion_matrix(truth, answers, labels=np.arange(len(task.outputs))).tolist()
