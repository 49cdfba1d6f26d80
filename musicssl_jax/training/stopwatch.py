"""How fast a run is, and how much audio it has heard."""

import contextlib
import time
from collections.abc import Iterator


class Stopwatch:
    """Times steps between readings, leaving out pauses. `work`: FLOP an update; `peak`: FLOP/s of all devices."""

    def __init__(self, config, step: int, work: float, peak: float):
        self.audio_seconds = config.batch.clips * config.data.crop_seconds
        self.work, self.peak = work, peak
        self.started = time.monotonic()
        self.step, self.since = step, self.started

    def read(self, step: int) -> dict[str, float]:
        """Metrics of the steps since the last reading; call it when `step` has just ended."""
        now = time.monotonic()
        seconds = (now - self.since) / max(step - self.step, 1)
        self.step, self.since = step, now
        return {
            "perf/step_seconds": seconds,
            "perf/audio_seconds_per_second": self.audio_seconds / seconds,
            "perf/mfu": self.work / seconds / self.peak,
            "data/audio_hours": step * self.audio_seconds / 3600,
            "time/total": self.seconds(),
        }

    def seconds(self) -> float:
        """Since the start, pauses included."""
        return time.monotonic() - self.started

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What happens inside is not counted as time of a step."""
        begun = time.monotonic()
        yield
        self.since += time.monotonic() - begun
