"""Which files a collection is made of: a folder walked, or a manifest."""

import csv
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from data_pipelines.audio_files import AUDIO_SUFFIXES
from musicssl_jax.errors import UserError


@dataclass(frozen=True)
class Source:
    """One audio file. track: its name in the collection (the path under the folder, with `/`); album: the
    folder of it; size in bytes and modified in whole seconds, both -1 where they cannot be had.
    """

    track: str
    path: str
    album: str
    size: int
    modified: int

    @property
    def key(self) -> str:
        """The track's name as a file name."""
        return hashlib.sha256(self.track.encode()).hexdigest()[:32]


def walk_folder(folder: str) -> list[Source]:
    """All audio files under `folder` by suffix, sorted; hidden files and folders are left out, links are
    followed.

    Raises UserError where the folder is missing or holds no audio.
    """
    if not os.path.isdir(folder):
        raise UserError(f"{folder} is not a folder")
    found = [
        _source(_text(os.path.relpath(path, folder)), path)
        for path in _files(folder)
        if os.path.splitext(path)[1].lower() in AUDIO_SUFFIXES
    ]
    if not found:
        empty = next(_files(folder), None) is None
        what = "is empty" if empty else "holds no audio file (by suffix: .wav, .flac, .mp3, .ogg, .opus, .m4a ...)"
        raise UserError(f"{folder} {what}")
    return sorted(found, key=lambda source: source.track)


def read_manifest(manifest: str, folder: str | None) -> list[Source]:
    """The files of a manifest: JSON lines or CSV with a header; `path` or `audio_path`, and if given `id`,
    `album`.

    Relative paths are taken from `folder`, or where that is None from the manifest's own folder.
    Raises UserError naming the line that is wrong.
    """
    base = folder if folder is not None else os.path.dirname(manifest)
    found: dict[str, Source] = {}
    for line, row in _rows(manifest):
        name = row.get("path") or row.get("audio_path")
        if not isinstance(name, str):
            raise UserError(f"{manifest}:{line}: no `path` (or `audio_path`) in it")
        track = str(row.get("id") or PurePosixPath(_text(name)))
        if track in found:
            raise UserError(f"{manifest}:{line}: track {track!r} is there twice; give each line its own `id`")
        path = name if "://" in name else os.path.join(base, name)
        found[track] = _source(track, path, row.get("album"))
    if not found:
        raise UserError(f"--manifest={manifest} lists no file")
    return sorted(found.values(), key=lambda source: source.track)


def exclude(sources: Sequence[Source], id_file: str) -> list[Source]:
    """The sources whose track id is not a line of `id_file`; an id may be given without the file's suffix."""
    try:
        ids = {line.strip() for line in Path(id_file).read_text(encoding="utf-8").splitlines() if line.strip()}
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--exclude={id_file} cannot be read: {error}") from None
    kept = [s for s in sources if s.track not in ids and str(PurePosixPath(s.track).with_suffix("")) not in ids]
    if not kept:
        raise UserError(f"--exclude={id_file} leaves no file over")
    return kept


def fingerprint(sources: Iterable[Source]) -> str:
    """A hash of names, albums, sizes and times: it changes when the files do."""
    digest = hashlib.sha256()
    for source in sources:
        digest.update(repr((source.track, source.album, source.size, source.modified)).encode())
    return digest.hexdigest()[:16]


def _source(track: str, path: str, album: str | None = None) -> Source:
    try:
        status = os.stat(path)
        size, modified = status.st_size, int(status.st_mtime)
    except OSError:
        size, modified = -1, -1  # decoding says what is wrong with it
    return Source(track, path, str(PurePosixPath(track).parent) if album is None else str(album), size, modified)


def _text(name: str) -> str:
    # File names are bytes; those that are no text get escapes, since track ids must be text.
    return os.fsencode(name).decode("utf-8", "backslashreplace").replace(os.sep, "/")


def _files(folder: str) -> Iterator[str]:
    seen = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (os.path.join(parent, name) for name in sorted(files) if not name.startswith("."))


def _rows(manifest: str) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with open(manifest, encoding="utf-8", newline="") as file:
            if manifest.endswith(".csv"):
                reader = csv.DictReader(file)
                yield from ((reader.line_num, row) for row in reader)
            elif manifest.endswith((".jsonl", ".json")):
                yield from ((n, json.loads(line)) for n, line in enumerate(file, 1) if line.strip())
            else:
                raise UserError(f"--manifest={manifest}: its name must end in .jsonl or .csv")
    except OSError as error:
        raise UserError(f"--manifest={manifest} cannot be read: {error.strerror}") from None
    except (ValueError, csv.Error) as error:
        raise UserError(f"--manifest={manifest} is damaged: {error}") from None
