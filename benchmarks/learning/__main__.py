"""Does it learn? Trains arms and controls on synthetic music, probes them on other music, and says what came out.

    python -m benchmarks.learning --workdir=runs/learning                     2 cores, under an hour
    python -m benchmarks.learning --size=base --minutes=9 --workdir=...       one large GPU; twice
    python -m benchmarks.learning --probe_on=FOLDER [--train_on=FOLDER] ...   music of your own

A folder of music holds audio files and, beside them, a .jsonl file with a line for each: "file", and any of "key",
"mode", "bpm", "beats" (seconds), "pitch" (MIDI number) and "family" (of instruments). The same command goes on where
the last one was stopped. docs/learning.md says what is done and by which rules it is judged.
"""

import argparse
import json
import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax

from benchmarks.learning.experiment import SETTINGS, Experiment, claim, prepare, selected
from benchmarks.learning.findings import collect
from benchmarks.learning.jobs import do_all, jobs_left
from benchmarks.learning.music import PROBED_SEEDS
from benchmarks.learning.report import write
from benchmarks.learning.settings import SIZES, config_of
from benchmarks.learning.store import write_whole
from benchmarks.machine import machine
from musicssl_jax.command import ArgumentParser, run_command
from musicssl_jax.programs import keep_programs

say = partial(print, flush=True)


def main(argv: list[str]) -> None:
    began = time.time()
    flags = _parser().parse_args(argv)
    size = SIZES[flags.size]
    experiment = Experiment(
        folder=Path(flags.workdir).expanduser(),
        size=size,
        arms=selected(size, flags.arms),
        seeds=flags.seeds or size.seeds,
        tracks=flags.tracks,
        train_on=flags.train_on and Path(flags.train_on).expanduser(),
        probe_on=flags.probe_on and Path(flags.probe_on).expanduser(),
        deadline=began + 60 * flags.minutes if flags.minutes else None,
    )
    if (experiment.folder / SETTINGS).exists():
        claim(experiment)
    keep_programs()
    try:
        material = prepare(experiment, say)
        on_cpu = jax.devices()[0].platform == "cpu"
        cores = len(os.sched_getaffinity(0))
        processes = min(flags.processes or cores, cores) if on_cpu else 1
        do_all(experiment, material, jobs_left(experiment, material, say), processes)
    finally:
        minutes = _minutes(experiment.folder, (time.time() - began) / 60)
    about = _about(experiment, flags) | {"took": f"{sum(minutes):.1f} minutes, in {len(minutes)} commands"}
    say(*write(collect(experiment, material, about), experiment.folder), sep="\n")


def _minutes(folder: Path, latest: float) -> list[float]:
    """Of all commands with this folder that had something to do."""
    file = folder / "minutes.json"
    known = json.loads(file.read_text()) if file.exists() else []
    if folder.exists() and latest > 0.5:
        known.append(latest)
        write_whole(file, json.dumps(known).encode())
    return known


def _about(experiment: Experiment, flags: argparse.Namespace) -> dict[str, Any]:
    size = experiment.size
    trained = {arm.model: config_of(arm, size) for arm in experiment.arms}
    probed = flags.probe_on or (
        f"{size.probed} musicbox tracks of {size.probed_seconds:g} s, of instruments that training never heard, seed "
        f"{PROBED_SEEDS[flags.tracks]} ({flags.tracks})"
    )
    same = experiment.train_on == experiment.probe_on
    return {
        "size": flags.size,
        "machine": machine(["jax", "flax", "optax", "numpy", "scikit-learn"]),
        "device": jax.devices()[0].device_kind,
        "seeds": str(experiment.seeds),
        "layer step": size.layer_step,
        "trained on": flags.train_on or f"{size.tracks} musicbox tracks of {size.track_seconds:g} s",
        "probed on": probed,
        **({"note": "training heard the tracks that are probed"} if flags.train_on and same else {}),
        **{
            f"arms of {model}": f"{c.steps} updates of {c.batch.clips} clips of {c.data.crop_seconds:g} s"
            for model, c in trained.items()
        },
        "fields": {model: dict(fields) for model, fields in size.fields.items()},
    }


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="python -m benchmarks.learning", description="Trains arms and controls, and judges.")
    parser.add_argument("--workdir", default="runs/learning", help="folder of all that is made (default %(default)s)")
    parser.add_argument("--size", choices=SIZES, default="small", help="of everything (default %(default)s)")
    parser.add_argument("--arms", help="some of the arms and controls, by name, separated by semicolons")
    parser.add_argument("--seeds", type=_at_least_one, help="of each arm (default: as the size says)")
    parser.add_argument(
        "--tracks", choices=PROBED_SEEDS, default="reporting", help="tuning: those that settings were chosen by"
    )
    parser.add_argument("--train_on", help="a folder of music to train on, instead of musicbox")
    parser.add_argument("--probe_on", help="a folder of labelled music to ask about, instead of musicbox")
    parser.add_argument("--minutes", type=_positive, help="after which it stops, to go on another time")
    parser.add_argument(
        "--processes", type=_at_least_one, help="side by side, on CPUs (default: as many as there are cores)"
    )
    return parser


def _at_least_one(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError
    return number


def _positive(text: str) -> float:
    if not (number := float(text)) > 0:
        raise ValueError
    return number


if __name__ == "__main__":
    sys.exit(run_command(main))
