"""What the chips that a plan can be for have: memory, and how fast data come out of it and to the next chip."""

import dataclasses
import os
from collections.abc import Mapping

GIB = 2**30
GB = 1e9

JAX_SHARE_OF_A_GPU = 0.75
"""Of a GPU's memory, that JAX takes unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise (its documentation)."""


@dataclasses.dataclass(frozen=True)
class Chip:
    """kind: the start of JAX's device kind, under which `flops.PEAKS` has its FLOP/s.

    memory: bytes by the maker's data sheet. usable: bytes of it that a program gets. bandwidth: of that memory, bytes a
    second. network: bytes that a chip can send each second to chips of its slice or host, all links together.
    host_devices: that share a host; 0: all of a slice are on one network. between_hosts: bytes that a chip can send
    each second to another host.
    """

    name: str
    kind: str
    memory: int
    usable: int
    bandwidth: float
    network: float
    host_devices: int = 0
    between_hosts: float = 0.0

    def link(self, devices: int) -> float:
        """Bytes a second that each of so many chips sends, by the slowest link between them."""
        return self.between_hosts if self.host_devices and devices > self.host_devices else self.network


TPUS: Mapping[str, Chip] = {
    "v5e": Chip("v5e", "TPU v5 lite", 16 * GIB, int(15.75 * GIB), 819 * GB, 200 * GB),
    "v5p": Chip("v5p", "TPU v5p", 95 * GIB, int(95.74 * GIB), 2765 * GB, 600 * GB),
    "v6e": Chip("v6e", "TPU v6 lite", 32 * GIB, int(31.25 * GIB), 1638 * GB, 448 * GB),
}
"""Memory, its bandwidth and the interconnect (1600, 4800 and 3584 Gbit/s): cloud.google.com/tpu/docs, pages v5e, v5p
and v6e. Usable: what libtpu's compiler names when a program does not fit."""


def _gpu(name: str, kind: str, memory: int, bandwidth: int, nvlink: int, network: int) -> Chip:
    share = float(os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION", JAX_SHARE_OF_A_GPU))
    return Chip(name, kind, memory, int(memory * share), bandwidth * GB, nvlink * GB, 8, network * GB)


def gpus() -> dict[str, Chip]:
    """The GPUs by name.

    Memory, its bandwidth and half of NVLink's 900 (A100: 600) GB/s: NVIDIA's data sheets of the SXM boards. Between
    hosts: one InfiniBand port a GPU as in NVIDIA's DGX, 400 (A100: 200) Gbit/s.
    """
    return {
        "h100": _gpu("H100", "NVIDIA H100", int(80 * GB), 3350, 450, 50),
        "h200": _gpu("H200", "NVIDIA H200", int(141 * GB), 4800, 450, 50),
        "a100": _gpu("A100 80 GB", "NVIDIA A100", int(80 * GB), 2039, 300, 25),
    }


def host_memory() -> int:
    """Bytes of this machine's memory, which simulated CPU devices share."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
