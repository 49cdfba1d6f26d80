"""What lies in the folder of a data set, and the tables in it as other people's programs wrote them."""

import csv
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from data_pipelines.audio_files import AUDIO_SUFFIXES
from musicssl_jax.errors import UserError, shortened


def data_set_folder(data_dir: Path, name: str) -> Path:
    """The folder of a data set. Raises UserError: there is none."""
    folder = data_dir / name
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder; put the data set there "
            "(musicssl evaluate --check-data says where it can be had and how it should lie)"
        )
    return folder


def files_below(folder: Path, suffixes: Iterable[str]) -> Iterator[str]:
    """Paths relative to `folder`, parts joined by '/', of the files with one of these suffixes, in a fixed order.

    Links are followed, each folder is entered once, and what begins with a dot (or is `__MACOSX`, which archives made
    on a Mac contain) is passed over. Folders are listed, files are never looked at: a data set has 300 000 of them.
    """
    wanted = tuple(suffixes)
    entered = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = [] if real in entered else sorted(f for f in folders if not f.startswith((".", "__MACOSX")))
        if real in entered:
            continue
        entered.add(real)
        inside = os.path.relpath(place, folder).replace(os.sep, "/")
        for name in sorted(files):
            if name.lower().endswith(wanted) and not name.startswith("."):
                yield name if inside == "." else f"{inside}/{name}"


def audio_below(folder: Path) -> Iterator[str]:
    """`files_below` of everything that can be decoded."""
    return files_below(folder, AUDIO_SUFFIXES)


def by_key(files: Iterable[str], key: Callable[[str], str | None]) -> dict[str, str]:
    """The first file of every key; None: not one of the data set's."""
    found: dict[str, str] = {}
    for file in files:
        if (name := key(file)) is not None:
            found.setdefault(name, file)
    return found


def find_file(folder: Path, name: str) -> Path | None:
    """A file of this name in the folder or below it, the least deep one."""
    if (folder / name).is_file():
        return folder / name
    found = [file for file in files_below(folder, [Path(name).suffix]) if file.rpartition("/")[2] == name]
    return folder / min(found, key=lambda file: (file.count("/"), file)) if found else None


class Row(NamedTuple):
    """A line of a table: cells by column, without the spaces around them; `where` is file and line for a message."""

    where: str
    cells: dict[str, str]


def read_table(path: Path, columns: Sequence[str], *, quoted: bool = True, errors: str = "strict") -> Iterator[Row]:
    """The rows of a text table with a header, of tabs or commas whatever its name says; empty lines are passed over.

    Either line end and a byte order mark are taken. quoted: whether quotation marks enclose cells or are text.
    Raises UserError: no such file, not text, a column is missing, or a line has another number of cells.
    """
    text = read_text(path, errors)
    header, rows = _header_and_rows(path, text, columns, quoted)
    for line, cells in rows:
        if len(cells) != len(header):
            raise UserError(f"{path}:{line}: {len(cells)} cells in a table of {len(header)} columns; get the file anew")
        yield Row(f"{path}:{line}", dict(zip(header, cells, strict=True)))


def _header_and_rows(
    path: Path, text: str, columns: Sequence[str], quoted: bool
) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """The delimiter is the one by which the header has the columns: cells of either kind contain the other."""
    absent: list[list[str]] = []
    for delimiter in ("\t", ","):
        rows = _split(path, text, delimiter, quoted)
        _, header = next(rows, (0, []))
        absent.append([column for column in columns if column not in header])
        if not absent[-1]:
            return header, rows
    fewest = shortened(min(absent, key=len))
    raise UserError(f"{path}: its first line names no column {fewest}; is this the original file?")


def _split(path: Path, text: str, delimiter: str, quoted: bool) -> Iterator[tuple[int, list[str]]]:
    # QUOTE_NONE takes quotation marks as text; a title may hold a single one.
    style = csv.excel_tab if delimiter == "\t" else csv.excel
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    reader = csv.reader(text.split("\n"), style, skipinitialspace=True, quoting=quoting)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, [cell.strip() for cell in cells]
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: {error}; get the file anew") from None


def read_lines(path: Path) -> list[tuple[str, str]]:
    """(where, line) of the lines that are not empty, ends and spaces around them cut off. Raises UserError."""
    lines = enumerate(read_text(path).split("\n"), start=1)
    return [(f"{path}:{number}", line.strip()) for number, line in lines if line.strip()]


def read_text(path: Path, errors: str = "strict") -> str:
    """A file's text, whatever its line ends. Raises UserError: it is not there, or not UTF-8."""
    try:
        return re.sub("\r\n?", "\n", path.read_bytes().decode("utf-8-sig", errors))
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is not UTF-8; get the file anew") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
