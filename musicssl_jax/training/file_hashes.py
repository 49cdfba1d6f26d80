"""SHA-256 of every file of a checkpoint's folder, in the format of `sha256sum`."""

import hashlib
from collections.abc import Iterator

from etils import epath

SUMS = "SHA256SUMS"
# Orbax writes these two when it commits, after the sums; neither says anything about the state.
COMMIT_FILES = ("_CHECKPOINT_METADATA", "commit_success.txt")


def write_hashes(path: epath.Path) -> None:
    """Writes `SHA256SUMS` of all that the folder holds."""
    names = sorted({file.relative_to(path).as_posix() for file in _files(path)} - {*COMMIT_FILES})
    (path / SUMS).write_text("".join(f"{_sha256(path / name)}  {name}\n" for name in names))


def damaged_files(path: epath.Path) -> str | None:
    """Says in a few words which file of a checkpoint is not what was written; None when all are."""
    try:
        lines = (path / SUMS).read_text().removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError):
        return f"{SUMS} is missing or unreadable"
    for line in lines:
        digest, _, name = line.partition("  ")
        file = path / name
        if not file.is_file():
            return f"{name or SUMS} is missing or cut short"
        if _sha256(file) != digest:
            return f"{name} does not match its SHA-256"
    return None


def _files(path: epath.Path) -> Iterator[epath.Path]:
    for entry in path.iterdir():
        if entry.is_dir():
            yield from _files(entry)
        else:
            yield entry


def _sha256(file: epath.Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
