"""From encoders and data sets to results: each recording through an encoder once, probes on what is stored."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from musicssl_jax.errors import UserError
from musicssl_jax.mir.contestants import Contestant
from musicssl_jax.mir.features.extract import ensure_features, windows_name
from musicssl_jax.mir.features.precomputed import PrecomputedFeatures
from musicssl_jax.mir.features.store import FeatureStore
from musicssl_jax.mir.probed_beats import probe_beats
from musicssl_jax.mir.probed_task import Answers, Say, probe_task
from musicssl_jax.mir.probing.settings import Settings, settings_for
from musicssl_jax.mir.report.results import EncoderKind, ProbedEncoder, TaskResult, slug
from musicssl_jax.mir.tasks.completeness import checked
from musicssl_jax.mir.tasks.split_hash import split_sha256
from musicssl_jax.mir.tasks.task import PARTS, Example, Missing, ProtocolName, Recording, Task, TaskData
from musicssl_jax.training.run_folder import package_versions

VERSION = 1
"""Of all that changes scores and is named by nothing else."""

EPOCHS = {"nsynth": 50}
"""MARBLE v1's, where it is not 100."""


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
) -> list[TaskResult]:
    """All results, which are saved as they come; those that are there already are not made again.

    Of several processes all make features, and the first alone has results.
    Raises UserError: features cannot be made, or a task has too few recordings that can be used.
    """
    groups = _by_audio(found, options.protocol)
    passes = [_OnDemand(contestant, group, options) for contestant in contestants for group in groups]
    if jax.process_count() > 1:
        for features in passes:
            features.made_together()
    if jax.process_index() > 0:
        return []
    results = []
    for features in passes:
        contestant = features.contestant
        for task, data in features.group:
            say(f"{contestant.name}: {task.name}")
            result = _finished(contestant, task, data, features, options)
            if result is None:
                result = _evaluate_task(contestant, task, data, features, options, say)
                if result is None:
                    continue
                result.save(options.output)
            results.append(result)
            said = f"{result.metric} {np.mean(result.main_scores):.3f}"
            say(f"{contestant.name}: {task.name}: {said}")
    return results


def protocol_id(task: Task, settings: Settings, protocol: ProtocolName) -> str:
    """All that changes scores but for encoder and split."""
    of_task = task.protocols[protocol]
    return "; ".join(
        [
            f"{protocol} {VERSION}",
            f"windows {windows_name(of_task.windows)}",
            f"answers by {of_task.unit}",
            *([f"the best of {', '.join(of_task.ensembles)} on validation"] if of_task.ensembles else []),
            "features standardised on train" if settings.standardise else "features as they are",
            f"mean of {settings.average}",
            f"batches of {settings.batch}, at most {settings.epochs} epochs, patience {settings.patience_rate} and "
            f"{settings.patience_stop}",
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
    return settings_for(options.protocol, task=task.name, seeds=options.seeds, epochs=epochs)


def _finished(
    contestant: Contestant, task: Task, data: TaskData, features: _OnDemand, options: Options
) -> TaskResult | None:
    """The result of an earlier command that asked for the same."""
    path = options.output / slug(contestant.name) / f"{task.name}.json"
    try:
        result = TaskResult.load(path)
    except UserError:  # there is none, or its writer was killed
        return None
    wanted = {
        "protocol_id": protocol_id(task, _settings(task, options), options.protocol),
        "split_sha256": split_sha256(data),
        "seeds": tuple(range(options.seeds)),
    }
    same = all(getattr(result, name) == value for name, value in wanted.items())
    networks = [network for network in options.networks if task.kind != "beats" or network != "knn"]
    same = same and list(result.scores) == networks and result.encoder.sha256 == features.sha256
    if not same:
        return None
    found = contestant.contamination.get(task.name)
    return dataclasses.replace(result, contamination=found)


def _evaluate_task(
    contestant: Contestant, task: Task, data: TaskData, features: _OnDemand, options: Options, say: Say
) -> TaskResult | None:
    """None: this contestant cannot be asked."""
    layers = features.beat_layers
    if task.kind == "beats" and not layers:
        say(f"{contestant.name}: left out of {task.name}: it has no frames")
        return None
    split, settings = split_sha256(data), _settings(task, options)
    got = features.get()
    data = _without_rejected(task, data, got.rejected, options.max_missing)
    examples = sorted(data.examples, key=lambda example: example.recording)
    if task.kind == "beats":
        answers = probe_beats(task, examples, got, layers, settings, options.networks, say)  # type: ignore[arg-type]
    else:
        protocol = task.protocols[options.protocol]
        answers = probe_task(task, protocol, examples, got, settings, options.networks, say)
    return _result(contestant, task, data, examples, answers, features.sha256, split, settings, options)


def _without_rejected(task: Task, data: TaskData, rejected: Mapping[str, str], max_missing: float) -> TaskData:
    """Without recordings that have no features. UserError: too many, or a part is empty."""
    gone = [example for example in data.examples if example.recording in rejected]
    if not gone:
        return data
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
    sha256: str,
    split: str,
    settings: Settings,
    options: Options,
) -> TaskResult:
    source = contestant.source
    kind: EncoderKind = "files" if isinstance(source, Path) else source.kind
    notes = () if isinstance(source, Path) else source.notes
    return TaskResult(
        task=task.name,
        protocol=options.protocol,
        protocol_id=protocol_id(task, settings, options.protocol),
        split_sha256=split,
        counts={part: sum(example.part == part for example in examples) for part in PARTS},
        missing=len(data.missing),
        encoder=ProbedEncoder(contestant.name, kind, sha256, contestant.seeds, notes),
        seeds=settings.seeds,
        main_network=options.networks[0],
        contamination=contestant.contamination.get(task.name),
        versions=package_versions(),
        notes=data.notes,
        **{field.name: getattr(answers, field.name) for field in dataclasses.fields(answers)},
    )
