"""The workers of a slice, over SSH: install, start, ask, stop. Small shell programs that run on every worker.

A run is detached from the SSH connection that starts it, so that a lost connection (or a launcher that died) does not
end it: a folder on each worker holds the process's number, its log and, once it has ended, its exit code.
"""

import re
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

from commands import Answer, Commands, LaunchError

FOLDER = "$HOME/musicssl-launch"
VENV = "$HOME/musicssl"

# Started by sh -c, with the command as its arguments. The inner shell becomes the command, so its number is the
# command's; the outer one outlives it and keeps the exit code, which appears at once and whole.
KEEPER = (
    f'PATH="{VENV}/bin:$HOME/.local/bin:$PATH"; export PATH; cd "$HOME"; '
    f'sh -c \'echo $$ > "{FOLDER}/pid"; exec "$@"\' sh "$@" >> "{FOLDER}/log" 2>&1; '
    f'echo $? > "{FOLDER}/code.new"; mv "{FOLDER}/code.new" "{FOLDER}/code"'
)

ALIVE = f'[ -s "{FOLDER}/pid" ] && kill -0 "$(cat "{FOLDER}/pid")" 2>/dev/null'

POLL = (
    f'if [ -s "{FOLDER}/code" ]; then echo "musicssl-launch: exit $(cat "{FOLDER}/code")"; '
    f'elif {ALIVE}; then echo "musicssl-launch: running"; '
    f'elif [ -e "{FOLDER}/pid" ]; then echo "musicssl-launch: lost"; '
    'else echo "musicssl-launch: idle"; fi'
)

SAID = re.compile(r"musicssl-launch: (?:exit ([0-9]+)|(running|lost|idle))")

# Of what pip said when it failed.
SHOWN_LINES = 20

# The process was there and is not, and left no exit code: the worker was restarted under it.
LOST = 137


def signal_line(name: str) -> str:
    return f'if {ALIVE}; then kill -{name} "$(cat "{FOLDER}/pid")"; fi'


def start_line(command: Sequence[str]) -> str:
    """Starts the command unless it runs; succeeds once it has a number. May be repeated."""
    return (
        f'mkdir -p "{FOLDER}"; if {ALIVE}; then exit 0; fi; rm -f "{FOLDER}/pid" "{FOLDER}/code"; '
        f"nohup setsid sh -c {shlex.quote(KEEPER)} musicssl-launch {shlex.join(command)} "
        f">/dev/null 2>&1 </dev/null & "
        f'n=0; while [ ! -s "{FOLDER}/pid" ] && [ $n -lt 100 ]; do sleep 0.1; n=$((n + 1)); done; [ -s "{FOLDER}/pid" ]'
    )


def install_line(requirement: str, python: str) -> str:
    """Python from uv, since the images' own is older than JAX needs."""
    return (
        "python3 -m pip install --quiet --user uv && "
        f'"$HOME/.local/bin/uv" venv --quiet --allow-existing --python {shlex.quote(python)} "{VENV}" && '
        f'"$HOME/.local/bin/uv" pip install --quiet --python "{VENV}/bin/python" {requirement}'
    )


class Workers:
    """All workers of one slice."""

    def __init__(self, commands: Commands, name: str, where: Sequence[str]):
        self.commands = commands
        self.name = name
        self.where = list(where)

    def ssh(self, line: str, dry: str = "") -> Answer:
        return self.commands.run(
            ["gcloud", "compute", "tpus", "tpu-vm", "ssh", self.name, *self.where, "--worker=all", "--quiet",
             f"--command={line}"],
            dry=Answer(out=dry),
        )  # fmt: skip

    def insist(self, line: str, tries: int, wait_seconds: float) -> bool:
        """True once `line` has succeeded on all workers: SSH is refused for a while after a slice came up."""
        for number in range(tries):
            if self.ssh(line).code == 0:
                return True
            if number + 1 < tries:
                time.sleep(wait_seconds)
        return False

    def install(self, wheel: Path | None, package: str | None, extras: str, python: str) -> None:
        """Raises LaunchError if pip does: what cannot be installed once cannot be the next time."""
        requirement = shlex.quote(package or "")
        if wheel:
            line = ["gcloud", "compute", "tpus", "tpu-vm", "scp", str(wheel), f"{self.name}:", *self.where,
                    "--worker=all", "--quiet"]  # fmt: skip
            self._must(self.commands.run(line), "the wheel could not be copied")
            requirement = f'"$HOME/{wheel.name}[{extras}]"'
        self.commands.say(f"{self.name}: installing")
        self._must(self.ssh(install_line(requirement, python)), "installing failed")

    def signal(self, name: str) -> None:
        self.ssh(signal_line(name))

    def states(self, dry: str = "exit 0") -> list[int | str] | None:
        """Of each worker its exit code, or running, or idle; None if not all could be asked."""
        answer = self.ssh(POLL, dry=f"musicssl-launch: {dry}")
        if answer.code:
            return None
        found = [int(code) if code else word for code, word in SAID.findall(answer.out)]
        return [LOST if state == "lost" else state for state in found] or None

    def _must(self, answer: Answer, what: str) -> None:
        if answer.code:
            self.commands.say(*answer.err.splitlines()[-SHOWN_LINES:])
            raise LaunchError(f"{self.name}: {what}: {answer.complaint}")
