"""What lies in a device's memory during an update, and the largest micro-batch for which there is room."""

import dataclasses
import math
from collections.abc import Callable

from musicssl_jax.planning.abstract import device_bytes
from musicssl_jax.planning.compiled import CompiledStep, Inputs, TooLarge


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of one device. `other`: target sets, padding to the device's tiles, outputs and the program itself.

    activations: all that lives within an update alone, gradients too. capacity: what a program gets.
    """

    parameters: int
    moments: int
    teacher: int
    batch: int
    activations: int
    other: int
    capacity: int

    @property
    def total(self) -> int:
        return self.parameters + self.moments + self.teacher + self.batch + self.activations + self.other

    @property
    def headroom(self) -> int:
        """Bytes left; negative: bytes that are missing."""
        return self.capacity - self.total

    @property
    def fits(self) -> bool:
        return self.headroom >= 0


def memory_of(inputs: Inputs, total: int, activations: int | None, capacity: int) -> Memory:
    """A device's memory, of which all together is known to be `total`; activations None: all that is not named."""
    state = inputs.state
    named = {
        "parameters": device_bytes(state.params),
        "moments": device_bytes(state.opt_state),
        "teacher": device_bytes(state.teacher),
        "batch": device_bytes(inputs.batch),
    }
    rest = total - sum(named.values())
    activations = rest if activations is None else activations
    return Memory(**named, activations=activations, other=rest - activations, capacity=capacity)


def measured_memory(inputs: Inputs, compiled: CompiledStep | TooLarge, capacity: int) -> Memory:
    """By what the compiler says."""
    activations = compiled.temporaries if isinstance(compiled, CompiledStep) else None
    return memory_of(inputs, compiled.memory, activations, capacity)


MOST_COMPILES = 6
"""In a search that is left to itself; a program that grows evenly takes two."""

GRANULARITY = 0.02
"""Of a micro-batch: fewer clips more are not looked for."""


@dataclasses.dataclass(frozen=True)
class Largest:
    """The largest micro-batch by memory. clips: per device; 0: not even one fits. memory: bytes that it needs.

    confirmed: a compile of it fitted; else it is what the line says. fixed, per_clip: in bytes, the line through the
    two compiles that are nearest to the capacity. predicted: clips that have room by that line; where a search has
    come to its end these are no more than `clips` by GRANULARITY.
    """

    clips: int
    fixed: float
    per_clip: float
    memory: float
    confirmed: bool
    predicted: int
    tried: tuple[tuple[int, int], ...]
    """(clips per device, bytes) of all compiles."""


def largest_micro_batch(
    first: tuple[int, int],
    needed: Callable[[int], int],
    capacity: int,
    *,
    compiles: int = MOST_COMPILES,
    confirm: bool = True,
) -> Largest:
    """By lines through compiles: what the line through the nearest two says is compiled next.

    It ends where the next clips (GRANULARITY, at least one) are known not to fit or have no room by the line, where
    more clips need no more memory, or after so many compiles; the largest that fitted is returned, or what the line
    says if none did.

    first: (clips per device, bytes) that are known. needed: bytes with so many clips per device, by compiling; it is
    called at most `compiles` times, and once if not `confirm`: the line's word is then taken.
    """
    clips, size = first
    points = {clips: size}
    guess = 2 * clips if size <= capacity / 2 or clips == 1 else max(clips // 2, 1)
    for _ in range(compiles if confirm else 1):
        points[guess] = needed(guess)
        fixed, per_clip = _line(points, capacity)
        fitting, refused = _bounds(points, capacity)
        predicted = _room(fixed, per_clip, capacity) if per_clip > 0 else fitting
        guess = predicted if refused is None else min(predicted, refused - 1)
        if guess < fitting + max(math.floor(GRANULARITY * fitting), 1):
            break
    best = fitting if fitting and (confirm or per_clip <= 0) else guess
    memory = float(points.get(best, fixed + best * per_clip))
    confirmed = confirm and best > 0 and best == fitting
    return Largest(best, fixed, per_clip, memory, confirmed, predicted, tuple(sorted(points.items())))


def _bounds(points: dict[int, int], capacity: int) -> tuple[int, int | None]:
    """(most clips that fit, or 0; fewest beyond them that do not, if any)."""
    fitting = max((clips for clips, size in points.items() if size <= capacity), default=0)
    refused = min((clips for clips, size in points.items() if clips > fitting and size > capacity), default=None)
    return fitting, refused


def _line(points: dict[int, int], capacity: int) -> tuple[float, float]:
    """(bytes of none, bytes of a clip) by the largest that fits and the smallest beyond it that does not, or the two
    on one side that are nearest to the capacity."""
    fitting, refused = _bounds(points, capacity)
    below = [clips for clips in sorted(points) if clips <= fitting]
    above = [clips for clips in sorted(points) if clips > fitting]
    x0, x1 = (fitting, refused) if fitting and refused else below[-2:] or above[:2]
    slope = (points[x1] - points[x0]) / (x1 - x0)
    return points[x0] - slope * x0, slope


def _room(fixed: float, per_clip: float, capacity: int) -> int:
    return max(math.floor((capacity - fixed) / per_clip), 0)
