"""When the same command is started again, and when not: exit codes, limits and waiting times.

`musicssl` ends with 0 when it is done, 2 when the user's input is at fault, 3 when it was stopped by SIGTERM with a
checkpoint, 4 when training diverged; JAX ends a process with 134 when it lost a peer. A launcher starts the same
command again on all but 0, 2 and 4.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from commands import say

DONE = 0
USER_ERROR = 2
PREEMPTED = 3
DIVERGED = 4
PEER_LOST = 134

FINAL = (DONE, USER_ERROR, DIVERGED)


def exit_code(status: int) -> int:
    """A process's exit code as a shell tells it: 128 + n where signal n ended it (Popen says -n)."""
    return 128 - status if status < 0 else status


def group_code(codes: Sequence[int]) -> int:
    """One exit code for processes that ran together.

    What must not be restarted wins over all else, since a peer's fault makes the others end by other codes. 134 only
    says that somebody else went first, so any other failure says more.
    """
    for final in (USER_ERROR, DIVERGED):
        if final in codes:
            return final
    failed = [code for code in codes if code != DONE]
    if not failed:
        return DONE
    told = [code for code in failed if code not in (PREEMPTED, PEER_LOST)]
    return told[0] if told else max(failed)


@dataclass
class RestartPolicy:
    """How long to wait before the next start; gives up after too many quick failures in a row.

    A preemption is no failure, however often it comes. Neither does a failure count with those before it if the
    command ran for `healthy_seconds` in between: then it made progress and saved it.
    """

    wait_seconds: float = 10
    longest_wait_seconds: float = 600
    max_failures: int = 5
    healthy_seconds: float = 600
    failures: int = 0

    def pause(self, code: int, ran_seconds: float) -> float | None:
        """Seconds to wait before the same command is started again, or None when it is over."""
        if code in FINAL:
            return None
        if code == PREEMPTED:
            self.failures = 0
            # Not at once, if it was sent away as soon as it had come.
            return 0 if ran_seconds >= self.healthy_seconds else self.wait_seconds
        self.failures = 1 if ran_seconds >= self.healthy_seconds else self.failures + 1
        if self.failures > self.max_failures:
            return None
        return min(self.longest_wait_seconds, self.wait_seconds * 2.0 ** (self.failures - 1))


def add_policy_flags(parser) -> None:
    """The policy's numbers as flags of a launcher."""
    policy = RestartPolicy()
    group = parser.add_argument_group("starting again")
    group.add_argument("--wait-seconds", type=float, default=policy.wait_seconds, help="first wait; it doubles")
    group.add_argument("--longest-wait-seconds", type=float, default=policy.longest_wait_seconds)
    group.add_argument("--max-failures", type=int, default=policy.max_failures, help="quick ones in a row")
    group.add_argument(
        "--healthy-seconds", type=float, default=policy.healthy_seconds, help="a run this long is no quick failure"
    )


def policy_from(flags) -> RestartPolicy:
    return RestartPolicy(flags.wait_seconds, flags.longest_wait_seconds, flags.max_failures, flags.healthy_seconds)


def supervise(attempt: Callable[[], int], policy: RestartPolicy, sleep: Callable[[float], None] = time.sleep) -> int:
    """Calls `attempt`, which runs the command to its end, until the policy says that it is over; the last code."""
    while True:
        began = time.monotonic()
        code = attempt()
        pause = policy.pause(code, time.monotonic() - began)
        if pause is None:
            if code not in FINAL:
                say(f"exit code {code}: given up after {policy.failures} quick failures in a row")
            return code
        say(f"exit code {code}: the same command again in {pause:g} s")
        sleep(pause)
