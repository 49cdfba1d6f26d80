"""The experiment: what is asked for, the files of its folder, and the order of its work."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.learning.settings import Arm, Size, arms, config_of
from benchmarks.learning.training import STATE
from musicssl_jax.errors import PREEMPTED, TrainingStopped, UserError
from musicssl_jax.targets.filter_bank import FrameGrid, frame_grid

MUSIC, PROBED, CODEBOOKS, ANSWERS, RUNS = "music.npz", "probed.npz", "codebooks", "answers", "runs"
MADE = MUSIC, PROBED, CODEBOOKS, ANSWERS, RUNS
SETTINGS = "settings.json"
"""What all that is made is of."""


@dataclass(frozen=True)
class Experiment:
    """What is asked for. train_on, probe_on: folders instead of musicbox. max_tracks: that are used of each of them.
    tracks: "tuning" or "reporting", of the musicbox tracks that are probed. deadline: of `time.time`, at which it stops
    to be gone on with."""

    folder: Path
    size: Size
    arms: tuple[Arm, ...]
    seeds: int
    tracks: str
    train_on: Path | None = None
    probe_on: Path | None = None
    max_tracks: int | None = None
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


def run_folder(experiment: Experiment, arm: Arm, seed: int) -> Path:
    return experiment.folder / RUNS / f"{arm.name}, seed {seed}"


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
    """Whether all points of the arm are answered, and its curves are there."""
    trained = (run_folder(experiment, arm, seed) / STATE).exists()
    return trained and all(
        experiment.answers_file(arm, seed, point).exists() for point in range(experiment.size.points)
    )
