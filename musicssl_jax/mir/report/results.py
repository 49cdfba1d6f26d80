"""What was measured of one encoder on one task, in two files: `TASK.json` to read, `TASK.npz` with the test outputs."""

import dataclasses
import hashlib
import io
import json
import math
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from musicssl_jax.errors import UserError
from musicssl_jax.mir.features.encoders import EncoderKind
from musicssl_jax.mir.tasks.catalogue import TASKS
from musicssl_jax.mir.tasks.task import PARTS, PROTOCOLS, ProtocolName

FORMAT = "musicssl task result 1"
WEIGHTED = "weighted"
"""Name of the layer choice that is a learned mean of all layers."""


@dataclass(frozen=True)
class ProbedEncoder:
    """sha256: of weights or features, "" where there are none. pretraining_seeds: None: not trained, or not known."""

    name: str
    kind: EncoderKind
    sha256: str = ""
    pretraining_seeds: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chosen:
    """What validation chose for a network. rate: None: it has none (kNN)."""

    layer: str
    rate: float | None
    valid_score: float


@dataclass(frozen=True)
class Contamination:
    """Shares of a part's recordings that were heard in pretraining; None: not looked for.

    examples: (recording of the task, pretraining track, seconds into that track).
    """

    train: float | None
    valid: float | None
    test: float | None
    examples: tuple[tuple[str, str, float], ...] = ()
    note: str = ""

    @property
    def found(self) -> bool:
        return any(share for share in (self.train, self.valid, self.test))


