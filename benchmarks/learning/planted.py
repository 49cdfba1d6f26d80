"""Runs that go wrong on purpose: what curves look like then, and whether the verdicts call them by their names.

    python -m benchmarks.learning.planted --workdir=runs/planted        a few minutes on two cores

Trains each of PLANTED on musicbox tracks, says how it ended and by which figures, and draws the curves of
docs/healthy.md; the figures themselves are benchmarks/results/planted_curves.json.
"""

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.learning.figures import shown, write_figures
from benchmarks.learning.music import TRAINING_SEED, VALIDATION_SEED, training_tracks
from benchmarks.learning.pictures import draw_curves
from benchmarks.learning.settings import SIZES, Arm, config_of
from benchmarks.learning.training import fit_centroids, make_program, on_device, train
from benchmarks.learning.verdicts import COLLAPSED, GUESSES, HEALTHY, MEMORISES, Condition, condition
from musicssl_jax.command import ArgumentParser, run_command
from musicssl_jax.parallel import make_mesh
from musicssl_jax.shapes import Int16

JSON, PICTURE = "curves.json", "curves.png"
STEPS = 240
TRACKS, SECONDS, SAMPLE_RATE = 24, 4.0, 16_000

Music = tuple[Int16[np.ndarray, "tracks samples"], Int16[np.ndarray, "others samples"]]
"""To train on, and held out."""


class Planted(NamedTuple):
    """ends: what it is planted to end as. fields: of its config that are changed. clips: that it hears again and again;
    None: all music."""

    ends: str
    arm: Arm
    fields: Mapping[str, Any]
    clips: int | None = None


_MUSIC2VEC = Arm("music2vec", "music2vec")
_MUSICHUBERT = Arm("musicHuBERT", "musicHuBERT", ("mfcc39",), (8,))

PLANTED = {
    "music2vec": Planted(HEALTHY, _MUSIC2VEC, {}),
    # Nothing normalises its targets, and its teacher is the student itself.
    "music2vec, teacher agrees with itself": Planted(
        COLLAPSED,
        _MUSIC2VEC,
        {
            "target.batch_norm_layer": False,
            "teacher.decay": 0.0,
            "teacher.end_decay": 0.0,
            "schedule.peak": 3e-3,
        },
    ),
    "music2vec, targets redrawn": Planted(COLLAPSED, dataclasses.replace(_MUSIC2VEC, control="redrawn"), {}),
    "musicHuBERT": Planted(HEALTHY, _MUSICHUBERT, {}),
    "musicHuBERT, four clips": Planted(MEMORISES, _MUSICHUBERT, {}, clips=4),
    "musicHuBERT, targets redrawn": Planted(GUESSES, dataclasses.replace(_MUSICHUBERT, control="redrawn"), {}),
}


def main(argv: list[str]) -> None:
    parser = ArgumentParser(prog="python -m benchmarks.learning.planted", description="Runs that go wrong on purpose.")
    parser.add_argument("--workdir", default="runs/planted", help="folder of the runs (default %(default)s)")
    folder = Path(parser.parse_args(argv).workdir).expanduser()
    music = planted_music()
    curves, runs = {}, {}
    for name, planted in PLANTED.items():
        found, curve = run_planted(planted, music, folder / name)
        curves[name] = [curve]
        runs[name] = {"ended": found.name, "why": found.why, "curve": shown(curve)}
        print(f"{name}: {found.name} ({found.why})", flush=True)
    write_figures(runs, folder / JSON)
    draw_curves(curves, folder / PICTURE)
    print(f"planted: {folder / JSON}, {folder / PICTURE}")


def planted_music() -> Music:
    """Short tracks, and some of another seed."""
    return (
        training_tracks(TRAINING_SEED, TRACKS, SECONDS, SAMPLE_RATE),
        training_tracks(VALIDATION_SEED, 4, SECONDS, SAMPLE_RATE),
    )


def run_planted(planted: Planted, music: Music, folder: Path) -> tuple[Condition, list[dict[str, float]]]:
    """How it ended, and its curve."""
    toy, arm = SIZES["toy"], planted.arm
    fields = dict(toy.fields[arm.model]) | {"steps": STEPS, "model.width": 64, "model.ffn": 128} | dict(planted.fields)
    size = dataclasses.replace(toy, fields={arm.model: fields})
    tracks, held_out = music
    if planted.clips:
        crop = round(config_of(arm, size).data.crop_seconds * SAMPLE_RATE)
        tracks = tracks[: planted.clips, crop : 2 * crop]
    mesh = make_mesh(1, 1)
    with jax.set_mesh(mesh):
        codebooks, guessing = {}, {}
        for target, clusters in zip(arm.targets, arm.clusters, strict=True):
            fitted = fit_centroids(target, clusters, config_of(arm, size), tracks, mesh)
            codebooks[target, clusters], guessing[target] = fitted
        program = make_program(arm, size, codebooks, mesh)
        *_, last = train(
            program, size, 0, on_device(tracks, program.margin), on_device(held_out, program.margin), folder
        )
    return condition(last.curve, program.config.objective, program.config.collapse, guessing), last.curve


if __name__ == "__main__":
    sys.exit(run_command(main))
