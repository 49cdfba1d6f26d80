"""The whole in minutes: trains two small encoders on synthetic music, then asks what they know of other music.

    musicssl demo [--workdir=runs/demo]

Trains `configs/music2vec.py:demo` and `configs/musichubert.py:demo` on musicbox tracks of one instrument family, and
fits linear probes (pitch, instrument, key, tempo) on tracks of another seed and of the other family. Beside the trained
encoders stand the same encoders before their first update, the codes that musicHuBERT was trained to predict, MFCC,
log-mel and chroma. What the probes are (tasks, windows, penalties) was settled on tracks of TUNING_SEED; the table is
of tracks that no choice has seen.
"""

import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_pipelines.musicbox import Family, render_track
from musicssl_jax.command import ArgumentParser, run_command
from musicssl_jax.encoder_io import load_encoder
from musicssl_jax.errors import DIVERGED, DONE, UserError
from musicssl_jax.frozen_encoder import FrozenEncoder
from musicssl_jax.mir.baselines import BASELINES, Baseline, baseline_frames
from musicssl_jax.mir.codes import bag_of_codes
from musicssl_jax.mir.musicbox_probes import WINDOW_SECONDS, Frames, Representation, Track, probe_tracks
from musicssl_jax.mir.probe_table import Table, draw_table, format_table, gain_lines, to_json
from musicssl_jax.shapes import Float
from musicssl_jax.training.metrics import read_metrics

CONFIGS = {"music2vec": "configs/music2vec.py:demo", "musicHuBERT": "configs/musichubert.py:demo"}
FAMILY: Family = "plucked"  # training music is of the other one
TUNING_SEED, TABLE_SEED = 101, 202
TRACKS, TRACK_SECONDS = 192, 10.0
CODES = "bag of codes"
# What is shown of each run: of held-out clips where there is a choice, since of one training batch it is mostly noise.
CURVES = {
    "music2vec": {
        "loss": "train/loss",
        "validation loss": "valid/loss",
        "swap gap": "valid/prediction/swap_gap",
        "positional share": "valid/target/positional_share",
    },
    "musicHuBERT": {
        "loss": "train/loss",
        "validation loss": "valid/loss",
        **{
            f"{label}, {name}": f"valid/{name}/{metric}"
            for name in ("mfcc39", "cqt84")
            for label, metric in (("accuracy", "accuracy"), ("copying", "copy_accuracy"))
        },
    },
}
NEGLIGIBLE_GAP = 0.01  # of the loss: where training's own watch would call it collapse

Curves = dict[str, tuple[float, float]]
"""What is shown -> (first, last value)."""


def main(argv: list[str]) -> None:
    flags = _parser().parse_args(argv)
    workdir = Path(flags.workdir).expanduser()
    began = time.monotonic()
    collapsed = [name for name in CONFIGS if train(name, workdir)]
    trained_in = time.monotonic() - began
    table = probe(workdir, flags.probe_seed)
    curves = {name: _curves(workdir / name, CURVES[name]) for name in CONFIGS}
    results = {"probe_seed": flags.probe_seed, "collapsed": collapsed, "curves": curves, "probes": to_json(table)}
    (workdir / "probes.json").write_text(json.dumps(results, indent=2))
    draw_table(table, workdir / "probes.png", "Linear probes of frozen features, 95% intervals by track")
    print(screen(workdir, table, curves, collapsed, trained_in, time.monotonic() - began))


def train(name: str, workdir: Path) -> bool:
    """Runs the training command, as a user would. Returns whether the run stopped itself (collapse, no number)."""
    command = [sys.executable, "-m", "musicssl_jax.train", f"--config={CONFIGS[name]}", f"--workdir={workdir / name}"]
    print("$ python", *command[1:], flush=True)
    code = subprocess.run(command, check=False).returncode
    if code not in (DONE, DIVERGED):
        raise UserError(f"the training command ended with exit code {code}: see what it says above")
    return code == DIVERGED


def probe(workdir: Path, seed: int) -> Table:
    """Probes the runs' encoders and what stands beside them on the musicbox tracks of `seed`."""
    encoders = {}
    for name, config in CONFIGS.items():
        encoders[name] = load_encoder(str(workdir / name))
        encoders[untrained(name)] = load_encoder(f"random:{config}")
    sample_rate, hop = encoders["music2vec"].sample_rate, encoders["music2vec"].hop
    representations: dict[str, Representation] = {
        name: partial(encoder_frames, encoder) for name, encoder in encoders.items()
    }
    representations[CODES] = bag_of_codes(workdir / "musicHuBERT")
    for name in BASELINES:
        representations[name] = partial(as_one_layer, name, sample_rate, hop)
    return probe_tracks(tracks(seed, sample_rate), representations)


