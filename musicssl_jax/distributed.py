"""Start-up of a job of several processes: the same command on every host, told apart by what the cluster says.

`--distributed=auto` joins the others on Cloud TPU, GKE, Slurm and Open MPI, and does nothing elsewhere; `off` never
does; HOST:PORT joins by hand, with MUSICSSL_NUM_PROCESSES and MUSICSSL_PROCESS_ID in the environment of each process.
"""

import argparse
import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path

import jax

from musicssl_jax.errors import PEER_LOST, TrainingStopped, UserError

COUNT, NUMBER = "MUSICSSL_NUM_PROCESSES", "MUSICSSL_PROCESS_ID"
HEARTBEAT_SECONDS = 100  # JAX's own
JOIN_SECONDS = 300


def distributed_flags(parser: argparse.ArgumentParser) -> None:
    """Adds --distributed and --heartbeat, which `join` takes."""
    group = parser.add_argument_group("several processes")
    group.add_argument(
        "--distributed",
        default="auto",
        metavar="auto|off|HOST:PORT",
        help="auto: joins the other processes on Cloud TPU, GKE, Slurm and Open MPI. HOST:PORT: of process 0, with "
        f"{COUNT} and {NUMBER} in the environment (default %(default)s)",
    )
    group.add_argument(
        "--heartbeat",
        type=int,
        default=HEARTBEAT_SECONDS,
        metavar="SECONDS",
        help="after which a process that says nothing is taken for lost, and the others end (default %(default)s)",
    )


def join(how: str, heartbeat: int = HEARTBEAT_SECONDS) -> None:
    """Joins the processes of this job; must come before JAX is asked for a device. Does nothing the second time.

    Raises UserError: flags or environment make no sense. TrainingStopped: the others cannot be reached, which a
    restart may mend.
    """
    if heartbeat < 1:
        raise UserError(f"--heartbeat={heartbeat}: want at least 1 second")
    if how == "off" or jax.distributed.is_initialized():
        return
    arguments = {} if how == "auto" else by_hand(how, os.environ)
    if how == "auto" and not cluster(os.environ):
        return
    try:
        jax.distributed.initialize(
            **arguments,
            initialization_timeout=JOIN_SECONDS,
            heartbeat_timeout_seconds=heartbeat,
            # One that ends for a reason of its own does not wait longer for the others than they for it.
            shutdown_timeout_seconds=heartbeat,
        )
    except (RuntimeError, ValueError) as error:
        where = how if arguments else cluster(os.environ)
        reason = str(error).strip().splitlines()[0]
        raise TrainingStopped(
            PEER_LOST, f"could not join the other processes ({where}): {reason}; --distributed=off runs alone"
        ) from error


def by_hand(address: str, environment: Mapping[str, str]) -> dict:
    """Arguments of `jax.distributed.initialize`. UserError: not an address, or the environment does not number us."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise UserError(f"--distributed={address}: want auto, off, or HOST:PORT of process 0")
    numbers = []
    for name, what in ((COUNT, "how many processes there are"), (NUMBER, "which of them this is, from 0")):
        text = environment.get(name, "")
        if not text.isdecimal():
            raise UserError(f"--distributed={address}: set {name}, {what} (it is {text!r})")
        numbers.append(int(text))
    count, number = numbers
    if number >= count:
        raise UserError(f"{NUMBER}={number}: with {COUNT}={count} the last process is {count - 1}")
    return {"coordinator_address": address, "num_processes": count, "process_id": number}


def cluster(environment: Mapping[str, str]) -> str:
    """What tells JAX of the other processes: "Slurm", "Open MPI", "Cloud TPU"; "" where nothing does.

    A batch script itself (no `srun`) and jobs of one task are no cluster. An indexed Kubernetes job without TPUs may as
    well be an array of runs that know nothing of each other: there HOST:PORT says what is meant.
    """
    if int(environment.get("SLURM_STEP_NUM_TASKS") or 1) > 1:
        return "Slurm"
    if int(environment.get("OMPI_COMM_WORLD_SIZE") or 1) > 1:
        return "Open MPI"
    return "Cloud TPU" if _has_tpu(environment) else ""


def _has_tpu(environment: Mapping[str, str]) -> bool:
    if environment.get("JAX_PLATFORMS", "tpu") not in ("", "tpu", "tpu,cpu"):
        return False
    chips = "TPU_WORKER_HOSTNAMES" in environment or Path("/dev/accel0").exists() or Path("/dev/vfio/0").exists()
    return chips and importlib.util.find_spec("libtpu") is not None
