"""How many bytes an update moves between a device's memory and its processors, by the compiled program."""

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from musicssl_jax.planning.cycles import part_of
from musicssl_jax.planning.hlo import ArrayShape, Computation, Instruction, Program

_MOVE_NOTHING = {
    *("parameter", "constant", "get-tuple-element", "tuple", "bitcast", "while", "conditional", "call", "iota"),
    *("after-all", "partition-id", "replica-id", "opt-barrier", "async-start"),
}
_SLICES = ("dynamic-slice", "gather", "slice")


class Move(NamedTuple):
    """What an instruction reads and writes in an update: `bytes` in all of its `times`, every round of loops."""

    instruction: Instruction
    times: float
    bytes: float


def memory_traffic(program: Program) -> float:
    """Bytes read and written in an update by one device, loops with all of their rounds.

    Every instruction that is not fused into another reads its operands and writes its result once. Of what it only
    takes a slice of, or writes a slice into, the slice counts. Buffers that the compiler keeps on the chip are free,
    and so is scratch that cuBLASLt is given, most of which it does not touch.
    """
    return sum((move.bytes for move in moves(program)), 0.0)


def moves(program: Program) -> list[Move]:
    """Of every instruction that is at work by itself, the largest first: on a GPU, of every launch."""
    found = [
        Move(instruction, times, times * _moved(program, computation, instruction))
        for computation, times, _ in program.runs()
        for instruction in computation.instructions.values()
        if instruction.opcode not in _MOVE_NOTHING and not instruction.is_done
    ]
    return sorted(found, key=lambda move: -move.bytes)


def bytes_by_part(found: Iterable[Move]) -> dict[tuple[str, bool], float]:
    """Bytes of (part, whether of the backward pass) as `cycles.part_of` names them, the largest first."""
    total: defaultdict[tuple[str, bool], float] = defaultdict(float)
    for move in found:
        total[part_of(move.instruction)] += move.bytes
    return dict(sorted(total.items(), key=lambda item: -item[1]))


def _moved(program: Program, computation: Computation, instruction: Instruction) -> int:
    if '"AllocateBuffer"' in instruction.attributes:  # a custom call of TPUs: what a loop is going to fill
        return 0
    operands = computation.operand_shapes(instruction)
    if '"__cublas$lt' in instruction.attributes:  # gives scratch too, the last of its results
        return sum(map(_far, operands)) + _far(instruction.shape[:-1])
    if instruction.opcode == "fusion":
        inside = program.computations[instruction.called("calls")[0]]
        return _fusion(program, inside, operands, instruction.shape)
    if instruction.opcode in _SLICES:
        return 2 * _far(instruction.shape)
    if instruction.opcode.endswith("-start"):  # its shape repeats the operands, before the result
        return _far(instruction.shape)
    if instruction.opcode == "dynamic-update-slice":
        return 2 * _far(operands[1])
    return sum(map(_far, operands)) + _far(instruction.shape)


def _fusion(
    program: Program, inside: Computation, operands: list[tuple[ArrayShape, ...]], result: Iterable[ArrayShape]
) -> int:
    """Of a fusion: the parts of its operands that its instructions use, and what they change of its result."""
    total = 0
    for number, parameter in _parameters(inside).items():
        if number < len(operands):
            total += min(_used(program, inside, parameter), _far(operands[number]))
    written = _far(result)
    for update in (i for i in inside.instructions.values() if i.opcode == "dynamic-update-slice"):
        whole, part = _all(update.shape), _all(inside.operand_shapes(update)[1])
        written = written - whole + part if written >= whole else written
    return total + max(written, 0)


def _used(program: Program, inside: Computation, name: str) -> int:
    """Bytes of a value in a fusion that its instructions touch, those of fusions within it too."""
    total = 0
    for user in (i for i in inside.instructions.values() if name in i.operands):
        if user.opcode in _SLICES and user.operands[0] == name:
            total += _all(user.shape)
        elif user.opcode == "dynamic-update-slice" and user.operands[0] == name:
            continue  # what is written over is not read
        elif user.opcode == "bitcast":
            total += _used(program, inside, user.name)
        elif user.opcode == "fusion":
            within = program.computations[user.called("calls")[0]]
            numbers = [number for number, operand in enumerate(user.operands) if operand == name]
            total += sum(_used(program, within, _parameters(within)[number]) for number in numbers)
        else:
            total += _all(inside.instructions[name].shape)
    return total


def _parameters(computation: Computation) -> dict[int, str]:
    """Names of its parameters by their number."""
    return {int(i.argument): i.name for i in computation.instructions.values() if i.opcode == "parameter"}


def _far(shape: Iterable[ArrayShape]) -> int:
    return sum(array.bytes for array in shape if not array.near)


def _all(shape: Iterable[ArrayShape]) -> int:
    return sum(array.bytes for array in shape)