def untrained(name: str) -> str:
    """What the encoder before its first update is called."""
    return f"{name}, step 0"


def tracks(seed: int, sample_rate: int) -> Iterator[Track]:
    """Musicbox tracks of the family that training does not hear."""
    for number in tqdm(range(TRACKS), desc="probes", unit="track", disable=None):
        yield render_track([seed, number], FAMILY, seconds=TRACK_SECONDS, sample_rate=sample_rate)


def encoder_frames(encoder: FrozenEncoder, waveform: Float[np.ndarray, " samples"]) -> Frames:
    """Hidden states of all layers, in windows as long as training's crops, which do not overlap."""
    encoded = encoder(waveform, window_seconds=WINDOW_SECONDS, context_seconds=0.0)
    return encoded["hidden"], encoded["times"]


def as_one_layer(name: Baseline, sample_rate: int, hop: int, waveform: Float[np.ndarray, " samples"]) -> Frames:
    """A baseline's frames."""
    frames, times = baseline_frames(name, waveform, sample_rate=sample_rate, hop=hop)
    return frames[None], times


def screen(
    workdir: Path,
    table: Table,
    curves: dict[str, Curves],
    collapsed: list[str],
    trained_in: float,
    seconds: float,
) -> str:
    """What came out, on one screen."""
    return "\n".join(
        [
            "",
            f"demo: trained in {trained_in:.0f} s, {seconds:.0f} s in all",
            *(f"{name} STOPPED ITSELF: see its message above and its report" for name in collapsed),
            *(line for name in CONFIGS for line in _curve_lines(name, curves[name])),
            *swap_gap_lines(*(curves["music2vec"][name][1] for name in ("swap gap", "validation loss"))),
            *copying_lines({name: last for name, (_, last) in curves["musicHuBERT"].items()}),
            "",
            f"Linear probes on {TRACKS} synthetic tracks of instruments that training never heard: test score and 95%",
            "interval by track (accuracy; for tempo R²). Pitch and instrument are of single notes.",
            "",
            format_table(table),
            "",
            *(line for name in CONFIGS for line in gain_lines(table, name, untrained(name))),
            "",
            *(f"{name:12} {workdir / name / 'report.html'}, {workdir / name / 'checkpoints'}" for name in CONFIGS),
            f"{'probes':12} {workdir / 'probes.json'}, {workdir / 'probes.png'}",
        ]
    )


def _curve_lines(name: str, curves: Curves) -> list[str]:
    shown = [f"{label} {first:.3f} -> {last:.3f}" for label, (first, last) in curves.items()]
    return [f"  {name:11} {' · '.join(shown[:3])}", *([f"  {'':11} {' · '.join(shown[3:])}"] if shown[3:] else [])]


def swap_gap_lines(gap: float, loss: float) -> list[str]:
    """What a swap gap near nothing means."""
    if gap > NEGLIGIBLE_GAP * loss:
        return []
    return [
        "  music2vec's swap gap is nothing: what its loss lost is what all clips share, none is predicted by its own.",
    ]


def copying_lines(last: dict[str, float]) -> list[str]:
    """Which label sets are predicted no better than by copying; `last`: values by the labels of CURVES."""
    names = [name.removeprefix("copying, ") for name in last if name.startswith("copying, ")]
    worse = [name for name in names if last[f"accuracy, {name}"] <= last[f"copying, {name}"]]
    if not worse:
        return []
    return [f"  musicHuBERT predicts {' and '.join(worse)} no better than copying the nearest frame that it sees."]


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="musicssl demo", description="Trains on synthetic music and probes the result.")
    parser.add_argument("--workdir", default="runs/demo", help="folder of the runs (default %(default)s)")
    parser.add_argument(
        "--probe_seed",
        type=int,
        default=TABLE_SEED,
        help=f"of the tracks that are probed; {TUNING_SEED} is the one that choices were made on (default %(default)s)",
    )
    return parser


def _curves(run: Path, metrics: dict[str, str]) -> Curves:
    """First and last value of what is shown."""
    logged = read_metrics(run / "metrics.jsonl")
    # A run that stopped itself early was never validated.
    values = {label: logged[metric][1] if metric in logged else [math.nan] for label, metric in metrics.items()}
    return {label: (float(found[0]), float(found[-1])) for label, found in values.items()}


if __name__ == "__main__":
    sys.exit(run_command(main))
