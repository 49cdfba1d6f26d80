"""Metrics of a run: `metrics.jsonl`, TensorBoard event files, and Weights & Biases if asked.

`metrics.jsonl` has one JSON object a line: `step` and flat names in families (`train/loss`). JSON has no NaN
and no infinities: both are written as null and read back as NaN. A resumed run appends; of several values
of a name at a step the last counts, and a step lower than the one before it starts a resumed run, which
replaces everything that was logged beyond it.
"""

import json
import math
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from musicssl_jax.errors import UserError
from musicssl_jax.training.event_file import EventFile

FILE = "metrics.jsonl"

Sink = Callable[[int, Mapping[str, float]], None]


def open_metrics(workdir: Path, *, resumed_step: int, config: Any) -> "Metrics":
    """Opens the sinks of a run for appending; only the first process of several writes.

    A line that a killed process left half-written is cut off.

    Args:
        workdir: the run's folder.
        resumed_step: the step that training goes on from, 0 for a new run.
        config: the resolved config; its field `wandb` asks for Weights & Biases.

    Raises:
        UserError: wandb is asked for and not installed, or the folder cannot be written.
    """
    if jax.process_index() != 0:
        return Metrics(workdir, ())
    try:
        sinks = [_json_lines(workdir / FILE), _tensorboard(workdir / "tensorboard", resumed_step)]
    except OSError as error:
        raise _unwritable(workdir, error) from error
    if config.wandb:
        sinks.append(_wandb(workdir, config))
    return Metrics(workdir, sinks)


class Metrics:
    """Writes rows to sinks: pairs of (write a row, close)."""

    def __init__(self, workdir: Path, sinks: "list[tuple[Sink, Callable[[], None]]] | tuple[()]"):
        self._workdir = workdir
        self._sinks = sinks

    def write(self, step: int, row: Mapping[str, Any]) -> None:
        """Writes numbers by name; they are on disk when it returns. Raises UserError when they cannot be."""
        numbers = {name: float(value) for name, value in row.items()}
        try:
            for write, _ in self._sinks:
                write(step, numbers)
        except OSError as error:
            raise _unwritable(self._workdir, error) from error

    def close(self) -> None:
        for _, close in self._sinks:
            close()


def read_metrics(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Series by name, (steps, values) in the order of steps; empty when there is no such file yet.

    Lines that are not JSON objects with a step are passed over: the last one may be half-written.
    """
    if not path.exists():
        return {}
    series: dict[str, dict[int, float]] = {}
    newest = 0
    for line in path.read_text(errors="replace").splitlines():
        row = _parse(line)
        if row is None:
            continue
        step = row.pop("step")
        if step < newest:
            series = {n: {s: v for s, v in points.items() if s < step} for n, points in series.items()}
        newest = step
        for name, value in row.items():
            series.setdefault(name, {})[step] = math.nan if value is None else value
    return {
        name: (np.array(sorted(points)), np.array([points[step] for step in sorted(points)]))
        for name, points in series.items()
        if points
    }


def _parse(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("step"), int) else None


def _json_lines(path: Path) -> tuple[Sink, Callable[[], None]]:
    file = path.open("ab+")
    file.seek(0)
    file.truncate(file.read().rfind(b"\n") + 1)

    def write(step: int, row: Mapping[str, float]) -> None:
        finite = {name: value if math.isfinite(value) else None for name, value in row.items()}
        file.write(json.dumps({"step": step, **finite}).encode() + b"\n")
        file.flush()

    return write, file.close


def _tensorboard(folder: Path, resumed_step: int) -> tuple[Sink, Callable[[], None]]:
    file = EventFile(folder, resumed_step)
    return file.write, file.close


def _wandb(workdir: Path, config: Any) -> tuple[Sink, Callable[[], None]]:
    try:
        import wandb
    except ImportError:
        raise UserError(
            "wandb=true, but wandb is not installed: pip install 'musicssl_jax[wandb]', or --config.wandb=false"
        ) from None
    id_file = workdir / "wandb_id"
    if not id_file.exists():
        id_file.write_text(secrets.token_hex(4))
    run = wandb.init(
        project="musicssl_jax",
        name=workdir.name,
        id=id_file.read_text(),
        resume="allow",
        dir=workdir,
        config=config.to_dict(),
    )
    return lambda step, row: run.log(dict(row), step=step), run.finish


def _unwritable(workdir: Path, error: OSError) -> UserError:
    return UserError(
        f"cannot write metrics to {workdir} ({error.strerror}): "
        "make room or permit writing, then run the same command again"
    )
