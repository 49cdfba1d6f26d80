"""Crops per CPU-second through the pipeline, beside what the format and the machine allow.

    python -m benchmarks.data [--record_seconds=2,6,30] [--crop_seconds=5,30] [--tracks=180] [--repeats=5]

Files lie in the page cache: 180 tracks of 200 s, 1.15 GB. `memmap` copies the crops out of one flat file of samples,
the limit of the machine; `reader` reads the records that a crop touches with a bare ArrayRecordReader and drops them,
the limit of the format; `pipeline` is `crop_batches` with all it does (order, proof of every record, crop out of
neighbours, batch). Rates are seconds of cropped audio per CPU-second of the whole process, medians of --repeats.

Each has a process of its own and they take turns; one stands still while another is timed. Memory is the most that it
held, with what it mapped of the files. For every record and crop length a row with machine, versions and all rates is
appended to --results.

`wait` is what a step that takes as long as a chip's would waits for its batch, as a share of the step, with training's
two reading threads. A chip's rate is an estimate: base model, 40% of its peak, 52 GFLOP for a second of audio.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.comparison import Ratio, Row, asking, ratio, rounds
from benchmarks.flags import listed, seconds, whole
from benchmarks.machine import machine
from benchmarks.rows import append, origin
from benchmarks.turns import Side
from data_pipelines.records import RecordWriter, write_metadata
from data_pipelines.tf_example import encode_record
from musicssl_jax.command import ArgumentParser, run_command
from musicssl_jax.errors import UserError

PACKAGES = ("grain", "array_record", "numpy")
RATE = 16000
TRACK_SECONDS = 200
TRAINING_THREADS = 2
WAYS = ("memmap", "reader", "pipeline")
CHIPS = {"H200": 0.4 * 989e12 / 52e9, "v5e host of 8": 0.4 * 8 * 197e12 / 52e9}
"""Audio seconds a second."""
GOALS = {5.0: 20_000, 30.0: 40_000}
"""By crop length, audio seconds per CPU-second."""


def main(argv: list[str]) -> None:
    options = parse(argv)
    print(machine(PACKAGES), flush=True)
    rows = []
    for record in options.record_seconds:
        with tempfile.TemporaryDirectory() as folder:
            write_files(Path(folder), record, options.tracks)
            for crop in options.crop_seconds:
                rows.append(compare(options, Path(folder), record, crop))
                if options.results:
                    append(rows[-1], Path(options.results))
                print(f"records of {record:g} s, crops of {crop:g} s: {share(rows[-1])}", flush=True)
    worst = min(rows, key=lambda row: share(row).value)
    print(f"\n{table(rows)}\n\n{verdict(rows)}")
    print(f"the lowest, {worst['options']['crop_seconds']:g} s of {worst['options']['record_seconds']:g} s records:")
    print(share(worst).line("pipeline/reader throughput"))


def write_files(folder: Path, record_seconds: float, tracks: int) -> None:
    """The same noise as a collection in `records` and as samples in `flat.s16`."""
    record_samples = round(record_seconds * RATE)
    pcm = np.random.default_rng(0).integers(-(2**15), 2**15, TRACK_SECONDS * RATE, dtype=np.int16)
    records = folder / "records"
    with RecordWriter(records, "train") as writer, (folder / "flat.s16").open("wb") as flat:
        for number in range(tracks):
            flat.write(pcm.tobytes())
            for start in range(0, len(pcm), record_samples):
                part = pcm[start : start + record_samples]
                track, length = f"{number:05d}", len(pcm)
                writer.write(encode_record(part, track=track, start=start, track_length=length, mean=0.0, std=0.5))
    write_metadata(records, sample_rate=RATE, record_samples=record_samples, splits={"train": [writer.part]}, build={})


def compare(options: argparse.Namespace, folder: Path, record_seconds: float, crop_seconds: float) -> dict[str, Any]:
    """The row of results for these lengths."""
    task = {
        "folder": str(folder),
        "tracks": options.tracks,
        "track_samples": TRACK_SECONDS * RATE,
        "sample_rate": RATE,
        "crop_samples": round(crop_seconds * RATE),
        "audio_seconds": options.audio_seconds,
    }
    row = origin(PACKAGES, "cpu")
    kept = {name: getattr(options, name) for name in ("tracks", "threads", "audio_seconds", "repeats")}
    row["options"] = {"record_seconds": record_seconds, "crop_seconds": crop_seconds, **kept}
    sides = {way: prepared(way, task, options.threads) for way in WAYS}
    for side in sides.values():
        side.ask("work", number=0)  # warms up
    row |= rounds({way: asking(side, {}) for way, side in sides.items()}, options.repeats)
    row["memory"] = {way: side.ask("memory") for way, side in sides.items()}
    for side in sides.values():
        side.close()
    training = prepared("pipeline", task, TRAINING_THREADS)
    row["waits"] = {chip: training.ask("waited", rate=rate) for chip, rate in CHIPS.items()}
    training.close()
    return row


def prepared(way: str, task: dict[str, Any], threads: int) -> Side:
    side = Side("benchmarks.data_sides", JAX_PLATFORMS="cpu")
    side.ask("prepare", way=way, threads=threads, **task)
    return side


def share(row: Row) -> Ratio:
    """What the pipeline leaves of the reader's rate."""
    return ratio(row["rate"]["pipeline"], row["rate"]["reader"])


