"""Commands of ours as processes of their own, as a user would give them."""

import contextlib
import fcntl
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from musicssl_jax.errors import PREEMPTED, TrainingStopped, UserError
from musicssl_jax.signals import stop_signals

_LOOK_EVERY = 0.2  # seconds


@contextlib.contextmanager
def only_study(folder: Path) -> Iterator[int]:
    """Makes the folder and locks it; gives the lock's descriptor. The processes it is handed to hold the lock too: a
    study that was killed is at work for as long as the command that it ran.

    Raises UserError: another study is at work there, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "lock", "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f"another study, or a command that it ran, is at work on {folder}") from None
            yield file.fileno()
    except OSError as error:
        raise UserError(f"cannot write {error.filename or folder}: {error.strerror or error}") from None


def run_module(module: str, arguments: Sequence[str], lock: int) -> int:
    """Runs `python -m module arguments` to its end and gives its exit code; it holds the `lock`.

    SIGTERM and Ctrl-C are handed on, so that a run ends with a checkpoint. Raises TrainingStopped: so it did.
    """
    command = [sys.executable, "-m", module, *arguments]
    print("$ python", *command[1:], flush=True)
    with stop_signals() as signals:
        # In a session of its own, lest Ctrl-C reach it twice: a second signal ends a run at once.
        process = subprocess.Popen(command, start_new_session=True, pass_fds=[lock])
        try:
            told = False
            while process.poll() is None:
                if signals and not told:
                    process.send_signal(signal.SIGTERM)
                    told = True
                time.sleep(_LOOK_EVERY)
        finally:
            if process.poll() is None:
                process.kill()
    if signals or process.returncode == PREEMPTED:
        raise TrainingStopped(PREEMPTED, "the study was stopped; the same command goes on")
    return process.returncode
