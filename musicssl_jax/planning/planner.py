"""Puts a plan together: compiles, counts and estimates."""

from collections.abc import Callable, Sequence
from typing import Any

from musicssl_jax.config_checks import check_kernel
from musicssl_jax.planning.abstract import device_bytes, front_ends
from musicssl_jax.planning.activations import estimated_activations
from musicssl_jax.planning.collectives import Collective, find_collectives
from musicssl_jax.planning.compiled import CompiledStep, Inputs, TooLarge, compile_step, make_inputs
from musicssl_jax.planning.disk import disk_of
from musicssl_jax.planning.estimate import make_estimate
from musicssl_jax.planning.facts import Plan, Refused, Update, clips_at_once, versions
from musicssl_jax.planning.hlo import parse
from musicssl_jax.planning.machine import Machine
from musicssl_jax.planning.memory import (
    Largest,
    Memory,
    largest_micro_batch,
    measured_memory,
    memory_of,
)
from musicssl_jax.planning.prediction import Reduction, reduction
from musicssl_jax.planning.traffic import memory_traffic
from musicssl_jax.targets.features import Features
from musicssl_jax.training.state import parameter_count


def scaled(config: Any, clips: int, devices: int) -> Any:
    """The config with a global batch of so many clips on each device: another training."""
    return _changed(config, {"batch.clips": clips * devices, "batch.per_device": min(clips, config.batch.per_device)})


def with_micro_batch(config: Any, per_device: int) -> Any:
    """The config with so many clips at once on a device: the same training."""
    return _changed(config, {"batch.per_device": per_device})


def _changed(config: Any, fields: dict[str, Any]) -> Any:
    changed = config.copy_and_resolve_references()
    changed.update_from_flattened_dict(fields)
    return changed


def plan_on(
    config: Any,
    machine: Machine,
    *,
    config_clips: int,
    search: bool,
    hours: float,
    utilisation: float,
    say: Callable[[str], None],
) -> Plan:
    """The plan of the config on a machine; the program's figures are analytic where it cannot be compiled for.

    config_clips: of the batch that the user's config has. search: for the largest micro-batch. hours: of music.
    Raises UserError: the mesh does not take all devices or does not divide a parameter; a target's run is missing;
    attention by a kernel that the machine has not.
    """
    check_kernel(config, machine.platform)
    mesh = machine.mesh(config.mesh.data, config.mesh.fsdp)
    needs = _Needs(config, machine, front_ends(config), mesh, say)
    asked = config.batch.per_device
    memory = needs.memory(asked)
    # Simulated devices share a memory that other programs use as well: there is no size to fill.
    largest = needs.largest() if search and machine.platform != "cpu" else None
    used = asked
    if not memory.fits and largest and largest.clips:
        used = min(largest.clips, clips_at_once(config.batch.clips, machine.count))
    inputs = needs.inputs(used)
    step = needs.step(used) if machine.devices else None
    predicted = reduction(inputs.objective, inputs.state, inputs.frozen, inputs.batch, dict(mesh.shape))
    if isinstance(step, CompiledStep):
        program = parse(step.text)
        counted = find_collectives(program, dict(mesh.shape))
        traffic, unknown = memory_traffic(program), program.unknown_loops
    else:
        counted, traffic, unknown = None, None, 0
    sent = counted if counted is not None else _by_design(predicted, mesh.shape["data"])
    return Plan(
        config=config.name,
        steps=config.steps,
        topology=machine.topology,
        chip=machine.chip.name,
        devices=machine.count,
        hosts=machine.hosts,
        mesh=dict(mesh.shape),
        parameters=parameter_count(inputs.state.params),
        attention=inputs.objective.model.attention if machine.devices else config.compute.attention,
        update=_update(inputs, config_clips),
        refused=None if used == asked else Refused(asked, memory.total),
        compile_seconds=step.seconds if step else None,
        memory=needs.memory(used),
        largest=largest,
        collectives=counted,
        predicted=predicted,
        unknown_loops=unknown,
        estimate=make_estimate(inputs, machine, sent, traffic, utilisation),
        disk=disk_of(config, inputs.state, hours),
        versions=versions(),
    )


class _Needs:
    """What a device needs for micro-batches of different sizes; each is compiled once."""

    def __init__(self, config: Any, machine: Machine, fronts: Sequence[Features], mesh: Any, say: Callable):
        self.config, self.machine, self.fronts, self.mesh, self.say = config, machine, fronts, mesh, say
        self.steps: dict[int, CompiledStep | TooLarge] = {}

    def inputs(self, per_device: int) -> Inputs:
        config = with_micro_batch(self.config, per_device)
        if self.machine.devices:
            return make_inputs(config, self.fronts, self.mesh, self.machine.platform)
        # A GPU's fused attention cannot be traced without one; a TPU's keeps the same for the backward pass.
        if config.compute.attention == "cudnn":
            config = _changed(config, {"compute.attention": "splash"})
        return make_inputs(config, self.fronts, self.mesh, "tpu")

    def step(self, per_device: int) -> CompiledStep | TooLarge:
        if per_device not in self.steps:
            self.say(f"compiling for {self.machine.topology}, {per_device} clips a device at once ...")
            self.steps[per_device] = compile_step(self.inputs(per_device))
        return self.steps[per_device]

    def memory(self, per_device: int) -> Memory:
        inputs, capacity = self.inputs(per_device), self.machine.memory
        if self.machine.devices:
            return measured_memory(inputs, self.step(per_device), capacity)
        activations = estimated_activations(inputs)
        held = device_bytes((inputs.state, inputs.frozen, inputs.batch))
        return memory_of(inputs, held + activations, activations, capacity)

    def largest(self) -> Largest:
        first = self.config.batch.per_device
        return largest_micro_batch(
            (first, self.memory(first).total),
            lambda clips: self.memory(clips).total,
            self.machine.memory,
            compiles=2,  # each may take a quarter of an hour
            confirm=bool(self.machine.devices),
        )


def _update(inputs: Inputs, config_clips: int) -> Update:
    batch, (micro, rows) = inputs.config.batch, inputs.rows
    return Update(
        clips=batch.clips,
        crop_seconds=inputs.config.data.crop_seconds,
        per_device=batch.per_device,
        micro_batches=micro,
        rows=rows,
        own_batch=batch.clips == config_clips,
        config_clips=config_clips,
    )


def _by_design(predicted: Reduction, devices: int) -> list[Collective]:
    """The one reduction over data, where no program can be looked into."""
    if devices == 1:
        return []
    return [Collective("all-reduce", ("data",), predicted.bytes, predicted.scalars, 1.0, 0, devices)]
