"""From the files of answers and curves to what is shown: scores over seeds, verdicts, conditions."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from benchmarks.learning.answering import BASELINES, bag_name
from benchmarks.learning.evaluation import Answers
from benchmarks.learning.experiment import Experiment, run_folder
from benchmarks.learning.material import Material
from benchmarks.learning.questions import Counts, chance, counts
from benchmarks.learning.scores import Scored, over_seeds
from benchmarks.learning.settings import REFERENCE, Arm, config_of
from benchmarks.learning.store import AllAnswers, nested
from benchmarks.learning.training import STATE
from benchmarks.learning.verdicts import Condition, Harmony, Learned, condition, judge, judge_harmony
from musicssl_jax.flops import encoder_flops, update_flops
from musicssl_jax.models.objective import make_objective


class Trained(NamedTuple):
    """One arm. steps: at its points. course: probe -> question -> the score at each point that it was asked at, None
    elsewhere. layers: probe -> question -> validation score of each layer at the end, mean over seeds; chosen: the
    layer that was taken, by seed. curves, conditions, seconds: by seed. audio_hours, flop, encoder_flop: of one seed's
    run; the last of the encoder's passes forward alone."""

    name: str
    model: str
    steps: list[int]
    course: dict[str, dict[str, list[Scored | None]]]
    layers: dict[str, dict[str, np.ndarray]]
    chosen: dict[str, dict[str, list[int]]]
    curves: list[list[dict[str, float]]]
    conditions: list[Condition]
    seconds: list[float]
    audio_hours: float
    flop: float
    encoder_flop: float

    def asked(self, probe: str, question: str) -> list[Scored]:
        """Scores at the points that it was asked at, from step 0 to the last."""
        return [scored for scored in self.course[probe][question] if scored is not None]

    def last(self, probe: str, question: str) -> Scored:
        return self.asked(probe, question)[-1]


class Findings(NamedTuple):
    """All that is shown. baselines: name -> probe -> question -> score. chance, split: by question."""

    about: dict[str, Any]
    arms: list[Trained]
    baselines: dict[str, dict[str, dict[str, Scored]]]
    chance: dict[str, float]
    split: dict[str, dict[str, Counts]]
    learned: dict[str, dict[str, list[Learned]]]
    """Of each arm that is no control: probe -> verdicts, one a question."""
    harmony: dict[str, list[Harmony]]
    """By probe."""

    @property
    def questions(self) -> list[str]:
        return list(self.chance)

    @property
    def probes(self) -> list[str]:
        return list(self.harmony)


def collect(experiment: Experiment, material: Material, about: dict[str, Any]) -> Findings:
    """Everything that is known once all arms are trained."""
    trained = {arm.name: _trained(experiment, material, arm) for arm in experiment.arms}
    names = [*BASELINES, *(bag_name(arm) for arm in experiment.arms if arm.targets and not arm.control)]
    baselines = {
        name: {
            probe: {question: over_seeds([one.score], [one.draws]) for question, one in of_probe.items()}
            for probe, of_probe in _read(experiment.baseline_file(name)).items()
        }
        for name in names
    }
    own = [arm for arm in experiment.arms if not arm.control]
    return Findings(
        about=about,
        arms=list(trained.values()),
        baselines=baselines,
        chance={name: chance(asked) for name, asked in material.asked.items()},
        split={name: counts(asked) for name, asked in material.asked.items()},
        learned={arm.name: _learned(experiment, arm, trained, list(material.asked)) for arm in own},
        harmony={probe: _harmony(own, trained, baselines, probe) for probe in experiment.size.probes},
    )


def _learned(experiment: Experiment, arm: Arm, trained: dict[str, Trained], questions: list[str]) -> dict[str, list]:
    """Of both probes; an MLP was asked at the ends of training alone."""
    controls = [one for one in experiment.arms if one.control and one.model == arm.model]
    return {
        probe: [
            judge(
                question,
                trained[arm.name].asked(probe, question),
                {f"targets {one.control}": trained[one.name].asked(probe, question) for one in controls},
            )
            for question in questions
        ]
        for probe in experiment.size.probes
    }


def _harmony(own: list[Arm], trained: dict[str, Trained], baselines: dict, probe: str) -> list:
    def scores(name: str) -> dict[str, Scored]:
        return {question: trained[name].last(probe, question) for question in trained[name].course[probe]}

    if REFERENCE not in trained:
        return []
    return [
        judge_harmony(arm.name, scores(arm.name), scores(REFERENCE), baselines[bag_name(arm)][probe])
        for arm in own
        if arm.targets and arm.name != REFERENCE
    ]


def _trained(experiment: Experiment, material: Material, arm: Arm) -> Trained:
    size, config = experiment.size, config_of(arm, experiment.size)
    answers = [
        [_read(experiment.answers_file(arm, seed, point)) for point in range(size.points)]
        for seed in range(experiment.seeds)
    ]
    curves, seconds = zip(*(_curve(experiment, arm, seed) for seed in range(experiment.seeds)), strict=True)
    samples = round(config.data.crop_seconds * config.data.sample_rate)
    objective = make_objective(config)
    guessing = {t: material.guessing[t, k] for t, k in zip(arm.targets, arm.clusters, strict=True)}

    def at_the_end(of: Callable[[list[Answers]], Any]) -> dict[str, dict[str, Any]]:
        return {
            probe: {name: of([of_seed[-1][probe][name] for of_seed in answers]) for name in material.asked}
            for probe in size.probes
        }

    return Trained(
        name=arm.name,
        model=arm.model,
        steps=[round(config.steps * n / (size.points - 1)) for n in range(size.points)],
        course={
            probe: {
                question: [
                    _over_seeds([of_seed[point] for of_seed in answers], probe, question)
                    for point in range(size.points)
                ]
                for question in material.asked
            }
            for probe in experiment.size.probes
        },
        layers=at_the_end(lambda found: np.mean([one.layers for one in found], axis=0)),
        chosen=at_the_end(lambda found: [one.layer * size.layer_step for one in found]),
        curves=list(curves),
        conditions=[condition(curve, config.objective, config.collapse, guessing) for curve in curves],
        seconds=list(seconds),
        audio_hours=config.steps * config.batch.clips * config.data.crop_seconds / 3600,
        flop=float(config.steps * update_flops(objective, samples)),
        encoder_flop=float(config.steps * config.batch.clips * encoder_flops(objective.model, samples)),
    )


def _over_seeds(answers: list[AllAnswers], probe: str, question: str) -> Scored | None:
    if probe not in answers[0]:
        return None
    found = [of_seed[probe][question] for of_seed in answers]
    return over_seeds([one.score for one in found], [one.draws for one in found])


def _curve(experiment: Experiment, arm: Arm, seed: int) -> tuple[list[dict[str, float]], float]:
    with np.load(run_folder(experiment, arm, seed) / STATE, allow_pickle=False) as saved:
        return json.loads(str(saved["curve"])), float(saved["seconds"])


def _read(path) -> AllAnswers:
    with np.load(path, allow_pickle=False) as arrays:
        return nested(dict(arrays))
