"""The work that is left, and its doing: one after the other, or side by side in processes on cores of their own."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from functools import partial
from multiprocessing import get_context, parent_process
from typing import Any

import jax

from benchmarks.learning.answering import baselines, probe_baseline, run_arm
from benchmarks.learning.experiment import Experiment, cells, is_done
from benchmarks.learning.material import Material, prepare
from musicssl_jax.errors import PREEMPTED, TrainingStopped
from musicssl_jax.programs import keep_programs

Job = Callable[[Experiment, Material], None]
Say = Callable[[str], None]


def jobs_left(experiment: Experiment, material: Material, say: Say) -> list[Job]:
    """What is not done yet: arms, then baselines."""
    arms = [
        partial(run_arm, arm=arm, seed=seed, say=say)
        for arm, seed in cells(experiment)
        if not is_done(experiment, arm, seed)
    ]
    missing = [name for name in baselines(experiment, material) if not experiment.baseline_file(name).exists()]
    return [*arms, *(partial(probe_baseline, name=name, say=say) for name in missing)]


def do_all(experiment: Experiment, material: Material, jobs: list[Job], processes: int) -> None:
    """Side by side, each process keeps to a core of its own: small programs leave a second core half idle.

    Raises TrainingStopped when time is up.
    """
    if processes == 1 or len(jobs) < 2:
        for job in jobs:
            experiment.pause()
            job(experiment, material)
        return
    context = get_context("spawn")
    cores = context.Queue()
    for core in sorted(os.sched_getaffinity(0))[:processes]:
        cores.put(core)
    with ProcessPoolExecutor(processes, context, _begin, (experiment, cores)) as pool:
        futures = [pool.submit(_run, experiment, job) for job in jobs]
        done, waiting = wait(futures, return_when=FIRST_EXCEPTION)
        for future in waiting:
            future.cancel()
        in_time = [future.result() for future in done]
    if not all(in_time):
        raise TrainingStopped(PREEMPTED, "time is up: the same command goes on")


_shared: dict[str, Material] = {}
"""What a process's jobs have in common."""


def _begin(experiment: Experiment, cores: Any) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.sched_setaffinity(0, {cores.get()})
    jax.config.update("jax_platforms", "cpu")
    keep_programs()
    _shared["material"] = prepare(experiment, lambda _: None)


def _end_with_parent() -> None:
    """A job takes minutes, and a command that was killed cannot end its processes."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _run(experiment: Experiment, job: Job) -> bool:
    """Whether there was time for it."""
    try:
        experiment.pause()
        job(experiment, _shared["material"])
    except TrainingStopped:
        return False
    return True
