"""Training on one machine with several GPUs, or tried out on its CPU; started again when it was preempted or crashed.

    python launch/one_host.py -- musicssl train --config=configs/music2vec.py:base --config.data.path=DATA --workdir=RUN
    python launch/one_host.py --processes=4 -- musicssl train ...
    python launch/one_host.py --processes=2 --platform=cpu -- musicssl train ...

By default one process drives all GPUs, which is what JAX does by itself and the right choice on most machines. With
--processes=N there are N of them, each with an equal share of the GPUs (CUDA_VISIBLE_DEVICES); each is told its number
by MUSICSSL_PROCESS_ID and MUSICSSL_NUM_PROCESSES, and the command gets --distributed=127.0.0.1:PORT. SIGTERM and Ctrl-C
are handed on once, as SIGTERM, and the launcher waits for the checkpoint; a second one kills.

The same command is started again on all exit codes but 0, 2 and 4. The launcher ends with the command's exit code.

Costs: GPUs x hours x the price of a GPU-hour, on your own machine its power: the launcher holds the GPUs only while
the command runs, a rented machine costs until you give it back. Prices change: look at your provider's list.
"""

import glob
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

from commands import LaunchError, Parser, launch, need_command, say
from supervise import DONE, add_policy_flags, exit_code, group_code, policy_from, supervise

LOOPBACK = "127.0.0.1"


def visible_gpus(asked: str | None) -> list[str]:
    """The GPUs' numbers: those asked for, or CUDA_VISIBLE_DEVICES, or as many as there are device files.

    Counting files runs no program, so that a dry run says the same.
    """
    named = asked if asked is not None else os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    return [str(number) for number in range(len(glob.glob("/dev/nvidia[0-9]*")))]


def free_port() -> int:
    """A port that was free just now: an old one may still be in use right after a restart."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return probe.getsockname()[1]


def environments(processes: int, platform: str, gpus: Sequence[str]) -> list[dict[str, str]]:
    """What each process has in its environment beside the launcher's own. Raises LaunchError."""
    common = {"JAX_PLATFORMS": "cpu"} if platform == "cpu" else {}
    if processes == 1:
        return [common | ({"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if platform == "gpu" and gpus else {})]
    if platform == "gpu" and (not gpus or len(gpus) % processes):
        raise LaunchError(
            f"{processes} processes cannot share {len(gpus)} GPUs equally; choose --processes or --gpus=0,1,.. so that "
            "they do, or try it out with --platform=cpu"
        )
    share = len(gpus) // processes
    each = []
    for number in range(processes):
        own = {"MUSICSSL_NUM_PROCESSES": str(processes), "MUSICSSL_PROCESS_ID": str(number)}
        if platform == "gpu":
            own["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[number * share : (number + 1) * share])
        each.append(common | own)
    return each


def command_line(command: list[str], processes: int, port: int) -> list[str]:
    """The command of every process: with several, it is told where process 0 listens."""
    if processes == 1:
        return command
    if any(word.split("=")[0] == "--distributed" for word in command):
        raise LaunchError("leave --distributed out of the command: with --processes the launcher sets it")
    return [*command, f"--distributed={LOOPBACK}:{port or free_port()}"]


class Stopped(Exception):
    """A signal ended the group; `code` is what it ended with."""

    def __init__(self, code: int):
        super().__init__(code)
        self.code = code


class Host:
    """The processes of one start after the other, and the signals that came for them."""

    def __init__(self, grace_seconds: float, poll_seconds: float):
        self.grace_seconds = grace_seconds
        self.poll_seconds = poll_seconds
        self.signals = 0
        self.last_code = DONE
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._count)

    def _count(self, *_) -> None:
        self.signals += 1

    def run(self, command: list[str], each: Sequence[dict[str, str]]) -> int:
        """Runs `command` once for each environment until all have ended. Raises LaunchError or Stopped."""
        self._leave_if_stopped()
        # Sessions of their own: the terminal's Ctrl-C must not reach them beside the SIGTERM that is handed on,
        # since a second signal ends a run without a checkpoint.
        children: list[subprocess.Popen] = []
        try:
            for own in each:
                children.append(subprocess.Popen(command, env=os.environ | own, start_new_session=True))
            self._wait(children)
        except OSError as error:
            raise LaunchError(f"{command[0]} cannot be started: {error.strerror}") from error
        finally:
            kill(children)
        self.last_code = group_code([exit_code(child.wait()) for child in children])
        self._leave_if_stopped()
        return self.last_code

    def _wait(self, children: Sequence[subprocess.Popen]) -> None:
        """Until all have ended, or those that are left had `grace_seconds` after a signal or the first failure."""
        told = False
        deadline = float("inf")
        while any(child.poll() is None for child in children):
            if self.signals and not told:
                told = True
                for child in children:
                    child.send_signal(signal.SIGTERM)
            if told or any(child.returncode for child in children):
                deadline = min(deadline, time.monotonic() + self.grace_seconds)
            if self.signals > 1 or time.monotonic() > deadline:
                say("killing those that are still running")
                return
            time.sleep(self.poll_seconds)

    def _leave_if_stopped(self) -> None:
        if self.signals:
            raise Stopped(self.last_code)

    def sleep(self, seconds: float) -> None:
        """Waits, but not through a signal. Raises Stopped."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._leave_if_stopped()
            time.sleep(min(left, self.poll_seconds))


def kill(children: Sequence[subprocess.Popen]) -> None:
    """Those that are left, with the workers that they have started."""
    for child in children:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)


def read_flags(argv: Sequence[str]):
    parser = Parser(__doc__)
    parser.add_argument("--processes", type=int, default=1, help="1: one process drives all devices (default)")
    parser.add_argument("--platform", choices=("gpu", "cpu"), default="gpu")
    parser.add_argument("--gpus", help="their numbers, as 0,1,2,3 (default: all that are visible)")
    parser.add_argument("--port", type=int, default=0, help="where process 0 listens (default: one that is free)")
    parser.add_argument("--grace-seconds", type=float, default=180, help="for a checkpoint, after a signal or failure")
    parser.add_argument("--poll-seconds", type=float, default=0.2)
    add_policy_flags(parser)
    flags, command = parser.split(argv)
    if flags.processes < 1:
        parser.error(f"--processes={flags.processes}: at least 1")
    return flags, need_command(command)


def print_commands(command: list[str], each: Sequence[dict[str, str]]) -> None:
    for own in each:
        settings = ["env", *(f"{name}={value}" for name, value in own.items())] if own else []
        print(shlex.join([*settings, *command]))


def main(argv: list[str]) -> int:
    flags, command = read_flags(argv)
    each = environments(flags.processes, flags.platform, visible_gpus(flags.gpus))
    command_line(command, flags.processes, flags.port)
    if flags.dry_run:
        print_commands(command_line(command, flags.processes, flags.port), each)
        return DONE
    host = Host(flags.grace_seconds, flags.poll_seconds)

    def attempt() -> int:
        return host.run(command_line(command, flags.processes, flags.port), each)

    try:
        return supervise(attempt, policy_from(flags), host.sleep)
    except Stopped as stop:
        return stop.code


if __name__ == "__main__":
    sys.exit(launch(main))
