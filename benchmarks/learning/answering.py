"""All questions are asked of the baselines, and of each arm with each seed, which is trained, at its points."""

from collections.abc import Callable
from functools import partial

import jax

from benchmarks.learning.evaluation import (
    Answers,
    Frames,
    Heard,
    code_frames,
    encoder_frames,
    front_end_frames,
    linear,
    mlp,
    pooled,
)
from benchmarks.learning.experiment import Experiment, run_folder
from benchmarks.learning.material import Material
from benchmarks.learning.settings import Arm
from benchmarks.learning.store import AllAnswers, flat, write_arrays
from benchmarks.learning.training import Point, Program, make_program, on_device, train
from musicssl_jax.errors import UserError
from musicssl_jax.parallel import make_mesh

BASELINES = {"MFCC": "mfcc39", "log-mel": "logmel229", "chroma": "chroma24", "CQT": "cqt84"}
"""Front ends that stand in the table themselves."""


def baselines(experiment: Experiment, material: Material) -> dict[str, Frames]:
    """What stands beside the arms: front ends, and each arm's own codes as bags."""
    found = {name: front_end_frames(target, experiment.grid) for name, target in BASELINES.items()}
    for arm in experiment.arms:
        if arm.targets and not arm.control:
            labelled = zip(arm.targets, arm.clusters, strict=True)
            sets = {target: material.codebooks[target, clusters] for target, clusters in labelled}
            found[bag_name(arm)] = code_frames(sets, experiment.grid)
    return found


def bag_name(arm: Arm) -> str:
    """What an arm's codes are called as a baseline."""
    return f"bag of codes, {arm.name.removeprefix(arm.model).strip()}"


def probe_baseline(experiment: Experiment, material: Material, name: str, say: Callable[[str], None]) -> None:
    """Asks all questions of a baseline, unless that is done."""
    path = experiment.baseline_file(name)
    if not path.exists():
        # At once as much as there is: a front end has no length that it was trained on.
        whole = round(experiment.size.probed_seconds * experiment.grid.sample_rate)
        heard = Heard(baselines(experiment, material)[name], whole)
        write_arrays(path, flat(_answers(experiment, material, heard, with_mlp=True)))
        say(f"{name}: probed")


def run_arm(experiment: Experiment, material: Material, arm: Arm, seed: int, say: Callable[[str], None]) -> None:
    """Trains an arm and asks all questions at its points, from where the folder is.

    Raises TrainingStopped when time is up.
    """
    size = experiment.size
    mesh = make_mesh(1, 1)
    with jax.set_mesh(mesh):
        program = make_program(arm, size, material.codebooks, mesh)
        tracks, held_out = (on_device(pcm, program.margin) for pcm in (material.training, material.validation))
        look = partial(_look, experiment, material, arm, seed, program, say)
        if not experiment.answers_file(arm, seed, 0).exists():
            look(Point(0, 0, program.init(seed).params, [], 0.0))
        folder = run_folder(experiment, arm, seed)
        for point in train(program, size, seed, tracks, held_out, folder, experiment.pause):
            look(point)
    # A run that is past a point does not come to it again.
    for number in range(size.points):
        if not (path := experiment.answers_file(arm, seed, number)).exists():
            raise UserError(f"{path} is missing: delete {folder}, and the same command trains that arm again")


def _look(
    experiment: Experiment,
    material: Material,
    arm: Arm,
    seed: int,
    program: Program,
    say: Callable[[str], None],
    point: Point,
) -> None:
    """Asks all questions at a point of an arm, unless that is done."""
    path = experiment.answers_file(arm, seed, point.number)
    if path.exists():
        return
    experiment.pause()
    frames = encoder_frames(program.objective, point.params, experiment.size.layer_step)
    data = program.config.data
    heard = Heard(frames, round(data.crop_seconds * data.sample_rate), data.normalize)
    ends = point.number in (0, experiment.size.points - 1)
    answers = _answers(experiment, material, heard, with_mlp=ends)
    write_arrays(path, flat(answers))
    scores = ", ".join(f"{name} {one.score:.2f}" for name, one in answers["linear"].items())
    say(f"{arm.name}, seed {seed}, step {point.step} ({point.seconds:.0f} s): {scores}")


def _answers(experiment: Experiment, material: Material, heard: Heard, *, with_mlp: bool) -> AllAnswers:
    features = pooled(heard, material.waveforms, material.asked, experiment.grid)
    answers: dict[str, dict[str, Answers]] = {
        "linear": {name: linear(features[name], asked) for name, asked in material.asked.items()}
    }
    epochs = experiment.size.mlp_epochs
    if with_mlp and epochs:
        answers["mlp"] = {name: mlp(features[name], asked, epochs) for name, asked in material.asked.items()}
    return answers
