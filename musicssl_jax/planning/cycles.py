"""What the TPU's compiler estimates for each part of an update, by the names that parts have in the program."""

import re
from collections import defaultdict
from typing import NamedTuple

from musicssl_jax.planning.hlo import Instruction, Program

PARTS = (
    "teacher_average",
    "optimizer",
    "teacher",
    "targets",
    "conv_encoder",
    "positional",
    "attention",
    "feed_forward",
    "head",
)
"""Scopes (`jax.named_scope`) that an operation can stand in. Where one stands in another the first of these counts."""

_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_OP_NAME = re.compile(r'op_name="([^"]*)"')


class Cost(NamedTuple):
    """Of one instruction in an update: which part it is of, whether of the backward pass, and its estimated cycles,
    loops with all of their rounds."""

    part: str
    backward: bool
    cycles: float
    instruction: Instruction


def costs(program: Program) -> list[Cost]:
    """Of every instruction that the compiler has an estimate of, the dearest first. Only libtpu's programs have any."""
    found = []
    for computation, times, _ in program.runs():
        for instruction in computation.instructions.values():
            if estimate := _CYCLES.search(instruction.attributes):
                part, backward = part_of(instruction)
                found.append(Cost(part, backward, times * int(estimate[1]), instruction))
    return sorted(found, key=lambda cost: -cost.cycles)


def part_of(instruction: Instruction) -> tuple[str, bool]:
    """(part, whether of the backward pass); "other" is what stands in no part, such as copies."""
    named = _OP_NAME.search(instruction.attributes)
    scopes = re.findall(r"\w+", named[1]) if named else []
    part = next((part for part in PARTS if part in scopes), "other")
    return part, "transpose" in scopes and part not in PARTS[:3]


def by_part(found: list[Cost]) -> dict[tuple[str, bool], float]:
    """Cycles of (part, whether of the backward pass), the dearest first."""
    total: defaultdict[tuple[str, bool], float] = defaultdict(float)
    for cost in found:
        total[cost.part, cost.backward] += cost.cycles
    return dict(sorted(total.items(), key=lambda item: -item[1]))
