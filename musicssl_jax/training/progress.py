"""How far a run is: a bar with the time that is left on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Mapping
from typing import Any

import jax
from tqdm import tqdm

from musicssl_jax.training.outlook import duration

QUIET_SECONDS = 30  # between two lines about the inside of one update


def open_progress(first_step: int, steps: int, micro_batches: int) -> "Bar | Lines":
    """Progress from `first_step` to `steps` updates of `micro_batches` each; only the first process speaks."""
    speaks = jax.process_index() == 0
    if speaks and sys.stderr.isatty():
        return Bar(first_step, steps, micro_batches)
    return Lines(steps, micro_batches, speaks)


class Bar:
    """Drawn on stderr, moved at each update and within."""

    def __init__(self, first_step: int, steps: int, micro_batches: int):
        self._steps, self._micro_batches = steps, micro_batches
        self._bar = tqdm(
            initial=first_step,
            total=steps,
            dynamic_ncols=True,
            bar_format="{percentage:3.0f}%|{bar:20}| {desc}{postfix}",
        )

    def step(self, step: int) -> None:
        """Shows that `step` updates are done."""
        self._bar.n = step
        self._bar.refresh()

    def row(self, step: int, row: Mapping[str, float]) -> None:
        """Shows the metrics of `step`, the number of updates done."""
        self._bar.n = step
        self._bar.set_postfix_str("", refresh=False)
        self._bar.set_description_str(describe(step, self._steps, row))

    def inside(self, micro_batch: Any) -> None:
        """Shows that the micro-batch of this number, from 0, has begun in the current update."""
        # tqdm puts a comma before a postfix.
        self._bar.set_postfix_str(f"micro-batch {int(micro_batch) + 1}/{self._micro_batches}")

    def close(self) -> None:
        self._bar.close()


class Lines:
    """One line on stdout for each row of metrics, and one now and then in between."""

    def __init__(self, steps: int, micro_batches: int, speaks: bool):
        self._steps, self._micro_batches, self._speaks = steps, micro_batches, speaks
        self._said = time.monotonic()

    def step(self, step: int) -> None:
        """Notes that `step` updates are done."""
        if time.monotonic() - self._said > QUIET_SECONDS:
            self._say(f"  step {step:,}/{self._steps:,}")

    def row(self, step: int, row: Mapping[str, float]) -> None:
        """Prints the metrics of `step`, the number of updates done."""
        self._say(describe(step, self._steps, row))

    def inside(self, micro_batch: Any) -> None:
        """Notes that the micro-batch of this number, from 0, has begun in the current update."""
        if time.monotonic() - self._said > QUIET_SECONDS:
            self._say(f"  micro-batch {int(micro_batch) + 1}/{self._micro_batches} of the update")

    def _say(self, line: str) -> None:
        self._said = time.monotonic()
        if self._speaks:
            print(line, flush=True)

    def close(self) -> None:
        """Nothing to release."""


def describe(step: int, steps: int, row: Mapping[str, float]) -> str:
    """One line: step, loss, swap gap, audio heard, speed, time left; what the row lacks is left out."""
    left = {"left": row["perf/step_seconds"] * (steps - step)} if "perf/step_seconds" in row else {}
    shown = {**row, **left}
    parts = [
        ("train/loss", lambda v: f"loss {v:.4g}"),
        ("prediction/swap_gap", lambda v: f"swap gap {v:.3g}"),
        ("data/audio_hours", lambda v: f"{_short(v)} h of audio"),
        ("perf/audio_seconds_per_second", lambda v: f"{_short(v)}x real time"),
        ("perf/step_seconds", lambda v: f"{v:.3g} s a step"),
        ("left", lambda v: f"{duration(v)} left"),
    ]
    said = [text(shown[name]) for name, text in parts if name in shown]
    return " · ".join([f"step {step:,}/{steps:,}", said[0], *_accuracies(row), *said[1:]])


def _accuracies(row: Mapping[str, float]) -> list[str]:
    """Of each label set, beside what copying the nearest seen frame's label would give."""
    names = [name.removesuffix("/copy_accuracy") for name in row if name.endswith("/copy_accuracy")]
    return [f"{n} {row[f'{n}/accuracy']:.2f} (copying {row[f'{n}/copy_accuracy']:.2f})" for n in names]


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
