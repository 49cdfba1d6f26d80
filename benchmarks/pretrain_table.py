"""The cases of `benchmarks.pretrain` that are reported, one after the other, and their table.

    python -m benchmarks.pretrain_table --device=gpu --minutes=9     one large GPU; the same command goes on
    python -m benchmarks.pretrain_table --device=cpu                 two cores, about an hour

A case that --results holds already, of this device and these versions, is not measured again. Before each case it looks
whether the longest so far would still end in time; if not, it ends with exit code 3. A case that fails is said and
passed over. Beside this repository a machine needs jax, flax, optax, torch, transformers and safetensors, and two small
packages of pure Python that can be carried along:

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

from benchmarks.machine import machine
from benchmarks.pretrain import PACKAGES, compare, described, parse
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
    ),
}
DEVICE_FLAGS = {"cpu": ["--precision=float32"], "gpu": ["--precision=bfloat16", "--compile"]}


def main(argv: list[str]) -> None:
    began = time.monotonic()
    flags = _parser().parse_args(argv)
    file = Path(flags.results or f"benchmarks/results/pretrain_{flags.device}.jsonl")
    cases = [
        parse([f"--device={flags.device}", f"--repeats={flags.repeats}", *DEVICE_FLAGS[flags.device], *case.split()])
        for case in CASES[flags.device]
    ]
    print(machine(PACKAGES), flush=True)
    longest, failed, out_of_time = 0.0, [], False
    for case in [case for case in cases if not any(is_of(row, case) for row in rows_of(file))]:
        out_of_time = longest > 0 and time.monotonic() - began + longest > 60 * flags.minutes
        if out_of_time:
            break
        began_case = time.monotonic()
        try:
            with tempfile.TemporaryDirectory() as folder:
                append(compare(case, folder), file)
            print(f"{described(case)}: {time.monotonic() - began_case:.0f} s", flush=True)
        except UserError as error:
            failed.append(described(case))
            print(f"{described(case)}: failed: {error}", flush=True)
        longest = max(longest, time.monotonic() - began_case)
    print(table([row for row in rows_of(file) if any(is_of(row, case) for case in cases)]))
    if out_of_time:
        raise TrainingStopped(PREEMPTED, "time is up: the same command goes on")
    if failed:
        raise UserError(f"not measured: {'; '.join(failed)}")


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="benchmarks.pretrain_table", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=CASES, required=True)
    parser.add_argument("--repeats", type=int, default=5, help="updates that are timed, of each side")
    parser.add_argument("--minutes", type=float, default=math.inf, help="after which it stops, to go on another time")
    parser.add_argument("--results", help="a row a case is appended (default benchmarks/results/pretrain_DEVICE.jsonl)")
    return parser


def is_of(row: Mapping[str, Any], case: argparse.Namespace) -> bool:
    """Whether the row measured this case with this processor and these versions of the packages."""
    asked = {name: value for name, value in vars(case).items() if name != "results"}
    return row["options"] == asked and is_from_here(row, PACKAGES)


def table(rows: list[dict[str, Any]]) -> str:
    """A line a case: medians, the ratio with its quartiles, MFU and memory of both sides."""
    lines = [
        "",
        "| | crops | attention dropout | ours, s | PyTorch, s | ratio | MFU | PyTorch's | GiB | PyTorch's |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        options, seconds = row["options"], row["seconds"]
        ours, theirs = (np.array(seconds[side]) for side in ("ours", "PyTorch"))
        low, ratio, high = np.quantile(theirs / ours, (0.25, 0.5, 0.75))
        use = [f"{row['flops'] / np.median(times) / row['peak']:.1%}" for times in (ours, theirs)]
        memory = [f"{row['memory'][side] / 2**30:.1f}" for side in ("ours", "PyTorch")]
        cells = [
            f"{options['model']} {options['size']}",
            f"{options['batch']} of {options['seconds']:g} s",
            f"{options['attention_dropout']:g}",
            f"{np.median(ours):.3g}",
            f"{np.median(theirs):.3g}",
            f"{ratio:.2f} [{low:.2f} {high:.2f}]",
            *use,
            *memory,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(run_command(main))
