"""The cases of `benchmarks.pretrain` that are reported, one after the other, and their table.

    python -m benchmarks.pretrain_table --device=gpu --minutes=9     one large GPU; the same command goes on
    python -m benchmarks.pretrain_table --device=cpu                 two cores, about an hour

A case that --results holds already, of such a machine, these versions and this very program, is not measured again;
--again measures all. When time is up it ends with exit code 3: before a case that would take as long as the longest so
far, or in the midst of one. A case that fails is said and passed over. Beside this repository a machine needs jax,
flax, optax, torch, transformers and safetensors, and two small packages of pure Python that can be carried along:

    pip install --no-deps --target=build/pure ml_collections tqdm
    PYTHONPATH=build/pure python -m benchmarks.pretrain_table --device=gpu --minutes=9
"""

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.comparison import ratio
from benchmarks.flags import whole
from benchmarks.machine import machine
from benchmarks.pretrain import OURS, PACKAGES, compare, described, on_device, parse, start
from benchmarks.rows import append, is_from_here, rows_of
from musicssl_jax.command import ArgumentParser, run_command
from musicssl_jax.errors import PREEMPTED, TrainingStopped, UserError

# The first are those that goals are set for.
CASES = {
    "cpu": (
        "--seconds=5 --batch=2",
        "--seconds=5 --batch=2 --attention_dropout=0",
        "--seconds=15 --batch=1",
        "--seconds=30 --batch=1",
        "--seconds=5 --batch=2 --model=musichubert",
        "--seconds=5 --batch=1 --size=large",
    ),
    "gpu": (
        "--seconds=5 --batch=64 --attention_dropout=0",
        "--seconds=30 --batch=10 --attention_dropout=0",
        "--seconds=5 --batch=64",
        "--seconds=30 --batch=10",
        "--seconds=5 --batch=64 --model=musichubert --attention_dropout=0",
        "--seconds=5 --batch=32 --size=large --attention_dropout=0",
        "--seconds=15 --batch=20 --attention_dropout=0",
        "--seconds=5 --batch=64 --model=musichubert",
        "--seconds=5 --batch=32 --size=large",
        "--seconds=15 --batch=20",
    ),
}
DEVICE_FLAGS = {"cpu": ["--precision=float32", "--compile"], "gpu": ["--precision=bfloat16", "--compile"]}


def main(argv: list[str]) -> None:
    began = time.monotonic()
    flags = _parser().parse_args(argv)
    file = Path(flags.results or f"benchmarks/results/pretrain_{flags.device}.jsonl")
    cases = [
        parse([f"--device={flags.device}", f"--repeats={flags.repeats}", *DEVICE_FLAGS[flags.device], *case.split()])
        for case in CASES[flags.device]
    ]
    with start(OURS, flags.device) as side:
        device = on_device(side, flags.device)
    print(f"{machine(PACKAGES)}, {device}", flush=True)
    known = [] if flags.again else rows_of(file)
    missing = [case for case in cases if not any(is_of(row, case, device) for row in known)]
    try:
        failed = measure(missing, file, began + 60 * flags.minutes)
    finally:
        rows = [row for case in cases for row in [row for row in rows_of(file) if is_of(row, case, device)][-1:]]
        print(table(rows))
    if failed:
        raise UserError(f"not measured: {'; '.join(failed)}")


def measure(cases: list[argparse.Namespace], file: Path, until: float) -> list[str]:
    """Appends a row a case, and returns those that failed. TrainingStopped: time is up."""
    longest, failed = 0.0, []
    for case in cases:
        began = time.monotonic()
        if began + longest > until:
            raise TrainingStopped(PREEMPTED, "time is up: the same command goes on")
        try:
            with tempfile.TemporaryDirectory() as folder:
                append(compare(case, folder, until), file)
            print(f"{described(case)}: {time.monotonic() - began:.0f} s", flush=True)
        except UserError as error:
            failed.append(described(case))
            print(f"{described(case)}: failed: {error}", flush=True)
        longest = max(longest, time.monotonic() - began)
    return failed


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="benchmarks.pretrain_table", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=CASES, required=True)
    parser.add_argument("--repeats", type=whole(), default=5, help="updates that are timed, of each side")
    parser.add_argument("--again", action="store_true", help="measure also what the results hold")
    parser.add_argument("--minutes", type=float, default=math.inf, help="after which it stops, to go on another time")
    parser.add_argument("--results", help="a row a case is appended (default benchmarks/results/pretrain_DEVICE.jsonl)")
    return parser


def is_of(row: Mapping[str, Any], case: argparse.Namespace, device: str) -> bool:
    """Whether the row measured this case on such a machine, with these versions of the packages, by this program."""
    asked = {name: value for name, value in vars(case).items() if name != "results"}
    return row["options"] == asked and is_from_here(row, PACKAGES, device)


def table(rows: list[dict[str, Any]]) -> str:
    """A line a case: medians, the ratio with its quartiles, MFU and memory of both sides."""
    lines = [
        "",
        "| | crops | attention dropout | ours, s | PyTorch, s | ratio | MFU | PyTorch's | GiB | PyTorch's "
        "| PyTorch's best | others, s |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        options, seconds = row["options"], row["seconds"]
        ours, theirs = seconds["ours"], seconds["PyTorch"]
        use = [f"{row['flops'] / np.median(times) / row['peak']:.1%}" for times in (ours, theirs)]
        best, tried = brief(row["best"]), {brief(one): one for one in row["tried"]}
        memory = [f"{row['memory'][side] / 2**30:.1f}" for side in ("ours", "PyTorch")]
        cells = [
            f"{options['model']} {options['size']}",
            f"{options['batch']} of {options['seconds']:g} s",
            f"{options['attention_dropout']:g}",
            f"{np.median(ours):.3g}",
            f"{np.median(theirs):.3g}",
            str(ratio(theirs, ours)),
            *use,
            *memory,
            best,
            ", ".join(f"{name} {one.get('seconds', 'failed')}" for name, one in tried.items() if name != best),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def brief(setting: Mapping[str, Any]) -> str:
    return f"{setting['threads']}{' compiled' if setting['compiled'] else ''}"


if __name__ == "__main__":
    sys.exit(run_command(main))