def table(rows: Sequence[Row]) -> str:
    """A line for every row."""
    titles = ["record", "crop", "audio read for a crop", *WAYS, "pipeline / reader", "goal", "GiB"]
    titles += [f"wait, {chip} ({rate:,.0f})" for chip, rate in CHIPS.items()]
    lines = [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
    for row in rows:
        record, crop = row["options"]["record_seconds"], row["options"]["crop_seconds"]
        cells = [
            f"{record:g} s",
            f"{crop:g} s",
            f"{crop + record - 1 / RATE:.1f} s",  # on average, as many records as it touches
            *(f"{np.median(row['rate'][way]):,.0f}" for way in WAYS),
            str(share(row)),
            f"{GOALS[crop]:,}" if crop in GOALS else "",
            ", ".join(f"{row['memory'][way] / 2**30:.2f}" for way in WAYS),
            *(f"{wait:.1%}" for wait in row["waits"].values()),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def verdict(rows: Sequence[Row]) -> str:
    """The record length whose worst crop length is furthest above its goal."""
    margins: dict[float, float] = {}
    for row in rows:
        record, medians = row["options"]["record_seconds"], {way: np.median(row["rate"][way]) for way in WAYS}
        over = float(medians["pipeline"] / GOALS.get(row["options"]["crop_seconds"], medians["reader"]))
        margins[record] = min(over, margins.get(record, over))
    best = max(margins, key=lambda record: margins[record])
    return f"Best record length: {best:g} s, {margins[best]:.2f} times the goal at its worst crop length."


def parse(argv: list[str]) -> argparse.Namespace:
    parser = ArgumentParser(
        prog="benchmarks.data", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--record_seconds",
        type=listed(seconds(0.1, TRACK_SECONDS)),
        default=[2.0, 3.0, 4.0, 6.0, 10.0, 30.0],
        help="lengths of records (default 2,3,4,6,10,30)",
    )
    parser.add_argument(
        "--crop_seconds",
        type=listed(seconds(0.1, TRACK_SECONDS / 2)),
        default=[5.0, 30.0],
        help="lengths of crops (default 5,30)",
    )
    parser.add_argument("--tracks", type=whole(), default=180, help=f"of {TRACK_SECONDS} s")
    parser.add_argument("--threads", type=whole(0), default=1, help="that Grain reads in; 0: the caller's own")
    parser.add_argument("--audio_seconds", type=seconds(1, 10**6), default=15_000.0, help="cropped in one measurement")
    parser.add_argument("--repeats", type=whole(), default=5, help="measurements of each")
    parser.add_argument("--results", default="benchmarks/results/data.jsonl", help="empty: nowhere")
    options = parser.parse_args(argv)
    if options.audio_seconds < max(options.crop_seconds):
        raise UserError(f"--audio_seconds={options.audio_seconds:g}: less than a crop")
    return options


if __name__ == "__main__":
    sys.exit(run_command(main))