@dataclass(frozen=True, eq=False, kw_only=True)
class TaskResult:
    """Scores as fractions; NaN where there is none.

    protocol_id: equal where everything that changes scores, but for the encoder, is equal. missing: recordings that
    the split lists and that were not used. scores: network ("mlp", "linear", "knn") -> metric -> a score for each seed;
    networks without seeds have one. layer_scores_valid: network -> best validation score of each of `layer_names`, the
    last of which may be "weighted", which a network may lack. layer_weights: of the layers, or of all but the first.
    confusion: rows are the truth. seconds: what all of the task took.
    audio_sha256: of the sizes and times of its audio files; "" where features came without.

    Of the main network on the test part's units (recordings or windows): recording, group (units,), truth (units, ...),
    outputs (seeds, units, outputs). For beats instead of these two f (seeds, units): each track's main metric.

    Raises ValueError: parts do not agree with each other.
    """

    task: str
    protocol: ProtocolName
    protocol_id: str
    split_sha256: str
    counts: Mapping[str, int]
    encoder: ProbedEncoder
    seeds: tuple[int, ...]
    scores: Mapping[str, Mapping[str, Sequence[float]]]
    recording: np.ndarray
    group: np.ndarray
    truth: np.ndarray | None = None
    outputs: np.ndarray | None = None
    f: np.ndarray | None = None
    main_network: str = "mlp"
    missing: int = 0
    chosen: Mapping[str, Chosen] = dataclasses.field(default_factory=dict)
    layer_names: tuple[str, ...] = ()
    layer_scores_valid: Mapping[str, Sequence[float]] = dataclasses.field(default_factory=dict)
    layer_weights: tuple[float, ...] | None = None
    confusion: Sequence[Sequence[int]] | None = None
    contamination: Contamination | None = None
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    seconds: float = math.nan
    notes: tuple[str, ...] = ()
    audio_sha256: str = ""

    def __post_init__(self) -> None:
        problem = next(_problems(self), None)
        if problem:
            raise ValueError(problem)

    @property
    def metric(self) -> str:
        """The main metric's key in `scores`."""
        return TASKS[self.task].metric

    @property
    def output_names(self) -> tuple[str, ...]:
        return TASKS[self.task].outputs

    @property
    def main_scores(self) -> np.ndarray:
        """The main metric of the main network, one for each seed."""
        return np.asarray(self.scores[self.main_network][self.metric], np.float64)

    def save(self, folder: Path) -> Path:
        """Writes `folder/SLUG/TASK.json` and `.npz`, in place of older ones, and gives the first's path.

        A command that is killed in between leaves files that `load` refuses, or the older ones.
        Raises UserError: they cannot be written.
        """
        path = Path(folder) / slug(self.encoder.name) / f"{self.task}.json"
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **{name: a for name in _ARRAYS if (a := getattr(self, name)) is not None})
        content = {"format": FORMAT, "arrays_sha256": hashlib.sha256(buffer.getvalue()).hexdigest()} | to_json(self)
        write_file(path.with_suffix(".npz"), buffer.getvalue())
        write_file(path, json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False))
        return path

    @classmethod
    def load(cls, path: Path) -> "TaskResult":
        """Raises UserError: `path` or the .npz beside it is missing, damaged, half written or something else."""
        path = Path(path)
        content = _read_json(path)
        try:
            arrays = path.with_suffix(".npz").read_bytes()
        except OSError as error:
            raise UserError(
                f"{path.with_suffix('.npz')}: cannot read it ({error.strerror}); evaluate {path.stem} again"
            ) from None
        if hashlib.sha256(arrays).hexdigest() != content.get("arrays_sha256"):
            raise UserError(f"{path.with_suffix('.npz')}: not what {path.name} was written with; evaluate again")
        try:
            with np.load(io.BytesIO(arrays), allow_pickle=False) as file:
                return cls(**_fields(content), **{name: file[name] for name in _ARRAYS if name in file})
        except (AttributeError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
            reason = f"no field {error}" if isinstance(error, KeyError) else str(error).strip().partition("\n")[0]
            raise UserError(f"{path}: not a whole task result ({reason}); evaluate {path.stem} again") from None


def read_results(folder: Path) -> list[TaskResult]:
    """All of a folder that `save` wrote into, or of one encoder's folder in it, by encoder and task.

    Raises UserError: there is none, or one is damaged.
    """
    paths = [path for pattern in ("*.json", "*/*.json") for path in sorted(Path(folder).glob(pattern))]
    results = [TaskResult.load(path) for path in paths if path.stem in TASKS]
    if not results:
        raise UserError(f"{folder}: holds no results (ENCODER/TASK.json); write some with `musicssl evaluate`")
    return results


def slug(name: str) -> str:
    """A folder's name for an encoder. Where signs had to be left out, a hash keeps the names of two apart."""
    plain = re.sub(r"[^A-Za-z0-9._+=-]+", "_", name).strip("._")[:80]
    return plain if plain and plain == name else f"{plain or 'encoder'}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def write_file(path: Path, content: str | bytes) -> None:
    """Whole or not at all, in place of an older one; makes its folder. Raises UserError: it cannot be written."""
    unfinished = path.with_name(f".{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(content.encode() if isinstance(content, str) else content)
        unfinished.replace(path)
    except OSError as error:
        reason = "its folder is a file" if isinstance(error, FileExistsError | NotADirectoryError) else error.strerror
        remedy = "give an --output that can be written, or free some disk"
        raise UserError(f"{path} cannot be written ({reason}): {remedy}") from None


def to_json(result: TaskResult) -> dict[str, Any]:
    """All but the arrays, with null for what is not a number."""
    named = {f.name: getattr(result, f.name) for f in dataclasses.fields(result) if f.name not in _ARRAYS}
    return _plain(named | {"metric": result.metric, "outputs": result.output_names})


_ARRAYS = ("recording", "group", "truth", "outputs", "f")
_DERIVED = ("format", "arrays_sha256", "metric", "outputs")


def _problems(result: TaskResult) -> Iterator[str]:
    if result.task not in TASKS:
        yield f"there is no task {result.task!r}"
        return
    if result.protocol not in PROTOCOLS or result.encoder.kind not in get_args(EncoderKind):
        yield f"protocol {result.protocol!r}, encoder of kind {result.encoder.kind!r}: unknown"
    if set(result.counts) != set(PARTS):
        yield f"counts of {', '.join(result.counts)} instead of {', '.join(PARTS)}"
    seeds, units, main = len(result.seeds), len(result.recording), result.scores.get(result.main_network, {})
    if len(main.get(result.metric, ())) != seeds or not seeds:
        yield f"no {result.metric} of {result.main_network} for each of {seeds} seeds"
    if result.group.shape != (units,) or result.recording.ndim != 1:
        yield f"{units} units, groups of shape {result.group.shape}"
    if TASKS[result.task].kind == "beats":
        if result.f is None or result.f.shape != (seeds, units):
            yield f"no F-measures of {seeds} seeds and {units} tracks"
    elif result.truth is None or len(result.truth) != units:
        yield f"no truth of {units} units"
    elif result.outputs is None or result.outputs.shape != (seeds, units, len(result.output_names)):
        yield f"no outputs of {seeds} seeds, {units} units and {len(result.output_names)} names"
    layers = sum(name != WEIGHTED for name in result.layer_names)
    if any(len(scores) not in (layers, len(result.layer_names)) for scores in result.layer_scores_valid.values()):
        yield f"validation scores that are not of {len(result.layer_names)} choices of a layer"
    if result.layer_weights is not None and len(result.layer_weights) not in (layers - 1, layers):
        yield f"{len(result.layer_weights)} weights of {layers} layers"


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(part) for part in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot read it ({error.strerror})") from None
    except ValueError as error:
        raise UserError(f"{path}: damaged or half written ({error}); evaluate {path.stem} again") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{path}: not a task result of this version (no format {FORMAT!r}); give a results folder")
    return content


def _fields(content: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a TaskResult from JSON: tuples for lists, NaN for null where there are numbers."""
    fields = {name: value for name, value in content.items() if name not in _DERIVED}
    encoder, contamination = dict(fields["encoder"]), fields["contamination"]
    encoder["notes"] = tuple(encoder["notes"])
    if contamination is not None:
        examples = tuple((str(a), str(b), float(seconds)) for a, b, seconds in contamination["examples"])
        contamination = Contamination(**contamination | {"examples": examples})
    weights = fields["layer_weights"]
    return fields | {
        "encoder": ProbedEncoder(**encoder),
        "seeds": tuple(fields["seeds"]),
        "scores": {n: {m: _numbers(s) for m, s in metrics.items()} for n, metrics in fields["scores"].items()},
        "chosen": {
            n: Chosen(c["layer"], c["rate"], _numbers([c["valid_score"]])[0]) for n, c in fields["chosen"].items()
        },
        "layer_names": tuple(fields["layer_names"]),
        "layer_scores_valid": {n: _numbers(s) for n, s in fields["layer_scores_valid"].items()},
        "layer_weights": None if weights is None else _numbers(weights),
        "contamination": contamination,
        "seconds": _numbers([fields["seconds"]])[0],
        "notes": tuple(fields["notes"]),
    }


def _numbers(values: Sequence[float | None]) -> tuple[float, ...]:
    return tuple(math.nan if value is None else float(value) for value in values)
