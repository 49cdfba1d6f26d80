"""A plan as one screen of text."""

from collections.abc import Iterator

from musicssl_jax.planning.facts import Plan, Traffic, by_kind, clips_at_once
from musicssl_jax.planning.hardware import GIB
from musicssl_jax.training.outlook import duration

LABEL = 14  # columns


def screen(plan: Plan) -> str:
    """The lines that `musicssl plan` prints."""
    lines = [*_head(plan), *_memory(plan), *_network(plan), *_time(plan), *_disk(plan), *_assumptions(plan)]
    return "\n".join(f"{label:{LABEL}}{text}".rstrip() for label, text in lines)


Line = tuple[str, str]


def _head(plan: Plan) -> Iterator[Line]:
    hosts = "" if plan.hosts is None else f" on {plan.hosts} host{'s' if plan.hosts > 1 else ''}"
    mesh = " x ".join(f"{name} {size}" for name, size in plan.mesh.items())
    yield "plan", f"{plan.config} ({plan.parameters / 1e6:.2f}M parameters) on {plan.topology}"
    yield "machine", f"{plan.devices} {plan.chip} device{'s' if plan.devices > 1 else ''}{hosts}; mesh {mesh}"
    known = ", ".join(f"{name} {version}" for name, version in plan.versions.items())
    if plan.compile_seconds is None:
        yield "program", f"NOT compiled: there is no such device or compiler here; an analytic estimate ({known})"
    else:
        yield "program", f"the train step, compiled for this machine in {plan.compile_seconds:.0f} s ({known})"
    yield "", f"attention by {plan.attention}"
    yield from _update(plan)


def _update(plan: Plan) -> Iterator[Line]:
    update = plan.update
    several = "es" if update.micro_batches > 1 else ""
    yield (
        "update",
        f"{update.clips} clips of {update.crop_seconds:g} s: {update.micro_batches} micro-batch{several} of "
        f"{update.rows} rows, {update.per_device} a device",
    )
    if not update.own_batch:
        yield "", f"ANOTHER TRAINING than the config's, whose batch is {update.config_clips} clips: it learns otherwise"
    if update.filled:
        share = update.filled / (update.micro_batches * update.rows)
        yield "", f"{update.filled} of the rows ({share:.0%}) are worked on for nothing: they only fill up"
    if refused := plan.refused:
        yield (
            "",
            f"NOT the config's {refused.per_device} a device, which DO NOT FIT ({_gib(refused.memory)} of "
            f"{_gib(plan.memory.capacity)} GiB): --config.batch.per_device={update.per_device}, the same training",
        )
    if update.per_device > (enough := clips_at_once(update.clips, plan.devices)):
        yield (
            "",
            f"{enough} clip{'s' if enough > 1 else ''} a device at once would do: --config.batch.per_device={enough}",
        )
    if update.clips < plan.devices:
        yield "", f"{update.clips} clips keep no more than {update.clips} devices busy: a smaller machine does as well"


def _memory(plan: Plan) -> Iterator[Line]:
    memory = plan.memory
    parts = ("parameters", "moments", "teacher", "batch", "activations", "other")
    yield "memory", f"a device, in GiB: {', '.join(f'{part} {_gib(getattr(memory, part))}' for part in parts)}"
    verdict = (
        f"fits, with {_gib(memory.headroom)} left" if memory.fits else f"DOES NOT FIT, {_gib(-memory.headroom)} short"
    )
    yield "", f"in all {_gib(memory.total)} of {_gib(memory.capacity)}: {verdict}"
    if largest := plan.largest:
        how = "a compile of it fits" if largest.confirmed else "not confirmed by a compile"
        if not largest.clips:
            yield "", f"not even one clip a device fits ({_gib(largest.fixed)} and {_gib(largest.per_clip)} a clip)"
            return
        yield (
            "",
            f"largest micro-batch: {largest.clips} clip{'s' if largest.clips > 1 else ''} a device, "
            f"{_gib(largest.memory)} ({how}; about {_gib(largest.fixed)} and {_gib(largest.per_clip)} a clip)",
        )
        if largest.predicted > largest.clips:
            yield "", f"by the line through the nearest two compiles there is room for {largest.predicted}"
        if largest.clips > (enough := clips_at_once(plan.update.clips, plan.devices)):
            yield "", f"of use are no more than {enough}, with which an update is one micro-batch"


