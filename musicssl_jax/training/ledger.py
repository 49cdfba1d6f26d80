"""Where a run's time goes: each second is in one account, over all its restarts; and how fast its steps are.

Accounts, in seconds, as `time/...` in the rows of metrics: startup, compile, data_wait (for crops), step, validation,
checkpoint (while it holds up the steps), lost. Lost is what restarts cost: steps that were done again, and the time
without a process. `time/total` is their sum, `time/goodput` the share of `step` in it.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping

import numpy as np

ACCOUNTS = ("startup", "compile", "data_wait", "step", "validation", "checkpoint", "lost")

Series = Mapping[str, tuple[np.ndarray, np.ndarray]]


class Ledger:
    """Charges all time to the account that is open, from `began` (`time.monotonic`) on: first to "startup".

    audio_seconds: of an update. work: FLOP of an update. peak: FLOP/s of all devices.
    """

    def __init__(self, began: float):
        self._seconds = dict.fromkeys(ACCOUNTS, 0.0)
        self._open, self._since = "startup", began
        self._began = began
        self._step, self._stepping = 0, 0.0
        self._laps: dict[str, float] = {}

    def go_on(self, series: Series, step: int) -> None:
        """Takes over what the metrics of the run so far say up to `step`, from which it goes on."""
        self._step = step
        row = {name: _latest(*series[name], step) for name in series if name.startswith("time/")}
        if "time/clock" not in row:
            return
        for account in ACCOUNTS:
            self._seconds[account] += row.get(f"time/{account}", 0.0)
        started = time.time() - (time.monotonic() - self._began)
        self._seconds["lost"] += max(started - row["time/clock"], 0.0)
        self._stepping = self._steps()

    @contextlib.contextmanager
    def account(self, name: str) -> Iterator[None]:
        """Time inside is charged to this account; after it, to the one that was open before."""
        before = self.open(name)
        yield
        self.open(before)

    def open(self, name: str) -> str:
        """Charges what comes to this account. Returns the one that was open."""
        now, before = time.monotonic(), self._open
        self._seconds[before] += now - self._since
        self._open, self._since = name, now
        return before

    def read(self, step: int) -> dict[str, float]:
        """The accounts, and seconds a step since the last reading; call it when `step` has just ended."""
        self.open(self._open)
        steps = self._steps()
        seconds = (steps - self._stepping) / max(step - self._step, 1)
        self._step, self._stepping = step, steps
        total = sum(self._seconds.values())
        accounts = {f"time/{name}": spent for name, spent in self._seconds.items()}
        goodput = self._seconds["step"] / total
        ends = {"time/total": total, "time/goodput": goodput, "time/clock": time.time()}
        return {"perf/step_seconds": seconds, **accounts, **ends}

    def since_start(self) -> float:
        """Seconds since this process began."""
        return time.monotonic() - self._began

    def lap(self, name: str) -> None:
        """Notes what the time since the last lap, or since this process began, went into."""
        self._laps[name] = self.since_start() - sum(self._laps.values())

    def laps(self) -> str:
        """All laps in seconds, for the screen: "imports 2.1, data 0.3"."""
        return ", ".join(f"{name} {seconds:.1f}" for name, seconds in self._laps.items())

    def _steps(self) -> float:
        return self._seconds["step"] + self._seconds["data_wait"]


def speed(step: int, seconds: float, audio_seconds: float, work: float, peak: float) -> dict[str, float]:
    """Metrics of updates that take `seconds` and hear `audio_seconds` each.

    work: FLOP of an update; peak: FLOP/s of all devices.
    """
    return {
        "perf/audio_seconds_per_second": audio_seconds / seconds,
        "perf/mfu": work / seconds / peak,
        "data/audio_hours": step * audio_seconds / 3600,
    }


def _latest(steps: np.ndarray, values: np.ndarray, step: int) -> float:
    """The value at the last step that is not beyond `step`; 0 where there is none."""
    known = np.flatnonzero(steps <= step)
    return float(values[known[-1]]) if len(known) else 0.0
