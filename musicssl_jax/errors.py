"""How a command ends when it cannot go on; the exit codes are part of the interface."""

DONE = 0
USER_ERROR = 2
PREEMPTED = 3
DIVERGED = 4


class UserError(Exception):
    """The user's input is at fault. The message says what, where, and what to do; no traceback.

    Commands turn it into one line on stderr and exit code 2.
    """


class TrainingStopped(Exception):
    """The run ended itself, with a checkpoint: `code` is PREEMPTED or DIVERGED."""

    def __init__(self, code: int, message: str):
        super().__init__(message)
        self.code = code
