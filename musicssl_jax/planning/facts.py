"""A whole plan: what was asked, what the compiler said, and what follows. JSON of it."""

import dataclasses
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from musicssl_jax.planning.collectives import Collective
from musicssl_jax.planning.disk import Disk
from musicssl_jax.planning.estimate import Estimate
from musicssl_jax.planning.memory import Largest, Memory
from musicssl_jax.planning.prediction import Reduction


@dataclasses.dataclass(frozen=True)
class Update:
    """The global batch and how it is divided up. own_batch: it is the config's, not one scaled by the planner."""

    clips: int
    crop_seconds: float
    per_device: int
    micro_batches: int
    rows: int
    """Of a micro-batch, on all devices."""
    own_batch: bool
    config_clips: int

    @property
    def filled(self) -> int:
        """Rows that are worked on for nothing."""
        return self.micro_batches * self.rows - self.clips


@dataclasses.dataclass(frozen=True)
class Refused:
    """The config's own micro-batch, where it does not fit: clips a device, and bytes that these need."""

    per_device: int
    memory: int


def clips_at_once(clips: int, devices: int) -> int:
    """Clips a device at once with which a batch is a single micro-batch: more only fill up."""
    return -(-clips // devices)


@dataclasses.dataclass(frozen=True)
class Plan:
    """refused: set where all figures are of another micro-batch, which fits; the training is the same.

    compile_seconds: None where nothing was compiled and memory is an estimate. collectives: None where a program did
    not compile. unknown_loops: loops in the program whose rounds are counted as one.
    """

    config: str
    steps: int
    topology: str
    chip: str
    devices: int
    hosts: int | None
    mesh: dict[str, int]
    parameters: int
    attention: str
    """The kernel: what "auto" stands for on this machine."""
    update: Update
    refused: Refused | None
    compile_seconds: float | None
    memory: Memory
    largest: Largest | None
    collectives: Sequence[Collective] | None
    predicted: Reduction
    unknown_loops: int
    estimate: Estimate
    disk: Disk
    versions: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Traffic:
    """All collectives of a kind over the same axes, in an update. in_loop: some of them in every micro-batch."""

    kind: str
    axes: tuple[str, ...]
    count: float
    bytes: float
    scalars: float
    in_loop: bool


def by_kind(collectives: Sequence[Collective]) -> list[Traffic]:
    """Sums over collectives of the same kind, axes and place."""
    groups: dict[tuple, list[Collective]] = {}
    for one in collectives:
        groups.setdefault((one.kind, one.axes, one.loops > 0), []).append(one)
    return [
        Traffic(
            kind,
            axes,
            sum(c.times for c in group),
            sum(c.bytes_per_update for c in group),
            sum(c.scalars * c.times for c in group),
            in_loop,
        )
        for (kind, axes, in_loop), group in sorted(groups.items(), key=lambda item: (item[0][2], item[0]))
    ]


def versions() -> dict[str, str]:
    """Of what compiled the program."""
    found = {}
    for name in ("musicssl_jax", "jax", "jaxlib", "libtpu"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def as_json(plan: Plan) -> dict[str, Any]:
    """Plain values: all fields, and what is derived of them. Bytes, seconds and FLOPs without prefixes."""
    content = dataclasses.asdict(plan)
    content["collectives"] = (
        None if plan.collectives is None else [dataclasses.asdict(one) for one in by_kind(plan.collectives)]
    )
    content["update"]["filled"] = plan.update.filled
    content["memory"] |= {name: getattr(plan.memory, name) for name in ("total", "headroom", "fits")}
    derived = ("step", "bound", "mfu", "least", "most_mfu", "audio_hours_per_day", "days", "device_hours")
    content["estimate"] |= {name: getattr(plan.estimate, name) for name in derived}
    content["predicted"] = {**plan.predicted._asdict(), "bytes": plan.predicted.bytes}
    content["disk"]["checkpoints"] = plan.disk.checkpoints
    return content
