"""What a TPU's compiler makes of an update: bytes, FLOPs, the largest micro-batch, and cycles part by part.

    python -m benchmarks.tpu --topology=v5e:1x1                  16 crops of 5 s on one chip
    python -m benchmarks.tpu --topology=v6e:1x1 --largest        and how many would fit: up to six compiles more

No TPU is needed, only its compiler (pip install libtpu). Cycles are the compiler's own static estimates, summed over
the program with loops in all of their rounds: they say where the time of an update lies, not how long it is. Other
fields of the config can be given as --config.FIELD=VALUE. A row, with the commit and a digest of the package that was
compiled, is appended to --results.
"""

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.rows import append, origin
from musicssl_jax.command import ArgumentParser, count_of, positive, run_command
from musicssl_jax.config import load
from musicssl_jax.errors import UserError
from musicssl_jax.flops import update_flops
from musicssl_jax.planning.abstract import crop_samples, front_ends
from musicssl_jax.planning.compiled import CompiledStep, TooLarge, compile_step, make_inputs
from musicssl_jax.planning.cycles import by_part, costs
from musicssl_jax.planning.hlo import parse
from musicssl_jax.planning.machine import SLICES, Machine, open_machine
from musicssl_jax.planning.memory import largest_micro_batch, measured_memory
from musicssl_jax.planning.planner import scaled
from musicssl_jax.planning.traffic import memory_traffic

PACKAGES = ("jax", "jaxlib", "libtpu", "flax")
DEAREST = 20
"""Instructions that are listed."""


def main(argv: list[str]) -> None:
    flags, rest = _parser().parse_known_args(argv)
    config, unknown = load(["--config.data.path=", *fields(flags), *rest])
    if unknown:
        raise UserError(f"unknown flags: {' '.join(unknown)}")
    if flags.topology.partition(":")[0] not in SLICES:
        raise UserError(f"--topology={flags.topology}: want a TPU's, such as v5e:1x1, whose compiler estimates cycles")
    for flag in ("program", "results"):
        if file := getattr(flags, flag):
            check_writable(f"--{flag}", Path(file))
    row, text = measured(config, open_machine(flags.topology), flags.clips, flags.largest)
    row["flags"] = [*fields(flags), *rest]
    print(table(row))
    if flags.results:
        append(row, Path(flags.results))
    if flags.program:
        Path(flags.program).write_text(text)


def check_writable(flag: str, file: Path) -> None:
    """Before minutes of compiling. UserError: no such file can be written."""
    if file.is_dir():
        raise UserError(f"{flag}={file}: is a folder")
    try:
        tempfile.TemporaryFile(dir=file.parent).close()
    except OSError as error:
        raise UserError(f"{flag}={file}: cannot be written ({error.strerror})") from error


def fields(flags: argparse.Namespace) -> list[str]:
    """Of the config: what a chip at its best would train with."""
    return [
        f"--config=configs/{flags.model}.py:{flags.variant}",
        f"--config.data.crop_seconds={flags.seconds}",
        f"--config.batch.per_device={flags.clips}",
        f"--config.model.attention_dropout={flags.attention_dropout}",
        "--config.model.layer_drop=0.0",
        "--config.prng=rbg",
    ]


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="benchmarks.tpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--topology", default="v5e:1x1", help="as `musicssl plan` has them (default %(default)s)")
    parser.add_argument("--model", choices=("music2vec", "musichubert"), default="music2vec")
    parser.add_argument("--variant", default="base", help="of the model's config (default %(default)s)")
    parser.add_argument("--clips", type=count_of("clips"), default=16, help="on a chip at once (default %(default)s)")
    parser.add_argument("--seconds", type=positive(3600.0), default=5.0, help="length of a crop (default %(default)s)")
    parser.add_argument("--attention_dropout", type=float, default=0.0, help="of attention's weights; paper: .1")
    parser.add_argument("--largest", action="store_true", help="look for the largest micro-batch as well")
    parser.add_argument("--program", help="file to write the compiled program's text to")
    parser.add_argument("--results", default="benchmarks/results/tpu.jsonl", help="empty: nowhere")
    return parser


