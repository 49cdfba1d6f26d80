"""Signals that ask a command to end: it finishes what it is at, saves, and ends with PREEMPTED."""

import contextlib
import signal
from collections.abc import Iterator
from typing import Any

ANOTHER = "another process was asked to stop"
"""The reason of a process that got no signal itself."""


@contextlib.contextmanager
def stop_signals() -> Iterator[list[str]]:
    """Inside, the first SIGTERM or SIGINT only puts its name in the list; a second one ends the process."""
    seen: list[str] = []
    before: dict[int, Any] = {}

    def note(number, _):
        seen.append(signal.Signals(number).name)
        signal.signal(number, before[number])

    for number in (signal.SIGTERM, signal.SIGINT):
        before[number] = signal.signal(number, note)
    try:
        yield seen
    finally:
        for caught, handler in before.items():
            signal.signal(caught, handler)
