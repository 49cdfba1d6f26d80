"""Files of results: a line of JSON for each case that was measured."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import processor, versions


def rows_of(file: Path) -> list[dict[str, Any]]:
    """None, if there is no such file yet."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def append(row: Mapping[str, Any], file: Path) -> None:
    """One more line."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as opened:
        print(json.dumps(row), file=opened)


def is_from_here(row: Mapping[str, Any], packages: Sequence[str]) -> bool:
    """Whether it was measured with this processor and these versions of the packages."""
    known = {name: number for name, number in row["versions"].items() if name != "python"}
    return row["machine"]["processor"] == processor() and known == versions(packages)
