"""From the files of answers and curves to what the report shows: scores over seeds, verdicts, conditions."""

import json
from typing import Any

import numpy as np

from benchmarks.learning.answering import BASELINES, bag_name
from benchmarks.learning.experiment import Experiment, run_folder
from benchmarks.learning.material import Material
from benchmarks.learning.questions import chance
from benchmarks.learning.report import Findings, Trained
from benchmarks.learning.settings import REFERENCE, Arm, config_of
from benchmarks.learning.store import AllAnswers, nested
from benchmarks.learning.training import STATE
from benchmarks.learning.verdicts import Scored, condition, judge, judge_harmony, over_seeds
from musicssl_jax.flops import update_flops
from musicssl_jax.models.objective import make_objective


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
                [scored for scored in trained[arm.name].course[probe][question] if scored is not None],
                {f"targets {one.control}": trained[one.name].last(probe, question) for one in controls},
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
    found = [
        judge_harmony(arm.name, scores(arm.name), scores(REFERENCE), baselines[bag_name(arm)][probe])
        for arm in own
        if arm.targets and arm.name != REFERENCE
    ]
    return [one for one in found if one]


def _trained(experiment: Experiment, material: Material, arm: Arm) -> Trained:
    size, config = experiment.size, config_of(arm, experiment.size)
    answers = [
        [_read(experiment.answers_file(arm, seed, point)) for point in range(size.points)]
        for seed in range(experiment.seeds)
    ]
    curves, seconds = zip(*(_curve(experiment, arm, seed) for seed in range(experiment.seeds)), strict=True)
    samples = round(config.data.crop_seconds * config.data.sample_rate)
    guessing = {t: material.guessing[t, k] for t, k in zip(arm.targets, arm.clusters, strict=True)}
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
        layers={
            question: np.mean([of_seed[-1]["linear"][question].layers for of_seed in answers], axis=0)
            for question in material.asked
        },
        curves=list(curves),
        conditions=[condition(curve, config.objective, config.collapse, guessing) for curve in curves],
        seconds=list(seconds),
        audio_hours=config.steps * config.batch.clips * config.data.crop_seconds / 3600,
        flop=float(config.steps * update_flops(make_objective(config), samples)),
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
