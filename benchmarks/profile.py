"""Where the time of an update goes, part by part of the model, by the device's own profile of it.

    python -m benchmarks.profile [--model=music2vec|musichubert] [--size=base|large|demo] [--seconds=5] [--batch=2] ...

takes the options of `benchmarks.pretrain` and measures ours alone: the profiler notes how long each instruction of the
compiled program ran, and the program says of which part of the model it is. An instruction's time is its own, without
what it calls. Where a device runs several at once, parts add up to more than the update; what they leave of it is not
in instructions. A row is appended to --results.
"""

import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.profiler import ProfileData

from benchmarks.machine import machine
from benchmarks.pretrain import config_flags, described, parse
from benchmarks.pretrain_ours import Ours, device
from benchmarks.rows import append, origin
from musicssl_jax.command import run_command
from musicssl_jax.errors import UserError
from musicssl_jax.host_memory import keep_memory
from musicssl_jax.planning.cycles import part_of
from musicssl_jax.planning.hlo import Program
from musicssl_jax.planning.hlo import parse as parse_program

PACKAGES = ("jax", "jaxlib", "flax")
DEAREST = 12
"""Instructions that are listed."""


def main(argv: list[str]) -> None:
    options = parse([*argv, "--peer=none"], results="benchmarks/results/profile.jsonl")
    if options.device == "cpu":
        jax.config.update("jax_platforms", "cpu")
    keep_memory()  # as the training command does
    found = device()
    if found["platform"] != options.device:
        raise UserError(f"--device={options.device}, and JAX computes on {found['kind']}")
    print(f"{machine(PACKAGES)}, {found['kind']}\n{described(options)}\n", flush=True)
    row = origin(PACKAGES, found["kind"]) | {"options": vars(options)} | profiled(options)
    print(table(row))
    if options.results:
        append(row, Path(options.results))


def profiled(options: Any) -> dict[str, Any]:
    """Seconds of an update, of its parts and of its dearest instructions, the medians of --repeats updates."""
    ours = Ours()
    ours.build(config_flags(options))
    with jax.set_mesh(ours.mesh):
        step = ours.step = ours.step.lower(ours.state, (), ours.batch).compile()
    program = parse_program(step.as_text())
    ours.update(0)
    seconds, times = [], []
    for number in range(1, options.repeats + 1):
        with tempfile.TemporaryDirectory() as folder:
            with jax.profiler.trace(folder):
                seconds.append(ours.update(number)["seconds"])
            times.append(times_of(folder))
    names = {name for one in times for name in one}
    medians = {name: float(np.median([one[name] for one in times])) for name in names}
    parts = by_part(program, medians)
    dearest = sorted(medians.items(), key=lambda item: -item[1])[:DEAREST]
    return {"seconds": seconds, "parts": [[*part, time] for part, time in parts.items()], "dearest": dearest}


def times_of(folder: str) -> Counter[str]:
    """Seconds of each instruction by name, of all profiles under the folder."""
    total: Counter[str] = Counter()
    for file in Path(folder).rglob("*.xplane.pb"):
        for plane in ProfileData.from_file(str(file)).planes:
            for line in plane.lines:
                total.update(own_times(instructions_of(line.events)))
    return total


def instructions_of(events: Iterable[Any]) -> Iterator[tuple[str, float, float]]:
    """(name, start, end) in seconds of what ran an instruction."""
    for event in events:
        name = dict(event.stats).get("hlo_op")
        if name is not None:
            yield str(name), event.start_ns / 1e9, (event.start_ns + event.duration_ns) / 1e9


def own_times(ran: Iterable[tuple[str, float, float]]) -> Counter[str]:
    """Seconds of each name, without those of what ran within it. One thread's: they stand in each other or apart."""
    total: Counter[str] = Counter()
    open_now: list[tuple[str, float]] = []
    for name, start, end in sorted(ran, key=lambda one: (one[1], -one[2])):
        while open_now and open_now[-1][1] <= start:
            open_now.pop()
        if open_now:
            total[open_now[-1][0]] -= end - start
        total[name] += end - start
        open_now.append((name, end))
    return total


def by_part(program: Program, times: Mapping[str, float]) -> dict[tuple[str, bool], float]:
    """Seconds of (part, whether of the backward pass), the dearest first."""
    known = {name: one for part in program.computations.values() for name, one in part.instructions.items()}
    total: defaultdict[tuple[str, bool], float] = defaultdict(float)
    for name, seconds in times.items():
        total[part_of(known[name]) if name in known else ("other", False)] += seconds
    return dict(sorted(total.items(), key=lambda item: -item[1]))


def table(row: Mapping[str, Any]) -> str:
    """The update, its parts, and its dearest instructions."""
    whole = float(np.median(row["seconds"]))
    lines = [f"an update: {whole:.3g} s under the profiler", "", "| part | | s | share |", "|---|---|---|---|"]
    for part, backward, seconds in row["parts"]:
        way = "backwards" if backward else "forwards"
        lines.append(f"| {part} | {way} | {seconds:.3f} | {seconds / whole:.1%} |")
    lines += ["", "| instruction | s |", "|---|---|"]
    lines += [f"| {name} | {seconds:.3f} |" for name, seconds in row["dearest"]]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(run_command(main))
