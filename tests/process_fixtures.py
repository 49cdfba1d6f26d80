"""The commands in several real processes on this machine, joined over the loopback."""

import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIMIT = 420  # seconds that a job may take


def start(
    module: str, arguments: Sequence[str], processes: int, *, devices: int = 1, heartbeat: int = 20
) -> list[subprocess.Popen]:
    """`python -m module arguments` as so many processes of so many CPU devices each; alone, it joins nobody."""
    joined = ["--distributed=off"]
    if processes > 1:
        joined = [f"--distributed={free_address()}", f"--heartbeat={heartbeat}"]
    return [
        subprocess.Popen(
            [sys.executable, "-m", module, *arguments, *joined],
            cwd=ROOT,
            env=environment(processes, number, devices),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(processes)
    ]


def run(module: str, arguments: Sequence[str], processes: int, *, devices: int = 1) -> list[tuple[int, str, str]]:
    """(exit code, stdout, stderr) of each."""
    return finish(start(module, arguments, processes, devices=devices))


def finish(jobs: Sequence[subprocess.Popen]) -> list[tuple[int, str, str]]:
    try:
        said = [job.communicate(timeout=LIMIT) for job in jobs]
        return [(job.returncode, *texts) for job, texts in zip(jobs, said, strict=True)]
    finally:
        for job in jobs:
            job.kill()


def environment(processes: int, number: int, devices: int) -> Mapping[str, str]:
    return os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "MUSICSSL_NUM_PROCESSES": str(processes),
        "MUSICSSL_PROCESS_ID": str(number),
    }


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"
