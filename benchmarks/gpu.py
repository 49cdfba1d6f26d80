"""What a GPU's compiler makes of an update: bytes and launches, part by part.

    pip install --no-deps jax-cuda12-plugin==VERSION jax-cuda12-pjrt==VERSION        of the installed JAX
    python -m benchmarks.gpu                                   64 crops of 5 s on an H200
    python -m benchmarks.gpu --clips=10 --seconds=30

No GPU is needed, only its compiler, which is given a description of the chip (benchmarks/h200.py). Without a GPU it
tunes nothing: products and convolutions stay calls of NVIDIA's libraries, and how they work inside is not seen, nor
how long anything takes. What they need as scratch is not counted: memory is a lower bound. Other fields of the config
can be given as --config.FIELD=VALUE. A row, with the commit and a digest of the package that was compiled, is appended
to --results.
"""

import importlib.util
import os
import sys
from collections.abc import Iterable
from typing import Any
from unittest import mock

import jax

from benchmarks.h200 import CUDNN, DESCRIPTION
from benchmarks.program import compiled, leave, parse_flags, parser_of, parts_and_dearest, tables
from benchmarks.rows import origin
from musicssl_jax.command import run_command
from musicssl_jax.errors import UserError
from musicssl_jax.flops import peak_flops, update_flops
from musicssl_jax.planning.abstract import crop_samples
from musicssl_jax.planning.compiled import TooLarge
from musicssl_jax.planning.hardware import gpus
from musicssl_jax.planning.hlo import Instruction, parse
from musicssl_jax.planning.machine import Machine, quiet_stderr
from musicssl_jax.planning.traffic import Move, bytes_by_part, moves

PACKAGES = ("jax", "jaxlib", "jax-cuda12-plugin", "jax-cuda12-pjrt", "flax")

KINDS = {
    '"__cublas': "cuBLASLt products",
    '"__cudnn$conv': "cuDNN convolutions",
    '"__cudnn$fmha': "fused attention",
    '"kind":"__triton': "Triton fusions",
    "kind=kInput": "input fusions",
    "kind=kLoop": "loop fusions",
    "kind=kCustom": "copies",
}
"""What a launch is, by the first of these that stands in the instruction. XLA's custom fusions are slices that are
copied; input fusions end in sums, transpositions or concatenations."""


def main(argv: list[str]) -> None:
    flags, config, given = parse_flags(parser_of("gpu", __doc__, clips=64, results="gpu_program.jsonl"), argv)
    row, text = measured(config, described_machine(), flags.clips)
    row["flags"] = given
    print(table(row))
    leave(flags, row, text)


def described_machine() -> Machine:
    """An H200 that is not there, for which programs can be compiled. UserError: the compiler is not installed."""
    if importlib.util.find_spec("jax_cuda12_plugin") is None:
        version = jax.__version__
        wanted = f"jax-cuda12-plugin=={version} jax-cuda12-pjrt=={version}"
        raise UserError(f"the compiler for GPUs is not installed, which needs no GPU: pip install --no-deps {wanted}")
    # It need not find CUDA's libraries. Untuned, Triton's products would all be of one arbitrary tiling.
    os.environ |= {"JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_enable_triton_gemm=false"
    jax.config.update("jax_platforms", "cpu")  # a GPU that is there after all is left alone
    from jax.experimental import topologies

    with quiet_stderr():
        found = topologies.get_topology_desc("", "cuda", target_config=DESCRIPTION, topology="1x1x1")
    chip = gpus()["h200"]
    return Machine("gpu:1", chip, 1, chip.usable, 1, tuple(found.devices))


def measured(config: Any, machine: Machine, clips: int) -> tuple[dict[str, Any], str]:
    """The row of results, and the program's text."""
    from jax._src.cudnn import fused_attention_stablehlo as fused

    # JAX asks the library for its version when it traces attention.
    with mock.patch.object(fused, "check_cudnn_version", return_value=CUDNN):
        inputs, step = compiled(config, machine, clips)
    if isinstance(step, TooLarge):
        raise UserError(f"--clips={clips} needs {step.memory / 2**30:.1f} GiB of {machine.memory / 2**30:.2f}")
    found = moves(parse(step.text))
    flops = update_flops(inputs.objective, crop_samples(inputs.config))
    traffic = sum(move.bytes for move in found)
    peak = peak_flops(machine.devices[0], inputs.config.precision)
    row = {
        **origin(PACKAGES, f"{machine.chip.kind}, as described"),
        "config": config.name,
        "clips": clips,
        "crop_seconds": config.data.crop_seconds,
        "precision": inputs.config.precision,
        "attention": inputs.objective.model.attention,
        "flops": flops,
        "flops_seconds": flops / peak,
        "traffic": traffic,
        "traffic_seconds": traffic / machine.chip.bandwidth,
        "arguments": step.arguments,
        "temporaries": step.temporaries,
        "compile_seconds": round(step.seconds, 1),
        "launches": launches(found),
        **parts_and_dearest("bytes", bytes_by_part(found), [(move.instruction, move.bytes) for move in found]),
    }
    return row, step.text


def launches(found: Iterable[Move]) -> dict[str, tuple[float, float]]:
    """(launches of an update, bytes that they move) of each kind, those that move most first."""
    kinds: dict[str, tuple[float, float]] = {}
    for move in found:
        kind = _kind(move.instruction)
        times, moved = kinds.get(kind, (0.0, 0.0))
        kinds[kind] = times + move.times, moved + move.bytes
    return dict(sorted(kinds.items(), key=lambda item: -item[1][1]))


def _kind(instruction: Instruction) -> str:
    if instruction.opcode in ("fusion", "custom-call"):
        return next((kind for sign, kind in KINDS.items() if sign in instruction.attributes), instruction.opcode)
    return "copies" if instruction.opcode.startswith("copy") else instruction.opcode


def table(row: dict[str, Any]) -> str:
    """The row as Markdown: a line of sums, then launches, parts and the dearest instructions."""
    count = sum(times for times, _ in row["launches"].values())
    lines = [
        f"{row['config']} on an H200 by description, {row['clips']} crops of {row['crop_seconds']:g} s, "
        f"{row['precision']}, attention by {row['attention']}: {row['flops']:.4g} FLOP "
        f"({row['flops_seconds'] * 1e3:.1f} ms at the peak), "
        f"{row['traffic'] / 1e9:.1f} GB moved ({row['traffic_seconds'] * 1e3:.1f} ms at the peak), "
        f"{row['arguments'] / 2**30:.2f} GiB of arguments, {row['temporaries'] / 2**30:.2f} of temporaries at least, "
        f"{count:.0f} launches, compiled in {row['compile_seconds']:.0f} s",
        "",
        "| launches of | | GB |",
        "|---|---|---|",
    ]
    for kind, (times, moved) in row["launches"].items():
        lines.append(f"| {kind} | {times:.0f} | {moved / 1e9:.2f} |")
    return "\n".join(lines + tables(row, "bytes", "GB", lambda moved: f"{moved / 1e9:.2f}"))


if __name__ == "__main__":
    sys.exit(run_command(main))
