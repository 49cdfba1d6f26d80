"""From `--topology` to the devices that a step is compiled for, there or not."""

import contextlib
import dataclasses
import importlib.util
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import jax
from jax.sharding import AbstractMesh, AxisType, Mesh

from musicssl_jax.errors import UserError
from musicssl_jax.parallel import make_mesh
from musicssl_jax.planning.hardware import TPUS, Chip, gpus, host_memory

_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
SLICES = {
    "v5e": _FLAT,
    "v6e": _FLAT,
    "v5p": ("1x1x1", "2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16"),
}
"""TPU slices that are offered (cloud.google.com/tpu/docs); chips along each dimension."""

_QUIET = {"TPU_MIN_LOG_LEVEL": "4", "TPU_STDERR_LOG_LEVEL": "4", "TPU_WORKER_HOSTNAMES": "localhost"}
"""What keeps libtpu from complaining that there is no TPU here."""

MOST_CPU_DEVICES = 1024  # a thousand compile in seconds what a laptop can hold


@dataclasses.dataclass(frozen=True)
class Machine:
    """topology: as it was asked for. devices: that programs can be compiled for; none: there is no compiler for it.

    memory: bytes that a device's program gets. hosts: that the devices are on, where that is known.
    """

    topology: str
    chip: Chip
    count: int
    memory: int
    hosts: int | None
    devices: tuple[Any, ...] = ()

    @property
    def platform(self) -> str:
        return "cpu" if self.topology.startswith("cpu") else "gpu" if self.topology.startswith("gpu") else "tpu"

    def mesh(self, data: int, fsdp: int) -> Mesh | AbstractMesh:
        """The mesh of the config on these devices. UserError: it does not take all of them."""
        whole = f"{self.topology} has {self.count} device{'s' if self.count > 1 else ''}"
        across = data if data != -1 else max(self.count // fsdp, 1)
        if across * fsdp != self.count:
            raise UserError(
                f"config.mesh.data={data} and config.mesh.fsdp={fsdp} do not divide up the devices: {whole}; "
                "--config.mesh.data=-1 takes what an fsdp that divides them leaves"
            )
        if self.devices:
            return make_mesh(data, fsdp, self.devices)
        return AbstractMesh((across, fsdp), ("data", "fsdp"), axis_types=(AxisType.Auto, AxisType.Auto))


def known_topologies() -> str:
    """For messages: what `--topology` may be."""
    listed = "; ".join(f"{family}:{' '.join(layouts)}" for family, layouts in SLICES.items())
    return f"{listed}; gpu:N; cpu:N"


def open_machine(topology: str, gpu: str = "h100") -> Machine:
    """The machine of this name; before it, nothing may have used JAX's devices if there are to be N of `cpu:N`.

    gpu: which GPUs `gpu:N` are, where there are not N in this machine.
    Raises UserError: no such topology; a TPU's, and its compiler is not installed.
    """
    family, _, layout = topology.partition(":")
    if layout in SLICES.get(family, ()):
        return _tpu(topology, family)
    if family in ("cpu", "gpu") and re.fullmatch(r"[1-9]\d*", layout):
        return _cpu(topology, int(layout)) if family == "cpu" else _gpu(topology, int(layout), gpu)
    raise UserError(f"--topology={topology}: no such machine; there are {known_topologies()}")


def _tpu(topology: str, family: str) -> Machine:
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            f"--topology={topology}: a plan for a TPU asks its compiler, which works on any Linux machine (x86-64) "
            'and is not installed: pip install libtpu (or "musicssl_jax[tpu]", which takes the version that suits JAX)'
        )
    # No metadata server to ask, and other programs may use the compiler at the same time.
    os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"} | _QUIET
    _without_accelerators()
    from jax.experimental import topologies

    one_chip = set(topology.partition(":")[2].split("x")) == {"1"}
    bounds = {"chips_per_host_bounds": (1, 1, 1)} if one_chip else {}
    devices: Any
    try:
        with quiet_stderr():
            devices = topologies.get_topology_desc(platform="tpu", topology_name=topology, **bounds).devices
    except (jax.errors.JaxRuntimeError, ValueError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--topology={topology}: libtpu {version('libtpu')} refuses it ({reason})") from error
    chip = TPUS[family]
    hosts = len({device.process_index for device in devices})
    return Machine(topology, chip, len(devices), chip.usable, hosts, tuple(devices))


def _cpu(topology: str, count: int) -> Machine:
    if count > MOST_CPU_DEVICES:
        raise UserError(f"--topology={topology}: at most cpu:{MOST_CPU_DEVICES} can be simulated")
    _without_accelerators()
    with contextlib.suppress(RuntimeError):  # JAX is at work already; perhaps it has enough
        jax.config.update("jax_num_cpu_devices", count)
    devices = jax.devices("cpu")
    if len(devices) < count:
        raise UserError(f"--topology={topology}: JAX started with {len(devices)} CPU devices in this process")
    memory = host_memory()
    chip = Chip("CPU", "cpu", memory, memory, 0.0, 0.0)
    # They share the memory of the machine.
    return Machine(topology, chip, count, memory // count, 1, tuple(devices[:count]))


def _gpu(topology: str, count: int, name: str) -> Machine:
    known = gpus()
    if name not in known:
        raise UserError(f"--gpu={name}: no such GPU; there are {', '.join(known)}")
    devices = _local_gpus()
    if len(devices) < count:
        chip = known[name]
        return Machine(topology, chip, count, chip.usable, -(-count // chip.host_devices))
    kind = devices[0].device_kind
    found = [chip for chip in known.values() if kind.startswith(chip.kind)]
    if not found:
        raise UserError(f"--topology={topology}: there is no data sheet of {kind} here, only of {', '.join(known)}")
    limit = (devices[0].memory_stats() or {}).get("bytes_limit", found[0].usable)
    hosts = len({device.process_index for device in devices[:count]})
    return Machine(topology, found[0], count, limit, hosts, tuple(devices[:count]))


def _local_gpus() -> list[Any]:
    plugins = ("jax_cuda12_plugin", "jax_cuda13_plugin")
    if os.environ.get("JAX_PLATFORMS") == "cpu" or not any(map(importlib.util.find_spec, plugins)):
        _without_accelerators()
        return []
    try:
        return jax.devices("gpu")
    except RuntimeError:  # a plugin, but no GPU
        return []


def _without_accelerators() -> None:
    """JAX must not open this machine's own accelerator: another program may be using it."""
    jax.config.update("jax_platforms", "cpu")


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """libtpu complains on file descriptor 2 that there is no TPU, which is the point."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
