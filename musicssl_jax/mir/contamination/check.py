"""What part of a task's recordings was in the pretraining data, for results and report."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from musicssl_jax.errors import UserError
from musicssl_jax.mir.contamination.index import Index
from musicssl_jax.mir.contamination.landmarks import RATE, VERSION
from musicssl_jax.mir.contamination.matching import Match, Undecided, find_match
from musicssl_jax.mir.features.recordings import Decoded, decode_ahead, source_of
from musicssl_jax.mir.tasks.task import PARTS, Part, Recording, TaskData, Windows

MAX_EXAMPLES = 20

_WHOLE = Windows(seconds=30.0)  # all of a recording, however long
_PARTS_FIRST: tuple[Part, ...] = ("test", "valid", "train")

Found = dict[str, Match | Undecided | None]
"""By recording; None: it is not in the collections."""


def find_matches(
    indexes: Sequence[Index],
    recordings: Iterable[Recording],
    *,
    journal: Path | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Found:
    """Looks each recording up in the collections; what cannot be decoded is `Undecided`.

    journal: a folder in which results are kept as they come, so that a stopped search goes on and a finished one is not
    repeated, for as long as collections and files stay the same. workers: processes that decode, default one a core.
    Raises UserError: a shard of a collection is damaged.
    """
    recordings = list(recordings)
    path = journal and _journal_path(journal, indexes)
    found = _read_journal(path, recordings) if path else {}
    missing = [recording for recording in recordings if recording.id not in found]
    if not missing:
        return found
    with (
        _appended(path) as write,
        tqdm(total=len(missing), desc="contamination", unit="file", disable=not progress) as bar,
    ):
        for decoded in decode_ahead(missing, RATE, _WHOLE, workers=workers or os.cpu_count() or 1):
            if isinstance(decoded, Decoded):
                recording, result = decoded.recording, find_match(indexes, decoded.pcm, RATE)
            else:
                recording, rejected = decoded
                result = Undecided(f"{rejected.reason}: {rejected.detail}")
            found[recording.id] = result
            write(_to_line(recording, result))
            bar.update()
    return found


def contamination(found: Mapping[str, Match | Undecided | None], data: TaskData) -> dict[str, Any]:
    """A task's part of what was found, as JSON has it.

    "train", "valid", "test": share of the part's recordings that are in the collections, None where none of them was
    decided. "checked", "matched": recordings. "undecided": how many were not, by reason. "examples": the first
    MAX_EXAMPLES matches, those of the test part first: {"recording", "part", and what `Match` holds}.
    """
    of_part = {part: {e.recording: found[e.recording] for e in data.examples if e.part == part} for part in PARTS}
    every = {name: result for results in of_part.values() for name, result in results.items()}
    reasons = Counter(result.reason for result in every.values() if isinstance(result, Undecided))
    examples = [
        {"recording": name, "part": part, **result._asdict()}
        for part in _PARTS_FIRST
        for name, result in sorted(of_part[part].items())
        if isinstance(result, Match)
    ]
    return {
        **{part: _share(results) for part, results in of_part.items()},
        "checked": len(every) - reasons.total(),
        "matched": sum(isinstance(result, Match) for result in every.values()),
        "undecided": dict(reasons.most_common()),
        "examples": examples[:MAX_EXAMPLES],
    }


def _share(results: Mapping[str, Match | Undecided | None]) -> float | None:
    decided = [isinstance(result, Match) for result in results.values() if not isinstance(result, Undecided)]
    return sum(decided) / len(decided) if decided else None


def _journal_path(folder: Path, indexes: Sequence[Index]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps([VERSION, *(index.collection.build_id for index in indexes)])
    return folder / f"contamination-{hashlib.sha256(content.encode()).hexdigest()[:12]}.jsonl"


@contextmanager
def _appended(path: Path | None) -> Iterator[Callable[[str], None]]:
    """What adds a line to the file. It raises UserError where it cannot be written."""

    def write(line: str) -> None:
        try:
            file.write(line)
            file.flush()
        except OSError as error:
            raise UserError(f"cannot write {path} ({error.strerror}): make room, the same command goes on") from None

    with open(path or os.devnull, "a", encoding="utf-8") as file:
        write("\n")  # ends the line that a killed process did not
        yield write


def _read_journal(path: Path, recordings: Sequence[Recording]) -> Found:
    """What is known of those recordings whose files have the size and time they had."""
    known: dict[tuple[str, tuple[int, int]], Match | Undecided | None] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            entry = json.loads(line)
            size, time_ns = entry["source"]
            known[entry["recording"], (size, time_ns)] = _from_entry(entry)
        except (ValueError, KeyError, TypeError):  # empty, or the process was killed while it wrote this line
            continue
    keys = {recording.id: (recording.id, source_of(recording)) for recording in recordings}
    return {name: known[key] for name, key in keys.items() if key in known}


def _to_line(recording: Recording, result: Match | Undecided | None) -> str:
    kind = {"match": result._asdict()} if isinstance(result, Match) else {"undecided": result and result.reason}
    return json.dumps({"recording": recording.id, "source": source_of(recording), **kind}) + "\n"


def _from_entry(entry: Mapping[str, Any]) -> Match | Undecided | None:
    if "match" in entry:
        return Match(**entry["match"])
    return Undecided(entry["undecided"]) if entry["undecided"] else None
