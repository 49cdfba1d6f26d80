"""What a TPU's compiler makes of an update: bytes, FLOPs, the largest micro-batch, and cycles part by part.

    python -m benchmarks.tpu --topology=v5e:1x1                  16 crops of 5 s on one chip
    python -m benchmarks.tpu --topology=v6e:1x1 --largest        and how many would fit: up to six compiles more

No TPU is needed, only its compiler (pip install libtpu). Cycles are the compiler's own static estimates, summed over
the program with loops in all of their rounds: they say where the time of an update lies, not how long it is. Other
fields of the config can be given as --config.FIELD=VALUE. A row, with the commit and a digest of the package that was
compiled, is appended to --results.
"""

import sys
from functools import partial
from typing import Any

from benchmarks.program import compiled, leave, parse_flags, parser_of, parts_and_dearest, tables
from benchmarks.rows import origin
from musicssl_jax.command import ArgumentParser, run_command
from musicssl_jax.errors import UserError
from musicssl_jax.flops import update_flops
from musicssl_jax.planning.abstract import crop_samples
from musicssl_jax.planning.compiled import TooLarge
from musicssl_jax.planning.cycles import by_part, costs
from musicssl_jax.planning.hlo import parse
from musicssl_jax.planning.machine import SLICES, Machine, open_machine
from musicssl_jax.planning.memory import largest_micro_batch, measured_memory
from musicssl_jax.planning.traffic import memory_traffic

PACKAGES = ("jax", "jaxlib", "libtpu", "flax")


def main(argv: list[str]) -> None:
    flags, config, given = parse_flags(_parser(), argv)
    if flags.topology.partition(":")[0] not in SLICES:
        raise UserError(f"--topology={flags.topology}: want a TPU's, such as v5e:1x1, whose compiler estimates cycles")
    row, text = measured(config, open_machine(flags.topology), flags.clips, flags.largest)
    row["flags"] = given
    print(table(row))
    leave(flags, row, text)


def _parser() -> ArgumentParser:
    parser = parser_of("tpu", __doc__, clips=16, results="tpu.jsonl")
    parser.add_argument("--topology", default="v5e:1x1", help="as `musicssl plan` has them (default %(default)s)")
    parser.add_argument("--largest", action="store_true", help="look for the largest micro-batch as well")
    return parser


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
        **parts_and_dearest("cycles", by_part(found), [(cost.instruction, cost.cycles) for cost in found]),
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
        *tables(row, "cycles", "M cycles", lambda cycles: f"{cycles / 1e6:.2f}"),
    ]
    if "largest" in row:
        fits = row["largest"]
        how = "a compile of it fits" if fits["confirmed"] else "by the line through the compiles"
        lines += ["", f"largest micro-batch: {fits['clips']} clips, {fits['memory'] / 2**30:.2f} GiB ({how})"]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(run_command(main))
