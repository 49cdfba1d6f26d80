"""Runs functions in child processes that may crash or hang without taking the rest along.

`concurrent.futures` gives up the whole pool when one worker dies, and cannot stop a call that hangs in C.
Workers are plain `python -c` processes, never forks and never re-imports of `__main__`: the parent may have
JAX, threads or a notebook in it, and a worker loads only what the function it was sent needs.
"""

import collections
import contextlib
import math
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any

_ATTEMPTS = 2  # a worker may die for reasons outside its job (another program took the memory, a stray signal)


@dataclass(frozen=True)
class Died:
    """What `WorkerPool.next` gives in place of a result: the process ended (`hung` is False) or was
    stopped.
    """

    hung: bool
    detail: str


class JobError(RuntimeError):
    """A job raised an exception that is not the user's fault; the message is the worker's traceback."""


@dataclass(frozen=True)
class _Job:
    key: Hashable
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    attempt: int = 1


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    connection: Connection
    job: _Job | None = None
    started: bool = False
    last_sign: float = math.inf  # of its job; infinite until it began, since imports may take their time


class WorkerPool:
    """Up to `workers` processes. A job that shows no progress for `time_limit` seconds is stopped.

    A job is `function(*arguments, progress)`: a function importable by name whose last argument is called
    with a number now and then, to say that it is alive and how far it is. `on_progress(key, number)` in the
    parent gets these, a few a second at most.
    """

    def __init__(
        self,
        workers: int,
        time_limit: float,
        on_progress: Callable[[Hashable, float], None] = lambda key, amount: None,
    ):
        self._limit = time_limit
        self._size = workers
        self._on_progress = on_progress
        self._queue: collections.deque[_Job] = collections.deque()
        self._workers: list[_Worker] = []

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the processes, whatever they are at."""
        for worker in list(self._workers):
            self._retire(worker)

    @property
    def busy(self) -> bool:
        """Whether a result is still to come."""
        return bool(self._queue) or any(worker.job for worker in self._workers)

    def submit(self, key: Hashable, function: Callable[..., Any], *arguments: Any, urgent: bool = False) -> None:
        job = _Job(key, function, arguments)
        self._queue.appendleft(job) if urgent else self._queue.append(job)

    def next(self) -> tuple[Hashable, Any]:
        """The key and result of the next job to end, in whatever order they end; `Died` where the worker
        was lost.

        Raises what the job raised if that is a `UserError`, and `JobError` for anything else.
        """
        while True:
            self._hand_out()
            ready = wait([w.connection for w in self._workers if w.job], timeout=self._patience())
            for worker in [w for w in self._workers if w.connection in ready]:
                ended = self._hear(worker)
                if ended is not None:
                    return ended
            for worker in [w for w in self._workers if w.job and self._remaining(w) <= 0]:
                job = self._retire(worker)
                return job.key, Died(hung=True, detail=f"no progress for {self._limit:g} s")

    def _hand_out(self) -> None:
        while self._queue:
            worker = next((w for w in self._workers if w.job is None), None)
            if worker is None:
                if len(self._workers) >= self._size:
                    return
                worker = _start_worker()
                self._workers.append(worker)
            worker.job = self._queue.popleft()
            worker.last_sign = math.inf
            with contextlib.suppress(OSError):  # it died while it was idle: `_hear` meets the end of its pipe
                worker.connection.send((worker.job.function, worker.job.arguments))

    def _remaining(self, worker: _Worker) -> float:
        return worker.last_sign + self._limit - time.monotonic()

    def _patience(self) -> float | None:
        remaining = min(self._remaining(w) for w in self._workers if w.job)
        return None if remaining == math.inf else max(0.0, remaining)

    def _hear(self, worker: _Worker) -> tuple[Hashable, Any] | None:
        assert worker.job is not None
        try:
            kind, value = worker.connection.recv()
        except (EOFError, OSError):
            return self._lost(worker)
        worker.last_sign = time.monotonic()
        if kind == "started":
            worker.started = True
            return None
        if kind == "progress":
            self._on_progress(worker.job.key, value)
            return None
        job, worker.job = worker.job, None
        if kind == "raised":
            error, report = value
            raise error if error is not None else JobError(report)
        return job.key, value

    def _lost(self, worker: _Worker) -> tuple[Hashable, Any] | None:
        job = self._retire(worker)
        if not worker.started:
            raise JobError(f"a worker process cannot start (exit code {worker.process.returncode})")
        if job.attempt < _ATTEMPTS:
            self._queue.appendleft(_Job(job.key, job.function, job.arguments, job.attempt + 1))
            return None
        code = worker.process.returncode
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return job.key, Died(hung=False, detail=f"its process died {_ATTEMPTS} times ({how})")

    def _retire(self, worker: _Worker) -> Any:
        self._workers.remove(worker)
        worker.connection.close()  # a worker ends with its pipe, unless it hangs holding the GIL
        try:
            worker.process.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()
        return worker.job


def _start_worker() -> _Worker:
    ours, theirs = Pipe()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    program = f"from data_pipelines.pool import _serve; _serve({theirs.fileno()})"
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=[theirs.fileno()],
        env=environment,
        start_new_session=True,  # Ctrl-C is the parent's to handle
    )
    theirs.close()
    return _Worker(process, ours)


def _serve(descriptor: int) -> None:
    """What a worker process runs: jobs from the parent until the parent is gone."""
    from musicssl_jax.errors import UserError

    connection = Connection(descriptor)
    jobs: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def listen() -> None:
        # A thread of its own sees the parent's end even while a job hangs.
        try:
            while True:
                jobs.put(connection.recv_bytes())
        except (EOFError, OSError):
            os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    # Decoders print their complaints on stderr; what matters of them comes back as a reason.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    last_sign = 0.0

    def progress(amount: float) -> None:
        nonlocal last_sign
        if time.monotonic() - last_sign > 0.2:
            last_sign = time.monotonic()
            connection.send(("progress", amount))

    while True:
        job = jobs.get()
        try:
            function, arguments = pickle.loads(job)  # imports what the function needs
            connection.send(("started", None))
            result = ("done", function(*arguments, progress))
        except UserError as error:
            result = ("raised", (error, ""))
        except Exception:
            result = ("raised", (None, traceback.format_exc()))
        connection.send(result)
