"""Other programs, run or (with --dry-run) only printed; and how a launcher reads its arguments and ends.

Standard library alone: launchers run on laptops and login nodes where the package is not installed.
"""

import argparse
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

USER_ERROR = 2
INTERRUPTED = 130


class LaunchError(Exception):
    """What a launcher cannot mend by itself: one line on stderr, and `code` is how the launcher ends."""

    def __init__(self, message: str, code: int = USER_ERROR):
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Answer:
    """What a program said and how it ended."""

    code: int = 0
    out: str = ""
    err: str = ""

    @property
    def complaint(self) -> str:
        """The line that says what was wrong: the last one with `error:`, or else the last one of all.

        gcloud goes on after it, with advice.
        """
        lines = (self.err.strip() or self.out.strip()).splitlines() or [f"exit code {self.code}, and not a word"]
        errors = [line for line in lines if "error:" in line.lower()]
        return (errors or lines)[-1].strip()


class Commands:
    """Runs programs one after the other; a dry run prints each as a shell would take it, and runs nothing.

    In a dry run `dry` stands in for the program's answer, so that the very code that would run decides what is
    printed: it shows the commands of a smooth run.
    """

    def __init__(self, dry_run: bool):
        self.dry_run = dry_run

    def say(self, *lines: str) -> None:
        """Progress of what really happens: a dry run has none."""
        if not self.dry_run:
            say(*lines)

    def run(self, argv: Sequence[str], *, dry: Answer = Answer()) -> Answer:
        if self.dry_run:
            print(shlex.join(argv), flush=True)
            return dry
        if shutil.which(argv[0]) is None:
            raise LaunchError(f"{argv[0]} was not found on the PATH; install it, or see what it would do: --dry-run")
        # A session of its own: Ctrl-C is for the launcher to act on, not for a half-done `create` or `delete`.
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", start_new_session=True
        )
        return Answer(done.returncode, done.stdout, done.stderr)


class Parser(argparse.ArgumentParser):
    """argparse whose complaints are one line, with whole flags only; what stands behind `--` is the command."""

    def __init__(self, doc: str | None):
        super().__init__(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
        self.add_argument("--dry-run", action="store_true", help="print the exact commands, one a line; run none")

    def error(self, message: str) -> NoReturn:
        raise LaunchError(f"{message} (see {self.prog} --help)")

    def split(self, argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
        """The flags, and the command behind `--` (empty if there is none)."""
        at = list(argv).index("--") if "--" in argv else len(argv)
        return self.parse_args(argv[:at]), list(argv[at + 1 :])


def need_command(command: list[str]) -> list[str]:
    """The command itself. Raises LaunchError if nothing stood behind `--`."""
    if not command:
        raise LaunchError("nothing to start: put the command behind --, as in `-- musicssl train --config=...`")
    return command


def say(*lines: str) -> None:
    """Progress goes to stderr: stdout is for what other programs may read."""
    print(*lines, sep="\n", file=sys.stderr, flush=True)


def launch(main: Callable[[list[str]], int]) -> int:
    """Runs `main` on the process's arguments and returns the exit code; SIGTERM interrupts as Ctrl-C does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return main(sys.argv[1:])
    except LaunchError as error:
        say("error: " + " ".join(str(error).split()))
        return error.code
    except KeyboardInterrupt:
        say("interrupted")
        return INTERRUPTED
