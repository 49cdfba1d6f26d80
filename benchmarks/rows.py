"""Files of results: a line of JSON for each case that was measured."""

import datetime
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import commit, cores, processor, program, versions


def rows_of(file: Path) -> list[dict[str, Any]]:
    """None, if there is no such file yet."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def append(row: Mapping[str, Any], file: Path) -> None:
    """One more line."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as opened:
        print(json.dumps(row), file=opened)


def origin(packages: Sequence[str], device: str) -> dict[str, Any]:
    """What every row begins with: when, where and by which program it was measured. device: its kind."""
    return {
        "date": datetime.date.today().isoformat(),
        "machine": {"processor": processor(), "cores": cores(), "device": device},
        "versions": {"python": platform.python_version(), **versions(packages)},
        "commit": commit(),
        "program": program(),
    }


def is_from_here(row: Mapping[str, Any], packages: Sequence[str], device: str) -> bool:
    """Whether it was measured on such a machine, with these versions of the packages, by this very program."""
    here = origin(packages, device)
    return all(row.get(name) == here[name] for name in ("machine", "versions", "program"))