def compiled(config: Any, machine: Machine, clips: int) -> tuple[Any, CompiledStep | TooLarge]:
    """(inputs, step) of a batch of so many clips on each chip, all at once."""
    config = scaled(config, clips, machine.count)
    config.batch.per_device = clips
    mesh = machine.mesh(config.mesh.data, config.mesh.fsdp)
    inputs = make_inputs(config, front_ends(config), mesh, machine.platform)
    print(f"compiling for {machine.topology}, {clips} clips a chip ...", file=sys.stderr, flush=True)
    return inputs, compile_step(inputs)


def needed(config: Any, machine: Machine, clips: int) -> int:
    """Bytes of a chip with so many clips."""
    return measured_memory(*compiled(config, machine, clips), machine.memory).total


def measured(config: Any, machine: Machine, clips: int, largest: bool) -> tuple[dict[str, Any], str]:
    """The row of results, and the program's text. UserError: so many clips do not fit."""
    inputs, step = compiled(config, machine, clips)
    memory = measured_memory(inputs, step, machine.memory)
    if isinstance(step, TooLarge):
        raise UserError(f"--clips={clips} needs {memory.total / 2**30:.1f} GiB of {machine.memory / 2**30:.2f}")
    program = parse(step.text)
    found = costs(program)
    row: dict[str, Any] = {
        **origin(PACKAGES, machine.topology),
        "topology": machine.topology,
        "config": config.name,
        "clips": clips,
        "crop_seconds": config.data.crop_seconds,
        "attention": inputs.objective.model.attention,
        "flops": update_flops(inputs.objective, crop_samples(inputs.config)) / machine.count,
        "traffic": memory_traffic(program),
        "memory": memory.total,
        "activations": memory.activations,
        "compile_seconds": round(step.seconds, 1),
        "cycles": sum(cost.cycles for cost in found),
        "parts": [[part, backward, cycles] for (part, backward), cycles in by_part(found).items()],
        "dearest": [
            {
                "part": cost.part,
                "backward": cost.backward,
                "cycles": cost.cycles,
                "instruction": cost.instruction.name,
                "shape": [f"{array.dtype}{list(array.dims)}" for array in cost.instruction.shape],
            }
            for cost in found[:DEAREST]
        ],
    }
    if largest:
        fits = largest_micro_batch((clips, memory.total), partial(needed, config, machine), machine.memory)
        row["largest"] = {"clips": fits.clips, "memory": fits.memory, "confirmed": fits.confirmed, "tried": fits.tried}
    return row, step.text


def table(row: dict[str, Any]) -> str:
    """The row as Markdown: a line of sums, then parts, then the dearest instructions."""
    lines = [
        f"{row['config']} on {row['topology']}, {row['clips']} crops of {row['crop_seconds']:g} s a chip, attention by "
        f"{row['attention']}: {row['flops']:.3g} FLOP, {row['traffic'] / 1e9:.3g} GB moved, "
        f"{row['memory'] / 2**30:.2f} GiB held, {row['cycles'] / 1e6:.1f} M cycles, compiled in "
        f"{row['compile_seconds']:.0f} s",
        "",
        "| part | | M cycles | share |",
        "|---|---|---|---|",
    ]
    for part, backward, cycles in row["parts"]:
        way = "backwards" if backward else "forwards"
        lines.append(f"| {part} | {way} | {cycles / 1e6:.2f} | {cycles / row['cycles']:.1%} |")
    lines += ["", "| instruction | part | M cycles | gives |", "|---|---|---|---|"]
    for one in row["dearest"]:
        part = f"{one['part']}, {'backwards' if one['backward'] else 'forwards'}"
        shape = ", ".join(one["shape"][:3])
        lines.append(f"| {one['instruction']} | {part} | {one['cycles'] / 1e6:.2f} | {shape} |")
    if "largest" in row:
        fits = row["largest"]
        how = "a compile of it fits" if fits["confirmed"] else "by the line through the compiles"
        lines += ["", f"largest micro-batch: {fits['clips']} clips, {fits['memory'] / 2**30:.2f} GiB ({how})"]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(run_command(main))
