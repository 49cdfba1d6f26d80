"""How a command ends when it cannot go on; the exit codes are part of the interface."""

from collections.abc import Sequence

DONE = 0
USER_ERROR = 2
PREEMPTED = 3
DIVERGED = 4
PEER_LOST = 134  # JAX's own when another process is gone; what starts runs starts them again

MAX_LISTED = 8


class UserError(Exception):
    """The user's input is at fault. The message says what, where, and what to do; no traceback.

    Commands turn it into one line on stderr and exit code 2.
    """


class TrainingStopped(Exception):
    """The run ended itself, and what it had is saved: `code` is PREEMPTED, DIVERGED or PEER_LOST."""

    def __init__(self, code: int, message: str):
        super().__init__(message)
        self.code = code


def shortened(items: Sequence[str]) -> str:
    """The first of a message's items, and how many more there are."""
    more = f"; and {len(items) - MAX_LISTED} more" if len(items) > MAX_LISTED else ""
    return "; ".join(items[:MAX_LISTED]) + more
