"""Does it learn? Trains arms and controls on synthetic music, probes them on other music, and says what came out.

    python -m benchmarks.learning --workdir=runs/learning                     2 cores, under an hour
    python -m benchmarks.learning --size=base --minutes=9 --workdir=...       one large GPU; twice
    python -m benchmarks.learning --probe_on=FOLDER [--train_on=FOLDER] ...   music of your own

A folder of music holds audio files and, beside them, a .jsonl file with a line for each, such as

    {"file": "a.wav", "key": "F#", "mode": "minor", "bpm": 96, "beats": [0.31, 0.94]}
    {"file": "notes/b.flac", "pitch": 60, "family": "organ", "group": "organ 7"}

"file" is needed, of all others what is known: key, mode, bpm, beats (seconds), chords, pitch (MIDI number), family (of
instruments), and group (of files that belong together, such as cuts of one song). docs/learning.md, "Music of your
own", says more of each; it also says what is done with the music, and by which rules it is judged.

The same command goes on where the last one was stopped.
"""

import json
import os
import sys
import time
from argparse import ArgumentTypeError, Namespace, RawDescriptionHelpFormatter
from functools import partial
from pathlib import Path
from typing import Any

import jax

from benchmarks.learning.experiment import Experiment, selected
from benchmarks.learning.findings import collect
from benchmarks.learning.jobs import do_all, jobs_left
from benchmarks.learning.material import Material, prepare
from benchmarks.learning.music import PROBED_SEEDS
from benchmarks.learning.questions import QUESTIONS
from benchmarks.learning.report import write
from benchmarks.learning.settings import SIZES, config_of
from benchmarks.learning.store import write_whole
from benchmarks.machine import machine
from musicssl_jax.command import ArgumentParser, run_command
from musicssl_jax.errors import UserError
from musicssl_jax.programs import keep_programs

say = partial(print, flush=True)


def main(argv: list[str]) -> None:
    began = time.time()
    flags = _parser().parse_args(argv)
    if flags.max_tracks and not (flags.train_on or flags.probe_on):
        raise UserError("--max_tracks is of the folders --train_on and --probe_on: give one")
    size = SIZES[flags.size]
    experiment = Experiment(
        folder=_usable(flags.workdir),
        size=size,
        arms=selected(size, flags.arms),
        seeds=flags.seeds or size.seeds,
        tracks=flags.tracks,
        train_on=flags.train_on,
        probe_on=flags.probe_on,
        max_tracks=flags.max_tracks,
        deadline=began + 60 * flags.minutes if flags.minutes else None,
    )
    keep_programs()
    try:
        material = prepare(experiment, say)
        on_cpu = jax.devices()[0].platform == "cpu"
        cores = len(os.sched_getaffinity(0))
        processes = min(flags.processes or cores, cores) if on_cpu else 1
        do_all(experiment, material, jobs_left(experiment, material, say), processes)
    finally:
        minutes = _minutes(experiment.folder, (time.time() - began) / 60)
    commands = "one command" if len(minutes) == 1 else f"{len(minutes)} commands"
    about = _about(experiment, material, flags) | {"took": f"{sum(minutes):.1f} minutes, in {commands}"}
    say(*write(collect(experiment, material, about), experiment.folder), sep="\n")


def _usable(workdir: Path) -> Path:
    """UserError: no folder can be made there."""
    there = next(path for path in (workdir, *workdir.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise UserError(f"--workdir={workdir}: {there} is no folder that can be written to")
    return workdir


def _minutes(folder: Path, latest: float) -> list[float]:
    """Of all commands with this folder that had something to do."""
    file = folder / "minutes.json"
    known = json.loads(file.read_text()) if file.exists() else []
    if folder.exists() and latest > 0.5:
        known.append(latest)
        write_whole(file, json.dumps(known).encode())
    return known


def _about(experiment: Experiment, material: Material, flags: Namespace) -> dict[str, Any]:
    size = experiment.size
    trained = {arm.model: config_of(arm, size) for arm in experiment.arms}
    trained_on = experiment.train_on or f"{size.tracks} musicbox tracks of {size.track_seconds:g} s"
    probed_on = experiment.probe_on or (
        f"{size.probed} musicbox tracks of {size.probed_seconds:g} s, of instruments that training never heard, seed "
        f"{PROBED_SEEDS[flags.tracks]} ({flags.tracks})"
    )
    tracks = len(material.waveforms)
    heard = f"training heard the tracks that are probed: {material.heard} of {tracks}, though no label"
    unasked = ", ".join(question.name for question in QUESTIONS if question.name not in material.asked)
    return {
        "size": flags.size,
        "machine": machine(["jax", "flax", "optax", "numpy", "scikit-learn"]),
        "device": jax.devices()[0].device_kind,
        "seeds": str(experiment.seeds),
        "layer step": size.layer_step,
        "trained on": str(trained_on),
        "probed on": str(probed_on),
        **({"note": heard} if material.heard else {}),
        **({"not asked": f"{unasked} (too few tracks answer, or all alike)"} if unasked else {}),
        **{
            f"arms of {model}": f"{c.model.layers} blocks of width {c.model.width}, {c.steps} updates of "
            f"{c.batch.clips} clips of {c.data.crop_seconds:g} s"
            for model, c in trained.items()
        },
        "fields": {model: dict(fields) for model, fields in size.fields.items()},
    }


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="python -m benchmarks.learning", description=__doc__, formatter_class=RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--workdir", type=_path, default="runs/learning", help="folder of all that is made (default %(default)s)"
    )
    parser.add_argument("--size", choices=SIZES, default="small", help="of everything (default %(default)s)")
    parser.add_argument("--arms", help="some of the arms and controls, by name, separated by semicolons")
    parser.add_argument("--seeds", type=_at_least_one, help="of each arm (default: as the size says)")
    parser.add_argument(
        "--tracks", choices=PROBED_SEEDS, default="reporting", help="tuning: those that settings were chosen by"
    )
    parser.add_argument("--train_on", type=_path, help="a folder of music to train on, instead of musicbox")
    parser.add_argument("--probe_on", type=_path, help="a folder of labelled music to ask about, instead of musicbox")
    parser.add_argument(
        "--max_tracks", type=_at_least_one, help="of each of these folders, drawn by lot in whole groups (default: all)"
    )
    parser.add_argument("--minutes", type=_above_zero, help="after which it stops, to go on another time")
    parser.add_argument(
        "--processes", type=_at_least_one, help="side by side, on CPUs (default: as many as there are cores)"
    )
    return parser


def _path(text: str) -> Path:
    return Path(text).expanduser()


def _at_least_one(text: str) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise ArgumentTypeError(f"{text}: want a whole number from 1")
    return int(text)


def _above_zero(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not number > 0:
        raise ArgumentTypeError(f"{text}: want a number above 0")
    return number


if __name__ == "__main__":
    sys.exit(run_command(main))
