"""Exit codes, the one line on stderr, and a help that does not wait for JAX."""

import subprocess
import sys

import pytest

from musicssl_jax.cli import COMMANDS, dispatch
from musicssl_jax.command import run_command
from musicssl_jax.errors import DIVERGED, PREEMPTED, TrainingStopped, UserError


def _raise(error: BaseException):
    def main(argv):
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("no such folder: there\n  really"), 2, "error: no such folder: there really\n"),
        (TrainingStopped(PREEMPTED, "saved step 7"), 3, "stopped: saved step 7\n"),
        (TrainingStopped(DIVERGED, "collapsed"), 4, "stopped: collapsed\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_planned_ends_are_one_line_and_a_code(error, code, line, capsys):
    assert run_command(_raise(error), []) == code
    printed = capsys.readouterr()
    assert printed.err == line
    assert printed.out == ""


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run_command(_raise(ZeroDivisionError()), [])


def test_a_command_that_returns_nothing_is_done():
    assert run_command(lambda argv: None, []) == 0


def test_commands_can_read_absl_flags_as_grain_does():
    program = (
        "from absl import flags\n"
        "from musicssl_jax.command import run_command\n"
        "run_command(lambda argv: print(flags.FLAGS.is_parsed()), [])\n"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert shown.stdout == "True\n"


def test_unknown_commands_are_refused_with_the_nearest_name():
    with pytest.raises(UserError, match="'trian'; did you mean train"):
        dispatch(["trian"])
    with pytest.raises(UserError, match="build, train"):
        dispatch(["xyzzy"])


def test_help_names_every_command_and_loads_none():
    program = (
        "import sys\n"
        "from musicssl_jax.cli import main\n"
        "code = main()\n"
        "heavy = {'jax', 'numpy', 'absl.app', 'ml_collections'} & sys.modules.keys()\n"
        "assert not heavy, heavy\n"
        "sys.exit(code)\n"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert shown.returncode == 0, shown.stderr
    for command in COMMANDS:
        assert f"  {command} " in shown.stdout


def test_mistakes_end_the_process_with_code_2_and_one_line():
    ended = subprocess.run(
        [sys.executable, "-m", "musicssl_jax", "doctor", "--all"], capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr == "error: unrecognized arguments: --all (see musicssl doctor --help)\n"
