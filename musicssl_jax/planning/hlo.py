"""Reads the text of a compiled program (XLA's HLO): its instructions, and how often an update runs each.

Only what planning asks for is understood: shapes, operands, called computations and the trip counts of loops.
Format: https://openxla.org/xla/operation_semantics and the text that `jax.stages.Compiled.as_text` gives.
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from functools import cached_property

BITS = {"pred": 8, "token": 0, "opaque": 0, "c64": 64, "c128": 128}
"""Of element types whose name does not say it."""

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = ")
_OPCODE = re.compile(r"\s*([\w\-]+)\(")
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,]*)\](\{[^}]*\})?")
_NAME = re.compile(r"%([\w.\-]+)")
_TRIP_COUNT = re.compile(r'known_trip_count[^\d]*"?n"?[^\d]*(\d+)')
_PARENTHESIS = re.compile(r"[()]")
_NEAR_MEMORY = re.compile(r"S\([1-9]\d*\)")


@dataclasses.dataclass(frozen=True)
class ArrayShape:
    """One array of a shape; `near`: it lies in memory on the chip (a TPU's VMEM), not in the device's main memory."""

    dtype: str
    dims: tuple[int, ...]
    near: bool = False

    @property
    def bytes(self) -> int:
        """Without the padding of the device's layout."""
        digits = re.search(r"\d+", self.dtype)
        bits = BITS[self.dtype] if self.dtype in BITS else int(digits[0]) if digits else 0
        return math.prod(self.dims) * bits // 8


@dataclasses.dataclass(frozen=True)
class Instruction:
    """A line of a computation. `attributes`: everything behind the operands."""

    name: str
    opcode: str
    shape: tuple[ArrayShape, ...]
    operands: tuple[str, ...]
    attributes: str
    root: bool
    argument: str
    """The text between its parentheses: a constant's value, a parameter's number."""

    def called(self, *labels: str) -> list[str]:
        """Names of the computations that the attributes of these labels name: `body=%a`, `calls={%a, %b}`."""
        found = []
        for label in labels:
            for group in re.findall(rf"\b{label}=(\{{[^}}]*\}}|%[\w.\-]+)", self.attributes):
                found += _NAME.findall(group)
        return found

    def number(self, label: str) -> int | None:
        """The whole number that an attribute gives: `index=3`."""
        found = re.search(rf"\b{label}=(\d+)", self.attributes)
        return int(found[1]) if found else None

    @property
    def is_done(self) -> bool:
        """Whether it only waits for what another instruction started."""
        return self.opcode.endswith(("-done", "-update"))


@dataclasses.dataclass(frozen=True)
class Computation:
    name: str
    instructions: Mapping[str, Instruction]

    @cached_property
    def root(self) -> Instruction:
        return next(i for i in self.instructions.values() if i.root)

    def operand_shapes(self, instruction: Instruction) -> list[tuple[ArrayShape, ...]]:
        """Shapes of an instruction's operands, which the text of some backends leaves out."""
        return [self.instructions[name].shape for name in instruction.operands if name in self.instructions]


@dataclasses.dataclass(frozen=True)
class Program:
    computations: Mapping[str, Computation]
    entry: str

    def runs(self) -> Iterator[tuple[Computation, float, int]]:
        """(computation, times that an update runs it, loops around it) of all but the insides of fusions.

        Of a conditional every branch counts as taken: an upper bound. A loop whose number of rounds is not known
        beforehand counts once (`unknown_loops` has their number).
        """
        yield from self._runs(self.entry, 1.0, 0)

    def _runs(self, name: str, times: float, depth: int) -> Iterator[tuple[Computation, float, int]]:
        computation = self.computations[name]
        yield computation, times, depth
        for instruction in computation.instructions.values():
            for callee in instruction.called("body"):
                yield from self._runs(callee, times * (self.trip_count(computation, instruction) or 1), depth + 1)
            for callee in _called_once(instruction):
                yield from self._runs(callee, times, depth)

    @property
    def unknown_loops(self) -> int:
        """Loops whose number of rounds hangs on data."""
        loops = [(c, i) for c, _, _ in self.runs() for i in c.instructions.values() if i.opcode == "while"]
        return sum(self.trip_count(computation, loop) is None for computation, loop in loops)

    def trip_count(self, computation: Computation, loop: Instruction) -> int | None:
        """Rounds of a while loop: what the compiler noted, or else what its condition `i < constant` says.

        The counter starts at the constant in the loop's operand, or at 0 where that is not in sight, and goes up by
        one, which is all that `jax.lax.scan` makes.
        """
        if noted := _TRIP_COUNT.search(loop.attributes):
            return int(noted[1])
        condition = self.computations[loop.called("condition")[0]]
        compared = condition.root
        if compared.opcode != "compare" or "direction=LT" not in compared.attributes:
            return None
        counter, limit = (condition.instructions[name] for name in compared.operands)
        if counter.opcode != "get-tuple-element" or limit.opcode != "constant":
            return None
        return int(limit.argument) - self._start(computation, loop, counter.number("index") or 0)

    def _start(self, computation: Computation, loop: Instruction, index: int) -> int:
        state = computation.instructions.get(loop.operands[0])
        if state is None or state.opcode != "tuple":
            return 0
        first = computation.instructions.get(state.operands[index])
        while first is not None and first.opcode in ("copy", "bitcast"):
            first = computation.instructions.get(first.operands[0])
        return int(first.argument) if first is not None and first.opcode == "constant" else 0


def _called_once(instruction: Instruction) -> list[str]:
    if instruction.opcode == "conditional":
        return instruction.called("branch_computations", "true_computation", "false_computation")
    if instruction.opcode == "call":
        return instruction.called("to_apply")
    return instruction.called("calls") if instruction.opcode == "async-start" else []


def parse(text: str) -> Program:
    """The program that a compiled function's text describes."""
    computations: dict[str, Computation] = {}
    lines: dict[str, Instruction] = {}
    entry = ""
    for line in text.splitlines():
        if header := _COMPUTATION.match(line):
            lines = {}
            computations[header[2]] = Computation(header[2], lines)
            entry = header[2] if header[1] else entry
        elif instruction := _parse_instruction(line):
            lines[instruction.name] = instruction
    return Program(computations, entry)


def _parse_instruction(line: str) -> Instruction | None:
    head = _INSTRUCTION.match(line)
    if not head:
        return None
    rest = line[head.end() :]
    shape_end = _closing(rest, 0) + 1 if rest.startswith("(") else _space(rest)
    opcode = _OPCODE.match(rest, shape_end)
    if not opcode:
        return None
    end = _closing(rest, opcode.end() - 1)
    argument = rest[opcode.end() : end]
    return Instruction(
        name=head[2],
        opcode=opcode[1],
        shape=parse_shape(rest[:shape_end]),
        operands=tuple(_NAME.findall(argument)),
        attributes=rest[end + 1 :],
        root=bool(head[1]),
        argument=argument,
    )


def parse_shape(text: str) -> tuple[ArrayShape, ...]:
    """The arrays of a shape, those of nested tuples one after the other."""
    return tuple(
        ArrayShape(dtype, tuple(int(n) for n in dims.split(",") if n), bool(_NEAR_MEMORY.search(layout)))
        for dtype, dims, layout in _ARRAY.findall(text)
    )


def _closing(text: str, start: int) -> int:
    """Where the parenthesis that opens at `start` closes."""
    depth = 0
    for found in _PARENTHESIS.finditer(text, start):
        depth += 1 if found[0] == "(" else -1
        if not depth:
            return found.start()
    return len(text)


def _space(text: str) -> int:
    found = text.find(" ")
    return found if found >= 0 else len(text)
