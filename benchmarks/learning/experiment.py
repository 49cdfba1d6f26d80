"""The experiment: music, codebooks, baselines, and each arm with each seed, trained and probed at its points."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

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
from benchmarks.learning.music import (
    PROBED_SEEDS,
    TRAINING_SEED,
    UNHEARD,
    VALIDATION_SEED,
    folder_pieces,
    read_folder,
    rendered,
    training_tracks,
)
from benchmarks.learning.questions import Asked, ask
from benchmarks.learning.settings import Arm, Size, arms, config_of
from benchmarks.learning.store import AllAnswers, flat, once, write_arrays, write_whole
from benchmarks.learning.training import fit_centroids, make_program, on_device, train
from musicssl_jax.errors import PREEMPTED, TrainingStopped, UserError
from musicssl_jax.parallel import make_mesh
from musicssl_jax.targets.filter_bank import FrameGrid, frame_grid

BASELINES = {"MFCC": "mfcc39", "log-mel": "logmel229", "chroma": "chroma24", "CQT": "cqt84"}
"""Front ends that stand in the table themselves."""

MUSIC, PROBED, CODEBOOKS, ANSWERS, RUNS = "music.npz", "probed.npz", "codebooks", "answers", "runs"
SETTINGS = "settings.json"


@dataclass(frozen=True)
class Experiment:
    """What is asked for. train_on, probe_on: folders instead of musicbox. tracks: "tuning" or "reporting", of the
    musicbox tracks that are probed. deadline: of `time.time`, at which it stops to be gone on with."""

    folder: Path
    size: Size
    arms: tuple[Arm, ...]
    seeds: int
    tracks: str
    train_on: Path | None = None
    probe_on: Path | None = None
    deadline: float | None = None

    def pause(self) -> None:
        """Raises TrainingStopped when time is up."""
        if self.deadline is not None and time.time() > self.deadline:
            raise TrainingStopped(PREEMPTED, "time is up: the same command goes on")

    @property
    def grid(self) -> FrameGrid:
        """Of all arms."""
        return frame_grid(config_of(self.arms[0], self.size))

    def answers_file(self, arm: Arm, seed: int, point: int) -> Path:
        """Of an arm's encoder at one of its points. Step 0 follows from model and seed alone."""
        name = arm.name if point else f"{arm.model}, step 0"
        return self.folder / ANSWERS / f"{name}, seed {seed}, point {point}.npz"

    def baseline_file(self, name: str) -> Path:
        return self.folder / ANSWERS / f"{name}.npz"


class Material(NamedTuple):
    """All that arms share."""

    training: np.ndarray
    validation: np.ndarray
    waveforms: list[np.ndarray]
    asked: dict[str, Asked]
    codebooks: dict[tuple[str, int], np.ndarray]
    guessing: dict[tuple[str, int], float]


def claim(experiment: Experiment) -> None:
    """Writes what the folder is of. UserError: it is of another experiment, whose files would be mixed with these."""
    size = {name: value for name, value in vars(experiment.size).items() if name not in ("seeds", "chosen")}
    wanted = {"size": size, "tracks": experiment.tracks}
    wanted |= {name: _identity(getattr(experiment, name)) for name in ("train_on", "probe_on")}
    described = json.dumps(wanted, indent=1)
    file = experiment.folder / SETTINGS
    if not file.exists():
        write_whole(file, described.encode())
    elif file.read_text() != described:
        raise UserError(
            f"{experiment.folder} holds an experiment of another size, or on other music ({file}): give another "
            "--workdir"
        )


def _identity(folder: Path | None) -> str:
    """Of a folder's music: where it is, and what its lists say."""
    if folder is None:
        return "musicbox"
    lists = b"".join(path.read_bytes() for path in sorted(folder.glob("*.jsonl")))
    return f"{folder.resolve()}, lists {hashlib.sha256(lists).hexdigest()[:12]}"


