"""What a run is going to cost, said before it starts."""

from musicssl_jax.flops import peak_flops, update_flops
from musicssl_jax.training.batches import BatchPlan

ASSUMED_UTILISATION = 0.3  # of the peak; what is reached is measured and logged as perf/mfu
TOO_LONG_DAYS = 30
DAY = 86400


def outlook(config, objective, plan: BatchPlan, first_step: int) -> tuple[list[str], float]:
    """(lines for the user, FLOP/s that all devices reach at best).

    The estimate is the update's arithmetic over an assumed share of the devices' peak.
    """
    mesh = plan.sharding.mesh
    device = mesh.local_devices[0]
    samples = round(config.data.crop_seconds * config.data.sample_rate)
    work = update_flops(objective, samples)
    peak = peak_flops(device, config.precision)
    # Simulated CPU devices share the machine's cores.
    peak *= 1 if device.platform == "cpu" else mesh.size
    seconds = work / (peak * ASSUMED_UTILISATION)
    left = config.steps - first_step
    audio = config.batch.clips * config.data.crop_seconds
    micro, rows = plan.shape
    lines = [
        f"an update is {config.batch.clips} clips of {config.data.crop_seconds:g} s ({duration(audio)} of audio): "
        f"{micro} micro-batch{'es' if micro > 1 else ''} of {rows} on {mesh.size} {device.device_kind} "
        f"device{'s' if mesh.size > 1 else ''}, {plan.filled / (micro * rows):.1%} of the rows filled up",
        f"estimated {duration(seconds)} an update, {duration(seconds * left)} for {left} updates "
        f"({work:.2g} FLOP an update at {ASSUMED_UTILISATION:.0%} of {peak:.2g} FLOP/s)",
    ]
    if seconds * left > TOO_LONG_DAYS * DAY:
        fit = int(TOO_LONG_DAYS * DAY / seconds)
        fits = f"{fit} such updates" if fit else "not even one such update"
        smaller = max(int(config.batch.clips * TOO_LONG_DAYS * DAY / (seconds * left)), 0)
        clips = f", or all {left} with --config.batch.clips={smaller}" if smaller else ""
        lines.append(
            f"that is more than {TOO_LONG_DAYS} days, in which fit {fits} (--config.steps={max(fit, 1)}){clips}; "
            f"the demo variant (--config=configs/music2vec.py:demo) fits in minutes"
        )
    return lines, peak


def duration(seconds: float) -> str:
    """'45 s', '12 min', '3.5 h', '20 days', '7 years'."""
    for size, unit in ((365 * DAY, "years"), (DAY, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size or (unit != "years" and seconds >= 1.5 * size):
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
