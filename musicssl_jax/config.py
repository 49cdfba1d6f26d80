"""Configs: a Python file, a variant of it, and fields given on the command line.

    --config=configs/music2vec.py:crop5s --config.batch.clips=64 --config.data.path=~/Music

A config file has `get_config(variant) -> ConfigDict` and `VARIANTS`, whose keys are the variants' names.
"""

import ast
import difflib
import importlib.util
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from musicssl_jax.command import ArgumentParser
from musicssl_jax.config_checks import check
from musicssl_jax.distributed import distributed_flags
from musicssl_jax.errors import UserError

DEFAULT_FILE = "configs/music2vec.py"
PACKAGE = Path(__file__).parent
# Beside the package in a checkout, inside of it in an installed wheel.
PACKAGED_CONFIGS = (PACKAGE / "configs", PACKAGE.parent / "configs")


def load(argv: Sequence[str]) -> tuple[ConfigDict, list[str]]:
    """What to train: the config that the `--config...` flags in `argv` describe, and the arguments that are left.

    With neither a variant nor a `data.path`, it is the file's `demo` variant if there is one. The config is
    locked: its fields can be set, none can be added. `config.name` is made of the names of file and variant.

    UserError: no such file, variant or field; a value of another type; a value that makes no sense (`check`).
    """
    source, overrides, rest = _split_arguments(argv)
    file, _, variant = source.partition(":")
    module = _import_file(_find(file))
    if not variant and "data.path" not in dict(overrides) and "demo" in module.VARIANTS:
        variant = "demo"
    config = _get_variant(module, file, variant)
    for field, text in overrides:
        _override(config, field, text)
    config.data.path = _expand(config.data.path)
    check(config)
    return config.lock(), rest


def read(source: str) -> ConfigDict:
    """The config that FILE.py[:VARIANT] names, as it stands there. UserError: as for `load`."""
    file, _, variant = source.partition(":")
    config = _get_variant(_import_file(_find(file)), file, variant)
    check(config)
    return config.lock()


def _expand(paths: str) -> str:
    return ",".join(os.path.expanduser(path) for path in paths.split(","))


class RunFlags(NamedTuple):
    """What a training command is told beside its config."""

    workdir: str
    allow_change: tuple[str, ...]
    distributed: str
    heartbeat: int


def run_flags(argv: Sequence[str], config: ConfigDict) -> RunFlags:
    """`--workdir=RUN` and `--allow_change=FIELD[,FIELD]` from the arguments that `load` left.

    The default folder is named by the config, so that the same command finds its run again.
    UserError: another flag; a field that the config lacks.
    """
    parser = ArgumentParser(
        prog="musicssl train",
        description="Pre-trains an encoder. The same command again goes on from the last checkpoint.",
        epilog=f"--config=FILE.py[:VARIANT] (default {DEFAULT_FILE}) names the settings, "
        "--config.FIELD=VALUE changes one.",
    )
    parser.add_argument("--workdir", default=f"runs/{config.name}", help="folder of the run (default %(default)s)")
    parser.add_argument(
        "--allow_change",
        default="",
        metavar="FIELD[,FIELD]",
        help="fields that may differ from the run's checkpoint",
    )
    distributed_flags(parser)
    flags = parser.parse_args(argv)
    allow_change = tuple(filter(None, flags.allow_change.split(",")))
    for field in allow_change:
        _value(config, field)
    return RunFlags(os.path.expanduser(flags.workdir), allow_change, flags.distributed, flags.heartbeat)


def to_json(config: ConfigDict) -> str:
    """The config as readable JSON; `from_json` gives it back."""
    return config.to_json(indent=2)


def from_json(text: str) -> ConfigDict:
    """A config from what `to_json` made. JSON has no tuples: its lists become tuples, as in every config."""
    return ConfigDict(_with_tuples(json.loads(text))).lock()