def prepare(experiment: Experiment, say: Callable[[str], None]) -> Material:
    """Renders or reads the music and fits the codebooks, unless the folder holds them."""
    size, rate = experiment.size, experiment.grid.sample_rate
    began = time.monotonic()

    def probed() -> dict[str, np.ndarray]:
        seed = PROBED_SEEDS[experiment.tracks]
        tracks = (
            read_folder(experiment.probe_on, rate, size.probed_seconds)
            if experiment.probe_on
            else rendered(seed, size.probed, size.probed_seconds, rate, UNHEARD)
        )
        waveforms, truths = zip(*tracks, strict=True)
        return {
            "samples": np.concatenate(waveforms),
            "lengths": np.array([len(waveform) for waveform in waveforms]),
            "truths": np.array(json.dumps(truths)),
        }

    def music() -> dict[str, np.ndarray]:
        if experiment.train_on:
            # Of all arms, for some may be added later.
            longest_crop = max(config_of(arm, size).data.crop_seconds for arm in arms(size))
            return folder_pieces(experiment.train_on, rate, size.track_seconds, longest_crop, say)
        held_out = max(4, size.tracks // 10)
        return {
            "training": training_tracks(TRAINING_SEED, size.tracks, size.track_seconds, rate),
            "validation": training_tracks(VALIDATION_SEED, held_out, size.track_seconds, rate),
        }

    asked_of = once(experiment.folder / PROBED, probed)
    waveforms = np.split(asked_of["samples"], np.cumsum(asked_of["lengths"])[:-1])
    asked = ask(json.loads(str(asked_of["truths"])), [len(waveform) / rate for waveform in waveforms], say=say)
    if not asked:
        raise UserError(f"{experiment.probe_on or experiment.folder}: there is no question that its tracks answer")
    experiment.pause()
    tracks = once(experiment.folder / MUSIC, music)
    claim(experiment)
    say(f"music: {_hours(tracks['training'], rate):.2f} h to train on, {len(waveforms)} tracks to probe")
    books, entropies = {}, {}
    for target, clusters in _label_sets(experiment.arms):
        experiment.pause()
        book = once(
            experiment.folder / CODEBOOKS / f"{target}, {clusters}.npz",
            partial(_codebook, experiment, target, clusters, tracks["training"], say),
        )
        books[target, clusters], entropies[target, clusters] = book["centroids"], float(book["entropy"])
    say(f"prepared in {time.monotonic() - began:.0f} s")
    return Material(tracks["training"], tracks["validation"], waveforms, asked, books, entropies)


def _label_sets(arms: Sequence[Arm]) -> list[tuple[str, int]]:
    """(front end, clusters) of all arms."""
    return sorted({one for arm in arms for one in zip(arm.targets, arm.clusters, strict=True)})


def _hours(tracks: np.ndarray, rate: int) -> float:
    return tracks.size / rate / 3600


def _codebook(
    experiment: Experiment, target: str, clusters: int, tracks: np.ndarray, say: Callable[[str], None]
) -> dict[str, np.ndarray]:
    say(f"codebook: {clusters} clusters of {target}")
    [arm, *_] = [arm for arm in experiment.arms if target in arm.targets]
    mesh = make_mesh(1, 1)
    with jax.set_mesh(mesh):
        centroids, entropy = fit_centroids(target, clusters, config_of(arm, experiment.size), tracks, mesh)
    return {"centroids": centroids, "entropy": np.array(entropy)}


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
        folder = run_folder(experiment, arm, seed)
        for point in train(program, size, seed, tracks, held_out, folder, experiment.pause):
            path = experiment.answers_file(arm, seed, point.number)
            if path.exists():
                continue
            experiment.pause()
            frames = encoder_frames(program.objective, point.params, size.layer_step)
            data = program.config.data
            heard = Heard(frames, round(data.crop_seconds * data.sample_rate), data.normalize)
            ends = point.number in (0, size.points - 1)
            answers = _answers(experiment, material, heard, with_mlp=ends)
            write_arrays(path, flat(answers))
            scores = ", ".join(f"{name} {one.score:.2f}" for name, one in answers["linear"].items())
            say(f"{arm.name}, seed {seed}, step {point.step} ({point.seconds:.0f} s): {scores}")


def run_folder(experiment: Experiment, arm: Arm, seed: int) -> Path:
    return experiment.folder / RUNS / f"{arm.name}, seed {seed}"


def _answers(experiment: Experiment, material: Material, heard: Heard, *, with_mlp: bool) -> AllAnswers:
    features = pooled(heard, material.waveforms, material.asked, experiment.grid)
    answers: dict[str, dict[str, Answers]] = {
        "linear": {name: linear(features[name], asked) for name, asked in material.asked.items()}
    }
    epochs = experiment.size.mlp_epochs
    if with_mlp and epochs:
        answers["mlp"] = {name: mlp(features[name], asked, epochs) for name, asked in material.asked.items()}
    return answers


def selected(size: Size, names: str | None) -> tuple[Arm, ...]:
    """The arms of these names, separated by semicolons, or the size's. UserError: there is no such arm."""
    known: Mapping[str, Arm] = {arm.name: arm for arm in arms(size)}
    wanted = [name.strip() for name in names.split(";")] if names is not None else size.chosen or list(known)
    for name in wanted:
        if name not in known:
            raise UserError(f"--arms: there is no {name!r}; there are {'; '.join(known)}")
    return tuple(known[name] for name in wanted)


def cells(experiment: Experiment) -> Iterator[tuple[Arm, int]]:
    """Arms and seeds in the order of work: all arms of a seed before the next."""
    for seed in range(experiment.seeds):
        for arm in experiment.arms:
            yield arm, seed


def is_done(experiment: Experiment, arm: Arm, seed: int) -> bool:
    """Whether all points of the arm are answered."""
    return all(experiment.answers_file(arm, seed, point).exists() for point in range(experiment.size.points))