def _network(plan: Plan) -> Iterator[Line]:
    predicted = plan.predicted
    by_design = (
        f"{_mb(predicted.gradients)} of gradients, {_mb(predicted.statistics)} of statistics and "
        f"{predicted.scalars} scalars"
    )
    if plan.collectives is None:
        yield "network", f"by design one reduction over data an update: {by_design}; more over fsdp is not counted"
        return
    label = "network"
    for traffic in by_kind(plan.collectives):
        yield label, _traffic(traffic)
        label = ""
    if label:
        yield label, "nothing crosses between devices"
    elif predicted.bytes:
        yield "", f"by design over data, an update: {by_design}"


def _traffic(traffic: Traffic) -> str:
    scalars = f" (and {traffic.scalars:.0f} scalars)" if traffic.scalars else ""
    place = "in the micro-batch loop" if traffic.in_loop else "once an update"
    return (
        f"{traffic.kind} over {' and '.join(traffic.axes)}, {place}: {traffic.count:.0f} of them, "
        f"{_mb(traffic.bytes)} a device and update{scalars}"
    )


def _time(plan: Plan) -> Iterator[Line]:
    estimate = plan.estimate
    yield "FLOPs", f"{estimate.flops:.3g} an update"
    traffic = "not known" if estimate.traffic is None else duration(estimate.memory)
    yield (
        "time",
        f"{duration(estimate.step)} an update: {estimate.bound} bound (compute {duration(estimate.compute)}, memory "
        f"{traffic}), network {duration(estimate.network)}; MFU {estimate.mfu:.1%}",
    )
    yield "", f"at the devices' full peak, all at once, {duration(estimate.least)}; MFU {estimate.most_mfu:.1%}"
    crops = plan.update.clips / estimate.step
    yield (
        "",
        f"{estimate.audio_hours_per_day:.3g} hours of audio a day; {crops:.3g} clips a second have to be read",
    )
    yield (
        "schedule",
        f"{plan.steps} updates: {estimate.days:.3g} days, {estimate.device_hours:.3g} chip-hours",
    )


def _disk(plan: Plan) -> Iterator[Line]:
    disk = plan.disk
    one = f"{disk.checkpoint / 1e9:.3g} GB"
    yield "disk", f"data {disk.data / 1e9:.4g} GB for {disk.hours:g} hours of music (16-bit PCM)"
    yield (
        "",
        f"checkpoints {disk.checkpoints / 1e9:.3g} GB: {disk.kept} of {one}, and one more while it is written",
    )


def _assumptions(plan: Plan) -> Iterator[Line]:
    estimate = plan.estimate
    yield (
        "assumed",
        f"compute at {estimate.utilisation:.0%} of {estimate.peak / 1e12:.4g} TFLOP/s a device (--utilisation); memory "
        "and links at their data sheets' speed;",
    )
    yield "", "the network waits for the rest and hides behind nothing; no time for validation, checkpoints or data."
    yield "", "FLOPs: products and convolutions of the model, analytic; front ends and optimizer are left out."
    yield "", "Activations: all that lives within an update alone, gradients too."
    if plan.compile_seconds is None:
        yield (
            "",
            "They are estimated: what the backward pass needs, as JAX traces it, and two copies of the gradients.",
        )
    if plan.chip == "CPU":
        yield "", "Simulated devices share this machine's cores and memory; their network is none. FLOP/s are measured."
    if plan.unknown_loops:
        yield "", f"{plan.unknown_loops} loops of unknown length count as one round."


def _gib(size: float | int) -> str:
    return f"{size / GIB:.2f}"


def _mb(size: float | int) -> str:
    return f"{size / 1e6:.4g} MB"
