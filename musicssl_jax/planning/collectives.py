"""What crosses the network in an update, counted in the compiled program."""

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from musicssl_jax.planning.hlo import ArrayShape, Computation, Instruction, Program

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective instruction. `bytes`: of one run, for one device.

    Counted is the larger side: what all-reduce, reduce-scatter, all-to-all and collective-permute are given, and what
    an all-gather gives. `scalars`: arrays without dimensions in it, which are not in `bytes`. `axes`: of the mesh, that
    it crosses. `times`: runs in an update. `loops`: around it.
    """

    kind: str
    axes: tuple[str, ...]
    bytes: int
    scalars: int
    times: float
    loops: int
    group: int
    """Devices that take part with each other."""

    @property
    def bytes_per_update(self) -> float:
        return self.bytes * self.times

    @property
    def sent_per_update(self) -> float:
        """Bytes that a device sends when the group is a ring (a torus's rings are what TPUs use).

        Source: Thakur et al., "Optimization of Collective Communication Operations in MPICH", 2005, section 3.
        """
        share = {"all-reduce": 2 * (self.group - 1) / self.group, "collective-permute": 1.0}
        return self.bytes_per_update * share.get(self.kind, (self.group - 1) / self.group)


def find_collectives(program: Program, axis_sizes: Mapping[str, int]) -> list[Collective]:
    """All collectives of the program on a mesh with these axes, in its order of devices.

    A collective that the compiler spread over several fusions, to hide it behind other work, counts once: its parts
    keep its channel.
    """
    found = []
    for computation, times, loops in program.runs():
        seen = set()
        for within, instruction in _instructions(program, computation):
            kind = _kind(program, within, instruction)
            if kind is None:
                continue
            part = instruction.name if within is computation else instruction.number("channel_id")
            if part in seen:
                continue
            seen.add(part)
            arrays = _moved(kind, within, instruction)
            groups = device_groups(instruction.attributes, int(np.prod(list(axis_sizes.values()))))
            axes = crossed_axes(groups, axis_sizes)
            large = [array for array in arrays if array.dims]
            size = sum(array.bytes for array in large)
            scalars = len(arrays) - len(large)
            # A group of one moves nothing.
            if (group := max(map(len, groups))) > 1:
                found.append(Collective(kind, axes, size, scalars, times, loops, group))
    return found


def _instructions(program: Program, computation: Computation) -> Iterator[tuple[Computation, Instruction]]:
    """Those of a computation and, since TPUs fuse collectives with other work, of its fusions."""
    for instruction in computation.instructions.values():
        yield computation, instruction
        if instruction.opcode == "fusion":
            for callee in instruction.called("calls"):
                yield from _instructions(program, program.computations[callee])


def _kind(program: Program, within: Computation, instruction: Instruction) -> str | None:
    kind = instruction.opcode.removesuffix("-start")
    if kind not in KINDS:
        return None
    # What is left of a reduce-scatter on a TPU: an all-reduce beside the slice that its device keeps.
    return "reduce-scatter" if kind == "all-reduce" and "all-reduce-scatter" in within.name else kind


def _moved(kind: str, within: Computation, instruction: Instruction) -> list[ArrayShape]:
    given = [array for shape in within.operand_shapes(instruction) for array in shape]
    if kind != "all-gather":
        return given
    # A started all-gather's shape is (operands, results).
    return list(instruction.shape[len(given) :] if instruction.opcode.endswith("-start") else instruction.shape)


def device_groups(attributes: str, devices: int) -> list[list[int]]:
    """Which devices, by their number in the mesh, take part in a collective with each other.

    Understood are `{{0,1},{2,3}}`, `[2,2]<=[4]`, `[2,2]<=[2,2]T(1,0)`, `mesh['a'=2,'b'=2] {'b'}`, the same with
    `device_ids=([2,2]T(1,0))`, and a permutation's pairs; nothing, and `{}`, mean all devices.
    Raises ValueError: other groups.
    """
    if pairs := re.search(r"source_target_pairs=\{(\{[\d,{} ]*\})\}", attributes):
        return [sorted(group) for group in _joined(_lists(pairs[1]))]
    if listed := re.search(r"replica_groups=\{(\{[\d,{} ]*\})\}", attributes):
        return _lists(listed[1])
    if iota := re.search(rf"replica_groups=\[([\d,]+)\]<={_NUMBERED}", attributes):
        groups, dims, order = (_numbers(part) for part in iota.groups(default=""))
        return _grid(dims, order).reshape(groups).tolist()
    if named := re.search(
        rf"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\({_NUMBERED}\))? \{{((?:'\w+',?)*)\}}", attributes
    ):
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", named[1])}
        devices_of_mesh = _grid(_numbers(named[2] or str(devices)), _numbers(named[3] or ""))
        return _along(devices_of_mesh, sizes, re.findall(r"'(\w+)'", named[4]))
    if unknown := re.search(r"replica_groups=(?!\{\}).{1,80}", attributes):
        raise ValueError(f"groups of devices in a spelling that is not known: {unknown[0]}")
    return [list(range(devices))]


_NUMBERED = r"\[([\d,]+)\](?:T\(([\d,]+)\))?"
"""A grid of consecutive numbers, perhaps with its axes in another order: `[2,4]T(1,0)`."""


def _grid(dims: list[int], order: list[int]) -> np.ndarray:
    numbers = np.arange(math.prod(dims)).reshape(dims)
    return numbers.transpose(order) if order else numbers


def _along(devices: np.ndarray, sizes: Mapping[str, int], grouped: Sequence[str]) -> list[list[int]]:
    """Groups of those that differ along the grouped axes of a mesh with axes of these sizes."""
    names = list(sizes)
    order = [names.index(name) for name in names if name not in grouped] + [names.index(name) for name in grouped]
    members = math.prod(sizes[name] for name in grouped)
    return devices.reshape(list(sizes.values())).transpose(order).reshape(-1, members).tolist()


def crossed_axes(groups: Iterable[Sequence[int]], axis_sizes: Mapping[str, int]) -> tuple[str, ...]:
    """Names of the mesh's axes along which the members of a group differ."""
    sizes = tuple(axis_sizes.values())
    crossed: set[str] = set()
    for group in groups:
        places = np.array(np.unravel_index(np.asarray(group), sizes))
        crossed |= {name for name, along in zip(axis_sizes, places, strict=True) if len(set(along.tolist())) > 1}
    return tuple(name for name in axis_sizes if name in crossed)


def _joined(pairs: Iterable[Sequence[int]]) -> list[set[int]]:
    """The pairs' connected parts."""
    parts: list[set[int]] = []
    for pair in pairs:
        touched = [part for part in parts if part & set(pair)]
        parts = [part for part in parts if part not in touched] + [set(pair).union(*touched)]
    return parts


def _lists(text: str) -> list[list[int]]:
    return [_numbers(group) for group in re.findall(r"\{([\d, ]*)\}", text)]


def _numbers(text: str) -> list[int]:
    return [int(n) for n in text.split(",") if n.strip()]
