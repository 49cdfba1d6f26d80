"""From encoders and data sets to results: each recording through an encoder once, probes on what is stored."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from musicssl_jax.errors import UserError
from musicssl_jax.mir.contestants import Contestant
from musicssl_jax.mir.features.encoders import EncoderKind
from musicssl_jax.mir.features.extract import ensure_features, windows_name
from musicssl_jax.mir.features.precomputed import PrecomputedFeatures
from musicssl_jax.mir.features.recordings import source_of
from musicssl_jax.mir.features.store import FeatureStore
from musicssl_jax.mir.probed_beats import probe_beats
from musicssl_jax.mir.probed_task import Answers, Say, probe_task
from musicssl_jax.mir.probing.settings import Settings, for_frames, settings_for
from musicssl_jax.mir.report.results import ProbedEncoder, TaskResult, slug
from musicssl_jax.mir.tasks.completeness import checked
from musicssl_jax.mir.tasks.split_hash import split_sha256
from musicssl_jax.mir.tasks.task import PARTS, Example, Missing, ProtocolName, Recording, Task, TaskData
from musicssl_jax.training.run_folder import package_versions

VERSION = 1
"""Of all that changes scores and is named by nothing else."""

EPOCHS = {"nsynth": 50}
"""MARBLE v1's, where it is not 100."""


class Failure(NamedTuple):
    """What of the table could not be made, and why."""

    encoder: str
    task: str
    reason: str


class Options(NamedTuple):
    """How it is done. networks: the first is the one that stands in the table. beat_layers: None: all."""

    protocol: ProtocolName
    networks: tuple[str, ...]
    seeds: int
    max_missing: float
    cache: Path
    output: Path
    beat_layers: tuple[int, ...] | None = None


def evaluate(
    contestants: Sequence[Contestant], found: Sequence[tuple[Task, TaskData]], options: Options, say: Say
) -> tuple[list[TaskResult], list[Failure]]:
    """All results, which are saved as they come; those that are there already are not made again.

    What cannot be made (features of one encoder, a task of whose recordings too few can be used) is among the
    failures, and does not keep the rest from being made. Of several processes all make features, and the first alone
    has results. Raises UserError: no encoder has one of `options.beat_layers`.
    """
    _check_beat_layers(contestants, options)
    groups = _by_audio(found, options.protocol)
    passes = [_OnDemand(contestant, group, options) for contestant in contestants for group in groups]
    if jax.process_count() > 1:
        for features in passes:
            features.made_together()
    if jax.process_index() > 0:
        return [], []
    results, failures = [], []
    for features in passes:
        name = features.contestant.name
        for task, data in features.group:
            say(f"{name}: {task.name}")
            try:
                result = _one_result(task, data, features, options, say)
            except UserError as error:
                failures.append(Failure(name, task.name, str(error)))
                say(f"{name}: {task.name}: {error}")
                continue
            if result is not None:
                results.append(result)
                say(f"{name}: {task.name}: {result.metric} {np.mean(result.main_scores):.3f}")
    return results, failures


def _one_result(task: Task, data: TaskData, features: "_OnDemand", options: Options, say: Say) -> TaskResult | None:
    """From an earlier command, or made and saved now. None: this contestant cannot be asked."""
    contestant = features.contestant
    result = _finished(contestant, task, data, features, options)
    if result is None:
        result = _evaluate_task(contestant, task, data, features, options, say)
        if result is not None:
            result.save(options.output)
    return result


def _check_beat_layers(contestants: Sequence[Contestant], options: Options) -> None:
    layers = [c.source.layers for c in contestants if not isinstance(c.source, Path) and c.source.frame_rate]
    wanted = max(options.beat_layers or (0,))
    if layers and wanted >= max(layers):
        raise UserError(f"--beat_layers: no encoder here has layer {wanted}; the last is {max(layers) - 1}")


