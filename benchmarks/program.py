"""What the commands that compile an update for a chip that need not be there have in common: flags, files, tables."""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks.rows import append
from musicssl_jax.command import ArgumentParser, count_of, positive
from musicssl_jax.config import load
from musicssl_jax.errors import UserError
from musicssl_jax.planning.abstract import front_ends
from musicssl_jax.planning.compiled import CompiledStep, Inputs, TooLarge, compile_step, make_inputs
from musicssl_jax.planning.cycles import part_of
from musicssl_jax.planning.hlo import Instruction
from musicssl_jax.planning.machine import Machine
from musicssl_jax.planning.planner import scaled

DEAREST = 20
"""Instructions that are listed."""

Parts = dict[tuple[str, bool], float]
"""What (part, whether of the backward pass) costs."""


def parser_of(name: str, description: str | None, *, clips: int, results: str) -> ArgumentParser:
    """The flags of a command benchmarks.NAME. clips, results: if no others are given."""
    parser = ArgumentParser(
        prog=f"benchmarks.{name}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=("music2vec", "musichubert"), default="music2vec")
    parser.add_argument("--variant", default="base", help="of the model's config (default %(default)s)")
    parser.add_argument("--clips", type=count_of("clips"), default=clips, help="on a chip (default %(default)s)")
    parser.add_argument("--seconds", type=positive(3600.0), default=5.0, help="length of a crop (default %(default)s)")
    parser.add_argument("--attention_dropout", type=float, default=0.0, help="of attention's weights; paper: .1")
    parser.add_argument("--program", help="file to write the compiled program's text to")
    parser.add_argument("--results", default=f"benchmarks/results/{results}", help="empty: nowhere")
    return parser


def parse_flags(parser: ArgumentParser, argv: list[str]) -> tuple[argparse.Namespace, Any, list[str]]:
    """(flags, config, the config's flags). UserError, before minutes of compiling: of a flag, or a file's place."""
    flags, rest = parser.parse_known_args(argv)
    given = [*_fields(flags), *rest]
    config, unknown = load(["--config.data.path=", *given])
    if unknown:
        raise UserError(f"unknown flags: {' '.join(unknown)}")
    for flag in ("program", "results"):
        if file := getattr(flags, flag):
            check_writable(f"--{flag}", Path(file))
    return flags, config, given


def _fields(flags: argparse.Namespace) -> list[str]:
    """Of the config: what a chip at its best would train with."""
    return [
        f"--config=configs/{flags.model}.py:{flags.variant}",
        f"--config.data.crop_seconds={flags.seconds}",
        f"--config.batch.per_device={flags.clips}",
        f"--config.model.attention_dropout={flags.attention_dropout}",
        "--config.model.layer_drop=0.0",
        "--config.prng=rbg",
    ]


def check_writable(flag: str, file: Path) -> None:
    """UserError: no such file can be written."""
    if file.is_dir():
        raise UserError(f"{flag}={file}: is a folder")
    try:
        tempfile.TemporaryFile(dir=file.parent).close()
    except OSError as error:
        raise UserError(f"{flag}={file}: cannot be written ({error.strerror})") from error


def compiled(config: Any, machine: Machine, clips: int) -> tuple[Inputs, CompiledStep | TooLarge]:
    """(inputs, step) of a batch of so many clips on each chip, all at once."""
    config = scaled(config, clips, machine.count)
    config.batch.per_device = clips
    mesh = machine.mesh(config.mesh.data, config.mesh.fsdp)
    inputs = make_inputs(config, front_ends(config), mesh, machine.platform)
    print(f"compiling for {machine.topology}, {clips} clips a chip ...", file=sys.stderr, flush=True)
    return inputs, compile_step(inputs)


def leave(flags: argparse.Namespace, row: dict[str, Any], text: str) -> None:
    """Writes the row to --results and the program's text to --program, if they are asked for."""
    if flags.results:
        append(row, Path(flags.results))
    if flags.program:
        Path(flags.program).write_text(text)


def parts_and_dearest(unit: str, parts: Parts, found: Iterable[tuple[Instruction, float]]) -> dict[str, Any]:
    """Two fields of a row. unit: what is counted. found: instructions with what they cost, the dearest first."""
    dearest = []
    for instruction, cost in list(found)[:DEAREST]:
        part, backward = part_of(instruction)
        shape = [f"{array.dtype}{list(array.dims)}" for array in instruction.shape]
        dearest.append(
            {"part": part, "backward": backward, unit: cost, "instruction": instruction.name, "shape": shape}
        )
    return {"parts": [[*part, cost] for part, cost in parts.items()], "dearest": dearest}


def tables(row: dict[str, Any], unit: str, title: str, shown: Callable[[float], str]) -> list[str]:
    """Lines of Markdown: the row's parts, then its dearest instructions. title: of what is counted in `unit`s."""
    whole = sum(cost for _, _, cost in row["parts"])
    lines = ["", f"| part | | {title} | share |", "|---|---|---|---|"]
    for part, backward, cost in row["parts"]:
        lines.append(f"| {part} | {_way(backward)} | {shown(cost)} | {cost / whole:.1%} |")
    lines += ["", f"| instruction | part | {title} | gives |", "|---|---|---|---|"]
    for one in row["dearest"]:
        part = f"{one['part']}, {_way(one['backward'])}"
        lines.append(f"| {one['instruction']} | {part} | {shown(one[unit])} | {', '.join(one['shape'][:3])} |")
    return lines


def _way(backward: bool) -> str:
    return "backwards" if backward else "forwards"
