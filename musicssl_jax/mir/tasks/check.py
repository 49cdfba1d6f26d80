"""What of the tasks' data is on this machine, what is missing and where it can be had. Nothing is fetched."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from musicssl_jax.errors import DONE, USER_ERROR, UserError, shortened
from musicssl_jax.mir.tasks.listing import by_key, files_below, read_text
from musicssl_jax.mir.tasks.sources import SOURCES, official_counts
from musicssl_jax.mir.tasks.split_hash import split_sha256
from musicssl_jax.mir.tasks.task import PARTS, Part, ProtocolName, Task, TaskData

State = Literal["ready", "incomplete", "unofficial", "faulty", "absent"]
_MEANING = {
    "ready": "ready",
    "incomplete": "recordings are missing",
    "unofficial": "not the official lists",
    "faulty": "cannot be read",
    "absent": "not there",
}


@dataclass(frozen=True)
class TaskCheck:
    """counts: recordings of each part that are there. missing: listed and not there; unusable: known to be so.
    difference: of the lists on this machine from the official ones. problem: why there is nothing."""

    task: str
    data_set: str
    state: State
    counts: dict[Part, int] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    unusable: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    split_sha256: str = ""
    difference: str = ""
    problem: str = ""


@dataclass(frozen=True)
class HashCheck:
    """Files compared with the data set's own hashes."""

    data_set: str
    compared: int
    wrong: tuple[str, ...]


@dataclass(frozen=True)
class DataCheck:
    """tasks: in the order asked for."""

    data_dir: str
    protocol: ProtocolName
    tasks: tuple[TaskCheck, ...]
    hashes: tuple[HashCheck, ...]

    @property
    def exit_code(self) -> int:
        """Of the command: whether all that was asked for is there and as it should be."""
        fine = all(check.state == "ready" for check in self.tasks) and not any(hashes.wrong for hashes in self.hashes)
        return DONE if fine else USER_ERROR

    def as_json(self) -> dict[str, Any]:
        sources = {name: SOURCES[name]._asdict() for name in dict.fromkeys(check.data_set for check in self.tasks)}
        return {**asdict(self), "sources": sources}

    def text(self) -> str:
        """A screen for each data set."""
        ready = sum(check.state == "ready" for check in self.tasks)
        lines = [f"{ready} of {len(self.tasks)} tasks are ready in {self.data_dir} (protocol {self.protocol})"]
        in_sets = sorted(self.tasks, key=lambda check: list(SOURCES).index(check.data_set))
        for name, checks in groupby(in_sets, key=lambda check: check.data_set):
            hashes = [result for result in self.hashes if result.data_set == name]
            lines += ["", *_data_set_lines(Path(self.data_dir) / name, list(checks), hashes)]
        return "\n".join(lines)


def check_data(data_dir: Path, tasks: Sequence[Task], protocol: ProtocolName = "ours") -> DataCheck:
    """Reads the lists of every task, looks which recordings are there, and compares counts and hashes with the
    official ones. `data_dir` need not exist."""
    checks = tuple(check_task(data_dir, task, protocol) for task in tasks)
    hashes = (_check_giantsteps(data_dir),) if any(task.data_set == "giantsteps" for task in tasks) else ()
    return DataCheck(str(data_dir), protocol, checks, tuple(filter(None, hashes)))


def check_task(data_dir: Path, task: Task, protocol: ProtocolName) -> TaskCheck:
    """One of them."""
    if not (data_dir / task.data_set).is_dir():
        return TaskCheck(task.name, task.data_set, "absent", problem="no such folder")
    try:
        data = task.read(data_dir, protocol)
    except UserError as error:
        return TaskCheck(task.name, task.data_set, "faulty", problem=str(error))
    counts, difference = _count(data.examples), _difference(data, task, protocol)
    missing = tuple(f"{gap.recording} ({gap.reason})" for gap in data.missing if not gap.known)
    incomplete = missing or not all(counts.values())
    return TaskCheck(
        task=task.name,
        data_set=task.data_set,
        state="incomplete" if incomplete else "unofficial" if difference else "ready",
        counts=counts,
        missing=missing,
        unusable=tuple(f"{gap.recording} ({gap.reason})" for gap in data.missing if gap.known),
        notes=data.notes,
        split_sha256=split_sha256(data),
        difference=difference,
    )


def _difference(data: TaskData, task: Task, protocol: ProtocolName) -> str:
    """Of what is listed from the official lists; where there are none, whether every class is there, and doubts."""
    listed, official = _count(data.examples + data.missing), official_counts(task.name, protocol)
    if official is None:
        there = {task.outputs[example.label] for example in data.examples}
        absent = [output for output in task.outputs if output not in there]
        return "; ".join(([f"nothing of {shortened(absent)}"] if absent else []) + list(data.doubts))
    return "" if listed == official else f"the lists here have {_said(listed)}; the official ones {_said(official)}"


def _count(items: Iterable[Any]) -> dict[Part, int]:
    counts = Counter(item.part for item in items)
    return {part: counts[part] for part in PARTS}


def _said(counts: Mapping[Part, int]) -> str:
    return "  ".join(f"{part} {counts[part]}" for part in PARTS)


def _check_giantsteps(data_dir: Path) -> HashCheck | None:
    """Both clones have the MD5 of every mp3 in `md5/<id>.LOFI.md5`. None: none of them is there."""
    folder = data_dir / "giantsteps"
    expected = by_key(files_below(folder, [".md5"]), _lofi)
    audio = by_key(files_below(folder, [".mp3"]), _lofi)
    both = sorted(expected.keys() & audio.keys())
    wrong = [
        audio[id]
        for id in tqdm(both, desc="hashes of GiantSteps", unit=" files", leave=False, disable=None)
        if _md5(folder / audio[id]) != read_text(folder / expected[id]).strip()
    ]
    return HashCheck("giantsteps", len(both), tuple(wrong)) if both else None


def _lofi(path: str) -> str | None:
    match = re.fullmatch(r"(?:.*/)?(\d+\.LOFI)\.\w+", path)
    return match[1] if match else None


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _data_set_lines(folder: Path, checks: list[TaskCheck], hashes: list[HashCheck]) -> list[str]:
    source = SOURCES[folder.name]
    lines = [f"{source.title}    {folder}/", *(line for check in checks for line in _task_lines(check))]
    for result in hashes:
        wrong = f", {len(result.wrong)} differ, fetch them anew: {shortened(result.wrong)}" if result.wrong else ""
        lines.append(f"  checked    {result.compared} files by the data set's own MD5{wrong}")
    if source.unverified and any(check.counts for check in checks):
        lines.append(f"  unchecked  {source.unverified}")
    if any(check.state != "ready" for check in checks):
        lines += [f"  get        {step}" for step in source.how]
        lines += [f"  beware     {caveat}" for caveat in source.caveats]
        lines.append(f"  disk       {source.disk}")
    return [*lines, f"  licence    {source.licence}"]


def _task_lines(check: TaskCheck) -> list[str]:
    meaning = _MEANING[check.state]
    if check.counts:
        first = f"{meaning:<24} {_said(check.counts)}  (split {check.split_sha256[:12]})"
    else:
        first = f"{meaning}: {check.problem}"
    lines = [f"  {check.task:<20} {first}"]
    if check.difference:
        lines.append(f"    differs    {check.difference}")
    if check.missing:
        lines.append(f"    missing    {len(check.missing)}: {shortened(check.missing)}")
    if check.unusable:
        lines.append(f"    left out   {len(check.unusable)}, as everywhere: {shortened(check.unusable)}")
    return lines + [f"    note       {note}" for note in check.notes]
