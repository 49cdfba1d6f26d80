"""The whole in minutes: trains a small encoder on synthetic music, then asks what its features know of other music.

    musicssl demo [--workdir=runs/demo]

Trains with `configs/music2vec.py:demo` on musicbox tracks of one instrument family, and fits linear probes (pitch,
instrument, key, tempo) on tracks of another seed and of the other family. Beside the trained encoder stand the same
encoder before its first update, MFCC, log-mel and chroma. What the probes are (tasks, windows, penalties) was settled
on tracks of TUNING_SEED; the table is of tracks that no choice has seen.
"""

import json
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
from musicssl_jax.encoder_io import FrozenEncoder, load_encoder
from musicssl_jax.errors import DIVERGED, DONE, UserError
from musicssl_jax.mir.baselines import BASELINES, Baseline, baseline_frames
from musicssl_jax.mir.musicbox_probes import WINDOW_SECONDS, Frames, Representation, Track, probe_tracks
from musicssl_jax.mir.probe_table import Table, draw_table, format_table, gain_lines, to_json
from musicssl_jax.shapes import Float
from musicssl_jax.training.metrics import read_metrics

CONFIG = "configs/music2vec.py:demo"
FAMILY: Family = "plucked"  # training music is of the other one
TUNING_SEED, TABLE_SEED = 101, 202
TRACKS, TRACK_SECONDS = 192, 10.0
TRAINED, UNTRAINED = "trained", "step 0"
# The last two of held-out clips: of one training batch they are mostly noise.
CURVES = {
    "loss": "train/loss",
    "validation loss": "valid/loss",
    "swap gap": "valid/prediction/swap_gap",
    "positional share": "valid/target/positional_share",
}
NEGLIGIBLE_GAP = 0.01  # of the loss: where training's own watch would call it collapse


def main(argv: list[str]) -> None:
    flags = _parser().parse_args(argv)
    workdir = Path(flags.workdir).expanduser()
    began = time.monotonic()
    collapsed = train(workdir)
    trained_in = time.monotonic() - began
    table = probe(workdir, flags.probe_seed)
    curves = {name: _first_and_last(workdir, metric) for name, metric in CURVES.items()}
    results = {"probe_seed": flags.probe_seed, "collapsed": collapsed, "curves": curves, "probes": to_json(table)}
    (workdir / "probes.json").write_text(json.dumps(results, indent=2))
    draw_table(table, workdir / "probes.png", "Linear probes of frozen features, 95% intervals by track")
    print(screen(workdir, table, curves, collapsed, trained_in, time.monotonic() - began))


def train(workdir: Path) -> bool:
    """Runs the training command, as a user would. Returns whether the run stopped itself (collapse, no number)."""
    command = [sys.executable, "-m", "musicssl_jax.train", f"--config={CONFIG}", f"--workdir={workdir}"]
    print("$ python", *command[1:], flush=True)
    code = subprocess.run(command, check=False).returncode
    if code not in (DONE, DIVERGED):
        raise UserError(f"the training command ended with exit code {code}: see what it says above")
    return code == DIVERGED


def probe(workdir: Path, seed: int) -> Table:
    """Probes the run's encoder and what stands beside it on the musicbox tracks of `seed`."""
    encoders = {TRAINED: load_encoder(str(workdir)), UNTRAINED: load_encoder(f"random:{CONFIG}")}
    sample_rate, hop = encoders[TRAINED].sample_rate, encoders[TRAINED].hop
    representations: dict[str, Representation] = {
        name: partial(encoder_frames, encoder) for name, encoder in encoders.items()
    }
    for name in BASELINES:
        representations[name] = partial(as_one_layer, name, sample_rate, hop)
    return probe_tracks(tracks(seed, sample_rate), representations)


def tracks(seed: int, sample_rate: int) -> Iterator[Track]:
    """Musicbox tracks of the family that training does not hear."""
    for number in tqdm(range(TRACKS), desc="probes", unit="track", disable=None):
        yield render_track([seed, number], FAMILY, seconds=TRACK_SECONDS, sample_rate=sample_rate)


def encoder_frames(encoder: FrozenEncoder, waveform: Float[np.ndarray, " samples"]) -> Frames:
    """Hidden states of all layers, in windows as long as training's crops."""
    encoded = encoder(waveform, window_seconds=WINDOW_SECONDS)
    return encoded["hidden"], encoded["times"]


def as_one_layer(name: Baseline, sample_rate: int, hop: int, waveform: Float[np.ndarray, " samples"]) -> Frames:
    """A baseline's frames."""
    frames, times = baseline_frames(name, waveform, sample_rate=sample_rate, hop=hop)
    return frames[None], times


def screen(
    workdir: Path,
    table: Table,
    curves: dict[str, tuple[float, float]],
    collapsed: bool,
    trained_in: float,
    seconds: float,
) -> str:
    """What came out, on one screen."""
    return "\n".join(
        [
            "",
            f"music2vec demo: trained in {trained_in:.0f} s, {seconds:.0f} s in all",
            *(["THE RUN STOPPED ITSELF: see its message above and the report"] if collapsed else []),
            *(f"  {name:17} {first:.3f} -> {last:.3f}" for name, (first, last) in curves.items()),
            *swap_gap_lines(*(curves[name][1] for name in ("swap gap", "validation loss"))),
            "",
            f"Linear probes on {TRACKS} synthetic tracks of instruments that training never heard: test score and 95%",
            "interval by track (accuracy; for tempo R²). Pitch and instrument are of single notes.",
            "",
            format_table(table),
            "",
            *gain_lines(table, TRAINED, UNTRAINED),
            "",
            f"report      {workdir / 'report.html'}",
            f"checkpoint  {workdir / 'checkpoints'}",
            f"probes      {workdir / 'probes.json'}, {workdir / 'probes.png'}",
        ]
    )


def swap_gap_lines(gap: float, loss: float) -> list[str]:
    """What a swap gap near nothing means."""
    if gap > NEGLIGIBLE_GAP * loss:
        return []
    return [
        "  The swap gap is nothing: what the loss lost is what all clips share, no clip is predicted by its own sound."
    ]


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="musicssl demo", description="Trains on synthetic music and probes the result.")
    parser.add_argument("--workdir", default="runs/demo", help="folder of the run (default %(default)s)")
    parser.add_argument(
        "--probe_seed",
        type=int,
        default=TABLE_SEED,
        help=f"of the tracks that are probed; {TUNING_SEED} is the one that choices were made on (default %(default)s)",
    )
    return parser


def _first_and_last(workdir: Path, metric: str) -> tuple[float, float]:
    _, values = read_metrics(workdir / "metrics.jsonl")[metric]
    return float(values[0]), float(values[-1])


if __name__ == "__main__":
    sys.exit(run_command(main))
