"""How long an update takes at best, and what follows for the whole schedule."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from musicssl_jax.flops import PEAKS, conv_flops, peak_flops, transformer_flops, update_flops
from musicssl_jax.models.conv_encoder import frame_count
from musicssl_jax.models.encoder import EncoderConfig
from musicssl_jax.planning.abstract import crop_samples
from musicssl_jax.planning.collectives import Collective
from musicssl_jax.planning.compiled import Inputs
from musicssl_jax.planning.machine import Machine

DAY, HOUR = 86400, 3600


@dataclasses.dataclass(frozen=True)
class Estimate:
    """flops: of the model in an update, rows that only fill up left out. peak: FLOP/s of a device. utilisation: of it,
    that is assumed. traffic: bytes that a device's memory moves in an update; None where it is not known.

    Seconds of an update: `compute` is the arithmetic, filling rows and what is computed twice included, at peak times
    utilisation; `memory` is the
    traffic at full bandwidth; `network` is what is sent, at the speed of all links, hidden behind nothing.
    """

    flops: float
    peak: float
    utilisation: float
    traffic: float | None
    compute: float
    memory: float
    network: float
    devices: int
    steps: int
    audio: float
    """Seconds of it in an update."""
    work_devices: int
    """Devices whose FLOP/s add up: 1 where they share a processor."""

    @property
    def step(self) -> float:
        """Seconds of an update: the longer one of arithmetic and memory, then the network."""
        return max(self.compute, self.memory) + self.network

    @property
    def least(self) -> float:
        """Seconds of an update with arithmetic at the full peak, and all three at once."""
        return max(self.compute * self.utilisation, self.memory, self.network)

    @property
    def bound(self) -> str:
        return "memory" if self.memory > self.compute else "compute"

    @property
    def mfu(self) -> float:
        """Model FLOPs utilisation: the model's FLOP/s over the peak of all devices."""
        return self._mfu(self.step)

    @property
    def most_mfu(self) -> float:
        """Of the shortest update."""
        return self._mfu(self.least)

    def _mfu(self, seconds: float) -> float:
        return self.flops / (seconds * self.peak * self.work_devices)

    @property
    def audio_hours_per_day(self) -> float:
        return self.audio / HOUR * DAY / self.step

    @property
    def days(self) -> float:
        return self.step * self.steps / DAY

    @property
    def device_hours(self) -> float:
        return self.days * 24 * self.devices


def make_estimate(
    inputs: Inputs,
    machine: Machine,
    collectives: Sequence[Collective],
    traffic: float | None,
    utilisation: float,
) -> Estimate:
    """The roofline of an update on the machine."""
    config = inputs.config
    samples = crop_samples(config)
    flops = update_flops(inputs.objective, samples)
    micro, rows = inputs.rows
    model = inputs.objective.model
    if machine.platform == "gpu" and model.attention == "splash":  # that stands for cuDNN's where there is no GPU
        model = dataclasses.replace(model, attention="cudnn")
    again = recomputed_flops(model, samples)
    executed = (inputs.objective.clip_flops(samples) + again) * micro * rows
    peak = _peak(machine, config)
    working = 1 if machine.platform == "cpu" else machine.count  # simulated devices share the cores
    known = traffic is not None and machine.chip.bandwidth
    return Estimate(
        flops=flops,
        peak=peak,
        utilisation=utilisation,
        traffic=traffic if known else None,
        compute=executed / (peak * working * utilisation),
        memory=traffic / machine.chip.bandwidth if traffic is not None and known else 0.0,
        network=network_seconds(collectives, machine),
        devices=machine.count,
        steps=config.steps,
        audio=config.batch.clips * config.data.crop_seconds,
        work_devices=working,
    )


SCORES_AGAIN = {"xla": 1, "cudnn": 1, "splash": 3}
"""Products as large as attention's scores that a kernel's backward pass makes beyond the four of the gradient itself.

None of them keeps the scores. Splash has one kernel for the queries' gradient and one for the keys' and values', and
each makes the scores and the gradient of the weights for itself.
"""


def recomputed_flops(model: EncoderConfig, samples: int) -> int:
    """Of a clip in an update: what the backward pass does a second time, by `config.compute.remat` and in attention."""
    frames = frame_count(samples, model.conv_layers)
    blocks = transformer_flops(model, frames) - transformer_flops(dataclasses.replace(model, layers=0), frames)
    scores = model.layers * 2 * frames**2 * model.width * SCORES_AGAIN[model.attention]
    if model.remat in ("none", "products"):
        return scores
    # XLA makes scores once for the block's second forward pass and for its gradient; nothing is shared with a kernel.
    again = blocks if model.attention == "xla" else blocks + scores
    return again + conv_flops(model, samples) if model.remat == "all" else again


def network_seconds(collectives: Sequence[Collective], machine: Machine) -> float:
    """All that a device sends in an update, one collective after the other; 0 for simulated devices."""
    if machine.platform == "cpu":
        return 0.0
    return sum((c.sent_per_update / machine.chip.link(c.group) for c in collectives), 0.0)


def _peak(machine: Machine, config: Any) -> float:
    if machine.platform == "cpu":
        return peak_flops(machine.devices[0], config.precision)
    bfloat16, float32 = next(peaks for kind, peaks in PEAKS.items() if machine.chip.kind.startswith(kind))
    return (bfloat16 if config.precision == "bfloat16" else float32) * 1e12
