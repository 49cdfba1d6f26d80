"""How every command starts and ends: its arguments, its exit code and the one line about what went wrong."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from musicssl_jax.errors import DONE, USER_ERROR, TrainingStopped, UserError

INTERRUPTED = 130


class ArgumentParser(argparse.ArgumentParser):
    """argparse whose complaints are `UserError`s, and whose flags are never abbreviated."""

    def __init__(self, **options):
        super().__init__(**{"allow_abbrev": False, **options})

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")


def run_command(main: Callable[[list[str]], int | None], argv: Sequence[str] | None = None) -> int:
    """Runs `main(argv)` and returns the exit code of the process.

    The user's mistakes and planned stops end in one line on stderr; a bug keeps its traceback.
    """
    _mark_absl_flags_parsed()
    try:
        return main(list(sys.argv[1:] if argv is None else argv)) or DONE
    except UserError as error:
        return _end(USER_ERROR, f"error: {error}")
    except TrainingStopped as stop:
        return _end(stop.code, f"stopped: {stop}")
    except KeyboardInterrupt:
        return _end(INTERRUPTED, "interrupted")


def _mark_absl_flags_parsed() -> None:
    """Grain reads absl flags and refuses to start workers before somebody has parsed them."""
    try:
        from absl import flags
    except ImportError:  # `musicssl doctor` has to run where half of the packages are missing
        return
    flags.FLAGS.mark_as_parsed()


def _end(code: int, message: str) -> int:
    print(" ".join(message.split()), file=sys.stderr)
    return code
