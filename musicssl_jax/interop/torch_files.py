"""Files of `torch.save`, read without running anything that is in them.

`torch.load(weights_only=True)` builds tensors and plain containers. Real fairseq files also hold objects of fairseq,
omegaconf, argparse and enum classes, none of which is needed here: names of `INERT` are built as `Record`s, which only
keep what they are given. A file that asks for anything else is refused.
"""

import _compat_pickle
import pickle
import pickletools
import re
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from musicssl_jax.errors import UserError

INERT = re.compile(
    r"""
    fairseq\.[\w.]+ | omegaconf\.[\w.]+ | hydra\.[\w.]+   # configs, dictionaries, meters, enums of a training run
    | argparse\.Namespace | enum\.\w+ | pathlib\.\w*Path
    # Types in omegaconf's metadata; getitem makes List[float] of List.
    | typing\.\w+ | _?operator\.getitem | builtins\.(dict|list|tuple|str|int|float|bool|bytes|object|slice)
    | numpy\.dtype | numpy\.(core|_core)\.multiarray\.(scalar|_reconstruct) | numpy\.ndarray   # scores and timings
    """,
    re.VERBOSE,
)
LEGACY_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
LEGACY_PICKLES = 5
"""Before zip files, torch.save wrote so many pickles one after another, the first a number, then the tensors' bytes."""


class Record:
    """Stands for an object whose class is not here: its arguments and its state, and no behaviour."""

    def __init__(self, *args: Any, **_: Any):
        self.args = args

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)
        else:
            self.state = state


def is_torch_file(path: Path) -> bool:
    """Whether the file looks like torch.save's, by its first bytes; a zip file by what it lists."""
    with path.open("rb") as file:
        start = file.read(len(LEGACY_START))
    if start.startswith(b"PK"):
        try:
            with zipfile.ZipFile(path) as archive:
                return any(name.endswith("data.pkl") for name in archive.namelist())
        except Exception:  # as of `load_torch_file`, which says so
            return True
    return start == LEGACY_START[: len(start)] != b""


def load_torch_file(path: Path) -> Any:
    """What `torch.save` put there, tensors on the CPU, unknown objects as `Record`s.

    UserError: PyTorch is not installed; the file asks for other classes or functions, is damaged or cut short.
    """
    torch = import_torch()
    try:
        names = set(_globals_in(path))
    except UserError:
        raise
    except Exception as error:  # what zipfile and pickletools make of damaged bytes is nowhere listed
        raise UserError(f"{path} is damaged or cut short ({_first_line(error)}): copy it again") from None
    stand_ins: list[Any] = [
        (type(name.rpartition(".")[2], (Record,), {}), name) for name in names if INERT.fullmatch(name)
    ]
    stand_ins.append((_plain_dict, "collections.defaultdict"))
    with torch.serialization.safe_globals(stand_ins):
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            refused = re.search(r"GLOBAL (\S+)", str(error))
            if not refused:
                raise UserError(f"{path} cannot be read ({_first_line(error)}): it is damaged") from None
            raise UserError(
                f"{path} asks to load {refused[1]}, which is neither a tensor nor part of a fairseq "
                "checkpoint: refused, since such a file can run any program"
            ) from None
        except Exception as error:  # the same of torch's unpickler
            raise UserError(f"{path} is damaged or cut short ({_first_line(error)}): copy it again") from None


def save_torch_file(content: dict[str, Any], path: Path) -> None:
    """Writes plain containers and tensors, whole or not at all. UserError: the disk is full, the folder missing."""
    torch = import_torch()
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as file:
            torch.save(content, file)
        unfinished.replace(path)
    except (OSError, RuntimeError) as error:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {_first_line(error)}") from None


def to_numpy(tensor: Any) -> np.ndarray:
    """A torch tensor as an array; bfloat16, which NumPy lacks, as ml_dtypes'."""
    torch = import_torch()
    tensor = tensor.detach().contiguous()
    if tensor.dtype == torch.bfloat16:
        import ml_dtypes

        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def to_torch(array: np.ndarray) -> Any:
    """The same backwards."""
    torch = import_torch()
    if str(array.dtype) == "bfloat16":
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(np.array(array))


def import_torch() -> Any:
    """The torch module. UserError: it is not installed."""
    try:
        import torch
    except ImportError:
        raise UserError(
            "files of torch.save (.pt, .bin) are read and written with PyTorch, which is not installed: "
            "pip install 'musicssl_jax[fairseq]'"
        ) from None
    return torch


def _globals_in(path: Path) -> Iterator[str]:
    """Names of all classes and functions that the file's pickles mention; nothing is loaded.

    UserError: names in the archive lead out of it.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", name) or ":" in name:
                    raise UserError(f"{path} is an archive whose entry {name!r} leads out of it: refused")
            if wrong := archive.testzip():  # torch.load does not look at the checksums
                raise ValueError(f"{wrong} differs from its checksum")
            for name in archive.namelist():
                if name.endswith("data.pkl"):
                    with archive.open(name) as file:
                        yield from _globals_of_pickle(file)
        return
    with path.open("rb") as file:
        if file.read(2) == b"PK":
            raise ValueError("a zip archive without its end")
        file.seek(0)
        for _ in range(LEGACY_PICKLES):
            yield from _globals_of_pickle(file)


def _globals_of_pickle(file: Any) -> Iterator[str]:
    strings: list[str] = []
    for operation, argument, _ in pickletools.genops(file):
        if operation.name in ("GLOBAL", "INST"):
            module, name = str(argument).split(" ", 1)
            yield _todays_global(module, name)
        elif operation.name == "STACK_GLOBAL":
            yield ".".join(strings[-2:])
        elif isinstance(argument, str):
            strings.append(argument)


def _todays_global(module: str, name: str) -> str:
    """The name that PyTorch looks up: pickles of torch.save write `builtins.int` as Python 2's `__builtin__ long`."""
    if (module, name) in _compat_pickle.NAME_MAPPING:
        return ".".join(_compat_pickle.NAME_MAPPING[module, name])
    return f"{_compat_pickle.IMPORT_MAPPING.get(module, module)}.{name}"


def _plain_dict(*_: Any) -> dict:
    return {}


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
