"""How every command starts and ends: its arguments, its exit code and the one line about what went wrong."""

import argparse
import math
import os
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


def count_of(things: str) -> Callable[[str], int]:
    """A flag's type: how many, at least 1. The function raises ArgumentTypeError."""

    def count(text: str) -> int:
        if not text.isdecimal() or int(text) < 1:
            raise argparse.ArgumentTypeError(f"{text}: want a number of {things}, at least 1")
        return int(text)

    return count


def positive(most: float) -> Callable[[str], float]:
    """A flag's type: a number above 0, at most `most`. The function raises ArgumentTypeError."""

    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 < value <= most:
            raise argparse.ArgumentTypeError(f"{text}: want a number above 0, at most {most:g}")
        return value

    return number


def run_command(main: Callable[[list[str]], int | None], argv: Sequence[str] | None = None) -> int:
    """Runs `main(argv)` and returns the exit code of the process.

    The user's mistakes and planned stops end in one line on stderr; a bug keeps its traceback. One of several processes
    that meets a mistake ends at once: at JAX's own end it would wait for the others, and then abort with another code.
    """
    _mark_absl_flags_parsed()
    try:
        return main(list(sys.argv[1:] if argv is None else argv)) or DONE
    except UserError as error:
        code = _end(USER_ERROR, f"error: {error}")
        if _is_one_of_several():
            os._exit(code)
        return code
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


def _is_one_of_several() -> bool:
    jax = sys.modules.get("jax")
    return bool(jax and jax.distributed.is_initialized() and jax.process_count() > 1)


def _end(code: int, message: str) -> int:
    print(" ".join(message.split()), file=sys.stderr, flush=True)
    return code
