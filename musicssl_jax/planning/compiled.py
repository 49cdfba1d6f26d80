"""The train step of a config, compiled for a machine."""

import dataclasses
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from musicssl_jax.models.objective import make_objective
from musicssl_jax.planning.abstract import abstract_batch, abstract_targets, device_bytes
from musicssl_jax.planning.hardware import GIB
from musicssl_jax.targets.features import Features
from musicssl_jax.training.optimizer import make_optimizer, make_schedule
from musicssl_jax.training.state import TrainState
from musicssl_jax.training.step import abstract_state, make_train_step


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a train step is made of and called with; `state`, `frozen` and `batch` are shapes with shardings."""

    config: Any
    mesh: Any
    objective: Any
    state: TrainState
    frozen: tuple
    batch: Mapping[str, jax.ShapeDtypeStruct]

    @property
    def rows(self) -> tuple[int, int]:
        """(micro-batches, rows of each) of the global batch."""
        micro, rows = self.batch["row"].shape
        return micro, rows


@dataclasses.dataclass(frozen=True)
class CompiledStep:
    """What XLA says of the program for one device, in bytes; text: of the program."""

    arguments: int
    outputs: int
    temporaries: int
    code: int
    text: str
    seconds: float

    @property
    def memory(self) -> int:
        """Bytes that a device needs while it runs; outputs that take the place of arguments count once."""
        return self.arguments + self.outputs + self.temporaries + self.code


@dataclasses.dataclass(frozen=True)
class TooLarge:
    """The compiler refused: the program needs about `memory` bytes of a device."""

    memory: int
    seconds: float


def make_inputs(config: Any, fronts: Sequence[Features], mesh: Any, platform: str) -> Inputs:
    """As `train` makes them on a platform ("cpu", "gpu", "tpu"), in shapes.

    Raises UserError: parameters that the mesh does not divide.
    """
    objective = make_objective(config, platform)
    optimizer = make_optimizer(config.optimizer, make_schedule(config.schedule, config.steps))
    return Inputs(
        config,
        mesh,
        objective,
        abstract_state(objective, optimizer, mesh),
        abstract_targets(config, fronts, mesh),
        abstract_batch(config, fronts, mesh),
    )


def lower_step(inputs: Inputs, platform: str | None = None) -> jax.stages.Lowered:
    """The very step that `train` runs, traced and lowered for the mesh's devices.

    platform: as JAX names it ("cuda"), if it is another than theirs: the program can be read then, and not compiled.
    """
    config, mesh = inputs.config, inputs.mesh
    schedule = make_schedule(config.schedule, config.steps)
    optimizer = make_optimizer(config.optimizer, schedule)
    with jax.set_mesh(mesh):
        step = make_train_step(inputs.objective, optimizer, schedule, mesh, config.seed, prng=config.prng)
        traced = step.trace(inputs.state, inputs.frozen, inputs.batch)
        return traced.lower(lowering_platforms=None if platform is None else (platform,))


def compile_step(inputs: Inputs) -> CompiledStep | TooLarge:
    """Compiles for the mesh's devices, which takes minutes for a base model."""
    begun = time.monotonic()
    lowered = lower_step(inputs)
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        held = device_bytes((inputs.state, inputs.frozen, inputs.batch))
        if (needed := needed_bytes(str(error), held)) is None:
            raise
        return TooLarge(needed, time.monotonic() - begun)
    memory: Any = compiled.memory_analysis()
    return CompiledStep(
        arguments=memory.argument_size_in_bytes,
        outputs=memory.output_size_in_bytes - memory.alias_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        code=memory.generated_code_size_in_bytes,
        text=compiled.as_text() or "",
        seconds=time.monotonic() - begun,
    )


_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": GIB, "T": 2**40}


def needed_bytes(message: str, arguments: int) -> int | None:
    """How much memory a compiler's complaint says that the program needs; None: it complains of something else.

    arguments: bytes of them on a device, which one of its messages leaves out.

    libtpu says "Used 17.11G of 15.75G hbm", or "the total memory required for HLO temporaries (120.00G) exceeds
    available HBM (15.75G)".
    """
    if "RESOURCE_EXHAUSTED" not in message:
        return None
    if used := re.search(r"Used ([\d.]+)([KMGT]?) of [\d.]+[KMGT]? hbm", message):
        return _size(used)
    temporaries = re.search(r"\(([\d.]+)([KMGT]?)\) exceeds available", message)
    return arguments + _size(temporaries) if temporaries else None


def _size(found: re.Match) -> int:
    return int(float(found[1]) * _UNITS[found[2]])