def protocol_id(task: Task, settings: Settings, protocol: ProtocolName, *, windows: str = "") -> str:
    """All that changes scores but for encoder and split. windows: where they are not the protocol's."""
    of_task = task.protocols[protocol]
    rows = settings.rows_per_epoch
    return "; ".join(
        [
            f"{protocol} {VERSION}",
            f"windows {windows or windows_name(of_task.windows)}",
            f"answers by {of_task.unit}",
            *([f"the best of {', '.join(of_task.ensembles)} on validation"] if of_task.ensembles else []),
            "features standardised on train" if settings.standardise else "features as they are",
            f"mean of {settings.average}",
            f"batches of {settings.batch}, at most {settings.epochs} epochs, patience {settings.patience_rate} and "
            f"{settings.patience_stop}",
            *([f"{rows} rows an epoch"] if rows is not None else []),
            *([f"other sizes from {settings.large_rows} windows on"] if settings.large_rows is not None else []),
            f"{len(settings.rates)} rates {settings.rates[0]:g} to {settings.rates[-1]:g}",
        ]
    )


class _OnDemand:
    """The features of tasks on the same audio, made when the first of them is not finished yet."""

    def __init__(self, contestant: Contestant, group: Sequence[tuple[Task, TaskData]], options: Options):
        self.contestant, self.group, self.options = contestant, group, options
        self._features: FeatureStore | PrecomputedFeatures | None = None

    @property
    def sha256(self) -> str:
        source = self.contestant.source
        return self.get().sha256 if isinstance(source, Path) else source.sha256  # type: ignore[union-attr]

    @property
    def windows(self) -> str:
        """How they are cut, where that is not the protocol's to say."""
        return "as the files have them" if isinstance(self.contestant.source, Path) else ""

    def audio_sha256(self, data: TaskData) -> str:
        """Of the sizes and times of a task's audio files, by which replaced ones are noticed."""
        if isinstance(self.contestant.source, Path):
            return ""
        files = sorted((id, source_of(recording)) for id, recording in data.recordings.items())
        return hashlib.sha256(json.dumps(files).encode()).hexdigest()

    @property
    def beat_layers(self) -> tuple[int, ...]:
        source = self.contestant.source
        if isinstance(source, Path) or not source.frame_rate:
            return ()
        layers = range(source.layers) if self.options.beat_layers is None else self.options.beat_layers
        return tuple(layer for layer in layers if layer < source.layers)

    def made_together(self) -> None:
        """Makes what several processes share in; files from elsewhere are read by who needs them."""
        if not isinstance(self.contestant.source, Path):
            self.get()

    def get(self) -> FeatureStore | PrecomputedFeatures:
        if self._features is None:
            self._features = self._made()
        return self._features

    def _made(self) -> FeatureStore | PrecomputedFeatures:
        recordings: dict[str, Recording] = {}
        for _, data in self.group:
            recordings |= data.recordings
        source, first = self.contestant.source, self.group[0][0]
        if isinstance(source, Path):
            return PrecomputedFeatures(source, recordings.values(), self.options.cache)
        frames = self.beat_layers if any(task.kind == "beats" for task, _ in self.group) else ()
        windows = first.protocols[self.options.protocol].windows
        return ensure_features(
            source,
            list(recordings.values()),
            windows,
            self.options.cache,
            data_set=first.data_set,
            frames_of_layers=frames,
        )


def _by_audio(found: Sequence[tuple[Task, TaskData]], protocol: ProtocolName) -> list[list[tuple[Task, TaskData]]]:
    """Tasks whose features are the same: one data set, cut alike."""
    groups: dict[tuple, list[tuple[Task, TaskData]]] = {}
    for task, data in found:
        groups.setdefault((task.data_set, task.protocols[protocol].windows), []).append((task, data))
    return list(groups.values())


def _settings(task: Task, options: Options) -> Settings:
    epochs = EPOCHS.get(task.data_set, 100)
    settings = settings_for(options.protocol, task=task.name, seeds=options.seeds, epochs=epochs)
    return for_frames(settings) if task.kind == "beats" else settings