def _split_arguments(argv: Sequence[str]) -> tuple[str, list[tuple[str, str]], list[str]]:
    """(FILE[:VARIANT], [(field, text)], the rest); both `--flag=value` and `--flag value` are understood."""
    source, overrides, rest = DEFAULT_FILE, [], []
    arguments = iter(argv)
    for argument in arguments:
        flag, equals, text = argument.partition("=")
        if flag != "--config" and not flag.startswith("--config."):
            rest.append(argument)
            continue
        if not equals:
            text = next(arguments, "--")
            if text.startswith("--"):
                raise UserError(f"{flag} needs a value: {flag}=...")
        if flag == "--config":
            source = text
        else:
            overrides.append((flag.removeprefix("--config."), text))
    return source, overrides, rest


def _find(file: str) -> Path:
    """The file itself, or the one of that name that came with the package if it is called configs/NAME.py."""
    path = Path(file).expanduser()
    if path.is_file():
        return path
    packaged = [folder / path.name for folder in PACKAGED_CONFIGS if (folder / path.name).is_file()]
    if packaged and path.parent == Path("configs"):
        return packaged[0]
    known = sorted({f"configs/{found.name}" for folder in PACKAGED_CONFIGS for found in folder.glob("*.py")})
    raise UserError(f"--config={file}: there is no such file; with the package come {', '.join(known)}")


def _import_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"--config={path}: a config is a Python file, FILE.py[:VARIANT]")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    for name in ("get_config", "VARIANTS"):
        if not hasattr(module, name):
            raise UserError(f"--config={path}: the file has no {name}, which a config needs (see configs/music2vec.py)")
    return module


def _get_variant(module: ModuleType, file: str, variant: str) -> ConfigDict:
    if variant and variant not in module.VARIANTS:
        near = _nearest(variant, module.VARIANTS)
        raise UserError(f"--config={file}:{variant}: no such variant{near}; there are {', '.join(module.VARIANTS)}")
    config = module.get_config(variant or None)
    config.name = "_".join(filter(None, (Path(file).stem, variant)))
    return config


def _override(config: ConfigDict, field: str, text: str) -> None:
    """Sets a field, by its dotted name, to the value that `text` spells in the type the field has now."""
    current = _value(config, field)
    if isinstance(current, ConfigDict):
        raise UserError(
            f"--config.{field}: a group of fields; one of them is --config.{field}.{next(iter(current))}=..."
        )
    named = isinstance(current, tuple) and current and isinstance(current[0], str)
    parse, expected = (_parse_names, "names with commas between") if named else _SPELLINGS[type(current)]
    try:
        value = parse(text)
    except (ValueError, SyntaxError, KeyError):
        raise UserError(f"--config.{field}={text}: expected {expected}, such as {current!r}") from None
    group, _, name = field.rpartition(".")
    (_value(config, group) if group else config)[name] = value


def _parse_tuple(text: str) -> tuple:
    value = ast.literal_eval(text)
    return _with_tuples(value) if isinstance(value, list | tuple) else (value,)


def _parse_names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _parse_float(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError
    return value


_TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_SPELLINGS: dict[type, tuple[Callable[[str], Any], str]] = {
    bool: (lambda text: _TRUTH[text.lower()], "true or false"),
    int: (int, "a whole number"),
    float: (_parse_float, "a finite number"),
    str: (str, "text"),
    tuple: (_parse_tuple, "values with commas between"),
}


def _value(config: ConfigDict, field: str) -> Any:
    """The field of a dotted name. UserError, with the nearest name: there is no such field."""
    value = config
    for name in field.split("."):
        if not isinstance(value, ConfigDict) or name not in value:
            raise UserError(f"config.{field}: there is no such field{_nearest(field, tuple(_fields(config)))}")
        value = value[name]
    return value


def _fields(config: ConfigDict, prefix: str = "") -> Iterator[str]:
    """Dotted names of all fields."""
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            yield from _fields(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def _nearest(name: str, known: Iterable[str]) -> str:
    """'; did you mean ...?' for a misspelt name or one without its group; empty if nothing is near."""
    same_leaf = [field for field in known if field.rpartition(".")[2] == name.rpartition(".")[2]]
    near = same_leaf or difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _with_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _with_tuples(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return tuple(map(_with_tuples, value))
    return value
