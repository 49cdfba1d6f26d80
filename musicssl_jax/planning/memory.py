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


@dataclasses.dataclass(frozen=True)
class Largest:
    """The largest micro-batch by memory. clips: per device; 0: not even one fits.

    fixed, per_clip: the line through two compiles, in bytes. confirmed: a compile of it fitted. memory: which that
    compile needed, or what the line says.
    """

    clips: int
    fixed: float
    per_clip: float
    memory: float
    confirmed: bool
    tried: tuple[tuple[int, int], ...]
    """(clips per device, bytes) of all compiles."""


def largest_micro_batch(
    first: tuple[int, int], needed: Callable[[int], int], capacity: int, *, confirm: bool = True
) -> Largest:
    """By a line through two compiles and, with `confirm`, a third one of what the line says.

    first: (clips per device, bytes) that are known. needed: bytes with so many clips per device, by compiling. Where
    the confirming compile does not fit, a steeper line through it gives a smaller micro-batch, unconfirmed.
    """
    clips, size = first
    other = 2 * clips if size <= capacity / 2 or clips == 1 else max(clips // 2, 1)
    points = {clips: size, other: needed(other)}
    fixed, per_clip = _line(points)
    if per_clip <= 0:  # rows so small that the compiler's padding hides them
        guess = max((clips for clips, size in points.items() if size <= capacity), default=0)
        return Largest(guess, fixed, 0.0, float(points.get(guess, fixed)), guess > 0, tuple(sorted(points.items())))
    guess = _room(fixed, per_clip, capacity)
    if guess < 1 or not confirm:
        return Largest(guess, fixed, per_clip, fixed + guess * per_clip, False, tuple(sorted(points.items())))
    if guess not in points:
        points[guess] = needed(guess)
    confirmed, memory = points[guess] <= capacity, float(points[guess])
    if not confirmed:
        fixed, per_clip = _line({clips: size, guess: points[guess]} if guess != clips else points)
        guess = min(_room(fixed, per_clip, capacity), guess - 1)
        confirmed, memory = guess in points, float(points.get(guess, fixed + guess * per_clip))
    return Largest(guess, fixed, per_clip, memory, confirmed, tuple(sorted(points.items())))


def _line(points: dict[int, int]) -> tuple[float, float]:
    (x0, y0), (x1, y1) = sorted(points.items())
    slope = (y1 - y0) / (x1 - x0)
    return y0 - slope * x0, slope


def _room(fixed: float, per_clip: float, capacity: int) -> int:
    return max(math.floor((capacity - fixed) / per_clip), 0)