def _finished(
    contestant: Contestant, task: Task, data: TaskData, features: _OnDemand, options: Options
) -> TaskResult | None:
    """The result of an earlier command that asked for the same."""
    path = options.output / slug(contestant.name) / f"{task.name}.json"
    try:
        result = TaskResult.load(path)
    except UserError:  # there is none, or its writer was killed
        return None
    settings = _settings(task, options)
    wanted = {
        "protocol_id": protocol_id(task, settings, options.protocol, windows=features.windows),
        "split_sha256": split_sha256(data),
        "audio_sha256": features.audio_sha256(data),
        "seeds": settings.seeds,
    }
    if task.kind == "beats":
        wanted["layer_names"] = tuple(map(str, features.beat_layers))
    same = all(getattr(result, name) == value for name, value in wanted.items())
    networks = [network for network in options.networks if task.kind != "beats" or network != "knn"]
    same = same and list(result.scores) == networks and result.encoder.sha256 == features.sha256
    if not same or not _has_the_same_examples(result, task, data, features, options):
        return None
    found = contestant.contamination.get(task.name)
    if found is not None and found != result.contamination:
        result = dataclasses.replace(result, contamination=found)
        result.save(options.output)
    return result


def _has_the_same_examples(
    result: TaskResult, task: Task, data: TaskData, features: _OnDemand, options: Options
) -> bool:
    """Recordings that could not be used then are tried again. UserError: too many of them cannot be used now."""
    if result.missing != len(data.missing):
        data = _without_rejected(task, data, features.get().rejected, options.max_missing)
    return result.missing == len(data.missing) and dict(result.counts) == _counts(data.examples)


def _counts(examples: Sequence[Example]) -> dict[str, int]:
    return {part: sum(example.part == part for example in examples) for part in PARTS}


def _evaluate_task(
    contestant: Contestant, task: Task, data: TaskData, features: _OnDemand, options: Options, say: Say
) -> TaskResult | None:
    """None: this contestant cannot be asked."""
    layers = features.beat_layers
    if task.kind == "beats" and not layers:
        say(f"{contestant.name}: left out of {task.name}: it has no frames")
        return None
    digests, settings = (split_sha256(data), features.audio_sha256(data)), _settings(task, options)
    got = features.get()
    data = _without_rejected(task, data, got.rejected, options.max_missing)
    examples = sorted(data.examples, key=lambda example: example.recording)
    if task.kind == "beats":
        answers = probe_beats(task, examples, got, layers, settings, options.networks, say)  # type: ignore[arg-type]
    else:
        protocol = task.protocols[options.protocol]
        answers = probe_task(task, protocol, examples, got, settings, options.networks, say)
    return _result(contestant, task, data, examples, answers, features, digests, settings, options)


def _without_rejected(task: Task, data: TaskData, rejected: Mapping[str, str], max_missing: float) -> TaskData:
    """Without recordings that have no features. UserError: too many, or a part is empty."""
    gone = [example for example in data.examples if example.recording in rejected]
    if not gone:
        return data
    if len(gone) == len(data.examples):
        first = gone[0].recording
        raise UserError(f"{task.name}: none of its recordings has features; {first}: {rejected[first]}")
    missing = tuple(Missing(e.recording, e.part, rejected[e.recording]) for e in gone)
    kept = tuple(example for example in data.examples if example.recording not in rejected)
    less = dataclasses.replace(data, examples=kept, missing=data.missing + missing, notes=())
    return checked(less, task, max_missing)


def _result(
    contestant: Contestant,
    task: Task,
    data: TaskData,
    examples: Sequence[Example],
    answers: Answers,
    features: _OnDemand,
    digests: tuple[str, str],
    settings: Settings,
    options: Options,
) -> TaskResult:
    """digests: of the split and of the audio, as it was before the encoder read it."""
    source = contestant.source
    kind: EncoderKind = "files" if isinstance(source, Path) else source.kind
    notes = () if isinstance(source, Path) else source.notes
    return TaskResult(
        task=task.name,
        protocol=options.protocol,
        protocol_id=protocol_id(task, settings, options.protocol, windows=features.windows),
        split_sha256=digests[0],
        audio_sha256=digests[1],
        counts=_counts(examples),
        missing=len(data.missing),
        encoder=ProbedEncoder(contestant.name, kind, features.sha256, contestant.seeds, notes),
        seeds=settings.seeds,
        main_network=options.networks[0],
        contamination=contestant.contamination.get(task.name),
        versions=package_versions(),
        notes=data.notes,
        **{field.name: getattr(answers, field.name) for field in dataclasses.fields(answers)},
    )
