"""What a benchmark ran on, and of which program."""

import hashlib
import os
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).parents[1]


def machine(packages: Sequence[str]) -> str:
    """The processor, Python, and the versions of packages."""
    found = ", ".join(f"{name} {number}" for name, number in versions(packages).items())
    return f"{cores()} cores of {processor()}, Python {platform.python_version()}, {found}"


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Of those that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0))


def processor() -> str:
    """Its name, and family and model: machines of one name may differ by a factor."""
    cpu = Path("/proc/cpuinfo")
    fields = dict(line.split(":", 1) for line in cpu.read_text().splitlines() if ":" in line) if cpu.exists() else {}
    known = {name.strip(): value.strip() for name, value in fields.items()}
    if "model name" not in known:
        return platform.machine()
    details = [f"{name} {known[key]}" for name, key in (("family", "cpu family"), ("model", "model")) if key in known]
    return ", ".join([known["model name"], *details])


def program() -> str:
    """A digest of the package's source: rows of another one are no rows of this one."""
    files = sorted((ROOT / "musicssl_jax").rglob("*.py"))
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.relative_to(ROOT).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def commit() -> str | None:
    """Of the checkout; None: it is no checkout."""
    try:
        said = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return said.stdout.strip()
