"""What a build has done so far, kept in a hidden folder of its output until the collection is complete.

    OUTPUT/.build/settings.json     what was asked for, of which files
                  outcomes*.jsonl   one line a file: what it decoded to, or why it is rejected
                  parts.jsonl       one line a part: the shards written (they lie in OUTPUT, under temporary
                  names) pcm/              decoded tracks that are in no shard yet lock              held by
                  the processes at work

A line is written after the files it speaks of, so a build can be killed at any moment.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from data_pipelines.audio_files import Rejected
from data_pipelines.decode import Decoded
from data_pipelines.plan import PartPlan, Settings
from data_pipelines.records import Part, Shard
from data_pipelines.sources import Source, fingerprint
from data_pipelines.tf_example import Header
from musicssl_jax.errors import UserError

FOLDER = ".build"
Outcome = Decoded | Rejected
Portion = tuple[int, int]  # the i-th of n equal shares of the files


class Journal:
    """Outcomes and parts by name, as read from the folder; `add_*` also writes them down."""

    def __init__(self, output: Path, settings: Settings, sources: Iterable[Source], portion: Portion | None):
        self._output = output
        self._folder = output / FOLDER
        self._settings = settings
        self._sources = {source.track: source for source in sources}
        self._name = "outcomes.jsonl" if portion is None else f"outcomes-{portion[0]}-of-{portion[1]}.jsonl"
        self.outcomes: dict[str, Outcome] = {}
        self.parts: dict[str, Part] = {}

    def load(self) -> None:
        """Reads what earlier runs did. Raises UserError if they were asked for something else."""
        if not self._same_files():
            self._forget_parts()
        packed = self._load_parts()
        for path in sorted(self._folder.glob("outcomes*.jsonl")):
            for line in _lines(path):
                self._load_outcome(line, packed)

    def add_outcome(self, source: Source, outcome: Outcome) -> None:
        kind = "decoded" if isinstance(outcome, Decoded) else "rejected"
        stamp = {"track": source.track, "size": source.size, "modified": source.modified}
        _append(self._folder / self._name, stamp | {kind: asdict(outcome)})
        self.outcomes[source.track] = outcome
        if isinstance(outcome, Rejected):
            self.pcm(source).unlink(missing_ok=True)

    def add_part(self, plan: PartPlan, part: Part) -> None:
        """Also frees the space of its decoded tracks."""
        line = {"name": plan.name, "shards": part.shards, "tracks": part.tracks}
        _append(self._folder / "parts.jsonl", line)
        self.parts[plan.name] = part
        for track in plan.tracks:
            self.pcm(track.source).unlink(missing_ok=True)

    @property
    def pcm_folder(self) -> Path:
        """Where decoded tracks lie until they are in shards."""
        return self._folder / "pcm"

    def pcm(self, source: Source) -> Path:
        """Where the decoded track lies."""
        return pcm_path(self.pcm_folder, source)

    def mark_complete(self) -> None:
        """Notes that all parts are there, for their shards are about to change names."""
        (self._folder / "complete").touch()

    def remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _same_files(self) -> bool:
        asked = {"settings": self._settings.as_dict(), "files": fingerprint(self._sources.values())}
        path = self._folder / "settings.json"
        try:
            found = json.loads(path.read_text())
        except (OSError, ValueError):
            found = None
        if found is not None:
            check_settings(self._output, found["settings"], self._settings)
        if found != asked:
            partial = path.with_suffix(f".{os.getpid()}")
            partial.write_text(json.dumps(asked))
            partial.replace(path)
        return found is None or found["files"] == asked["files"]

    def _load_parts(self) -> set[str]:
        """Names of the tracks that need no decoding, since they are in shards."""
        for line in _lines(self._folder / "parts.jsonl"):
            shards = [Shard(*shard) for shard in line["shards"]]
            self.parts[line["name"]] = Part(shards, [Header(*track) for track in line["tracks"]])
        if not (self._folder / "complete").exists() and not all(map(self._is_there, self._shards())):
            self._forget_parts()
        return {track.track for part in self.parts.values() for track in part.tracks}

    def _shards(self) -> Iterator[Shard]:
        return (shard for part in self.parts.values() for shard in part.shards)

    def _is_there(self, shard: Shard) -> bool:
        path = self._output / shard.file
        return path.exists() and path.stat().st_size == shard.bytes

    def _forget_parts(self) -> None:
        self.parts.clear()
        for name in ("parts.jsonl", "complete"):
            (self._folder / name).unlink(missing_ok=True)
        for pattern in ("partial-*", "*.array_record-*-of-*"):
            for path in self._output.glob(pattern):
                path.unlink()

    def _load_outcome(self, line: dict[str, Any], packed: set[str]) -> None:
        source = self._sources.get(line["track"])
        if source is None or (source.size, source.modified) != (line["size"], line["modified"]):
            return
        if "rejected" in line:
            self.outcomes[source.track] = Rejected(**line["rejected"])
            return
        audio = Decoded(**line["decoded"])
        pcm = self.pcm(source)
        if source.track in packed or (pcm.exists() and pcm.stat().st_size == 2 * audio.samples):
            self.outcomes[source.track] = audio


@contextmanager
def open_journal(
    output: Path, settings: Settings, sources: Iterable[Source], portion: Portion | None
) -> Iterator[Journal]:
    """The journal of the build into `output`, begun or gone on with, and locked.

    Raises UserError where `output` cannot be written, holds other things, was begun with other settings, or
    another process is at work on it.
    """
    folder = output / FOLDER
    try:
        begun = folder.exists()
        if not begun and output.exists() and any(output.iterdir()):
            raise UserError(f"--output={output} holds other files: choose a new or empty folder")
        (folder / "pcm").mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            _lock(stack, folder, portion)
            journal = Journal(output, settings, sources, portion)
            journal.load()
            yield journal
    except OSError as error:
        raise UserError(f"cannot write {error.filename or output}: {error.strerror or error}") from None


def check_settings(output: Path, found: dict[str, Any], settings: Settings) -> None:
    """Raises UserError naming the settings in which `output` differs from what is asked for."""
    asked = settings.as_dict()
    different = [f"{name}={found.get(name)} (now {value})" for name, value in asked.items() if found.get(name) != value]
    if different:
        raise UserError(
            f"--output={output} was begun with {', '.join(different)}: use the same settings or another folder"
        )


def pcm_path(folder: Path, source: Source) -> Path:
    return folder / f"{source.key}.pcm"


def _lock(stack: ExitStack, folder: Path, portion: Portion | None) -> None:
    # Shares of the work go on side by side; the run that joins them needs all of them to have ended.
    wanted = [("lock", fcntl.LOCK_EX if portion is None else fcntl.LOCK_SH)]
    if portion is not None:
        wanted.append((f"lock-{portion[0]}-of-{portion[1]}", fcntl.LOCK_EX))
    for name, kind in wanted:
        file = stack.enter_context((folder / name).open("w"))
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another build is at work on {folder.parent}: wait until it ends") from None


def _append(path: Path, line: dict[str, Any]) -> None:
    with open(path, "ab") as file:
        _end_torn_line(path, file)
        file.write(json.dumps(line).encode() + b"\n")


def _end_torn_line(path: Path, file: IO[bytes]) -> None:
    if file.tell():
        with open(path, "rb") as reader:
            reader.seek(-1, os.SEEK_END)
            if reader.read(1) != b"\n":
                file.write(b"\n")


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    for line in path.read_bytes().splitlines():
        try:
            yield json.loads(line)
        except ValueError:  # the process was killed while it wrote this line
            continue
