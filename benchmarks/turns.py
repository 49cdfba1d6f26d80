"""Programs that are timed in turns, each in a process of its own: memory, threads and allocators are apart."""

import atexit
import json
import math
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from musicssl_jax.errors import PREEMPTED, TrainingStopped, UserError


class Side:
    """The functions of a module that `serve`s them, in its own process.

    It stands still while it is not asked: threads that spin while they wait would take the cores from the other side.
    until: of `time.monotonic`, when it has to have answered.
    """

    def __init__(self, module: str, until: float = math.inf, **environment: str):
        self.module = module
        self._until = until
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
        )
        atexit.register(self.close)  # one that stands still would not end by itself

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, function: str, **arguments: Any) -> Any:
        """What the function returns. UserError: it failed, or the process ended. TrainingStopped: time is up."""
        assert self._process.stdin and self._process.stdout
        self._process.send_signal(signal.SIGCONT)
        try:
            print(json.dumps([function, arguments]), file=self._process.stdin, flush=True)
            self._wait()
            said = self._process.stdout.readline()
        except BrokenPipeError:
            said = ""
        answer = json.loads(said) if said else {"error": f"ended with code {self._process.wait()}"}
        self._process.send_signal(signal.SIGSTOP)
        if "error" in answer:
            raise UserError(f"{self.module}: {answer['error']}")
        return answer["answer"]

    def _wait(self) -> None:
        """Until the process says something, or ends."""
        left = None if math.isinf(self._until) else max(0.0, self._until - time.monotonic())
        if not select.select([self._process.stdout], [], [], left)[0]:
            self._process.kill()
            raise TrainingStopped(PREEMPTED, "time is up: the same command goes on")

    def close(self) -> None:
        """Ends the process."""
        self._process.send_signal(signal.SIGCONT)
        if self._process.stdin and not self._process.stdin.closed:
            self._process.communicate()


def serve(functions: Mapping[str, Callable]) -> None:
    """Answers a `Side` until it closes."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no answer
    for line in sys.stdin:
        function, arguments = json.loads(line)
        try:
            answer = {"answer": functions[function](**arguments)}
        except Exception as error:  # a failed setting is a result as well
            answer = {"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
        print(json.dumps(answer), file=answers, flush=True)


def turns(sides: int, repeats: int) -> Iterator[tuple[int, int]]:
    """(turn, side), both from 0; who begins changes from turn to turn."""
    for turn in range(repeats):
        for place in range(sides)[:: 1 if turn % 2 else -1]:
            yield turn, place


def timed(work: Callable[[], Any]) -> dict[str, float]:
    """`seconds` that it takes, and `cpu_seconds` of all threads and of child processes that ended meanwhile."""
    began, spent = time.perf_counter(), sum(os.times()[:4])
    work()
    return {"seconds": round(time.perf_counter() - began, 4), "cpu_seconds": round(sum(os.times()[:4]) - spent, 2)}


def memory() -> int:
    """Most bytes that this process has held, without child processes.

    Of Linux's /proc: getrusage's begin with what the process had that started this one.
    """
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) * 1024
