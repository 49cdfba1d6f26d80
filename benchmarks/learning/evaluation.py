"""What features know: pooled over the windows of every question, then probed."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.learning.questions import Asked
from musicssl_jax.frozen_encoder import chosen_states
from musicssl_jax.mir.pooling import mean_of_spans
from musicssl_jax.mir.probes import bootstrap_by_group, probe
from musicssl_jax.mir.probing.problem import TEST, TRAIN, VALID, Kind, Problem, blank_test
from musicssl_jax.mir.probing.settings import Settings
from musicssl_jax.mir.probing.training import Probe, train_probes
from musicssl_jax.models.encoder import NORMALIZE_EPSILON, encoder_with
from musicssl_jax.shapes import Float, Int
from musicssl_jax.targets.filter_bank import FrameGrid
from musicssl_jax.targets.front_ends import make_front_end
from musicssl_jax.targets.kmeans import assign

MLP_RATE = 1e-3
BATCH = 16
"""Windows that are encoded at once."""

Frames = Callable[[Float[np.ndarray, "B N"], Int[np.ndarray, " B"]], Float[np.ndarray, "layers B T D"]]
"""(windows, how many samples of each are audio) -> frames; what is behind the audio is silence."""


class Heard(NamedTuple):
    """What gives features. samples: of a window that it hears at a time. normalize: whether tracks come to it with zero
    mean and unit variance."""

    frames: Frames
    samples: int
    normalize: bool = False


class Answers(NamedTuple):
    """What a probe scored on test tracks. draws: the score on tracks drawn with replacement, the same for all who are
    asked the same. layers: validation score of each layer."""

    score: float
    draws: Float[np.ndarray, " draws"]
    layer: int
    layers: Float[np.ndarray, " layers"]


def encoder_frames(objective: Any, params: dict, layer_step: int) -> Frames:
    """Hidden states of every `layer_step`-th layer from 0, the blocks' input."""
    program = _encoder_program(objective.model, layer_step)
    return lambda audio, lengths: np.asarray(program(params["encoder"], audio, lengths))


@functools.cache
def _encoder_program(model: Any, layer_step: int):
    """One program for all encoders of a kind."""

    @jax.jit
    def states(params, audio, lengths):
        nowhere = jnp.zeros((len(audio), 1), jnp.int32)
        layers = range(0, model.layers + 1, layer_step)
        return chosen_states(encoder_with(model, params), audio, lengths, layers, nowhere, 0)

    return states


def front_end_frames(name: str, grid: FrameGrid) -> Frames:
    """Frames of a front end, one layer."""
    program = _front_end_program(name, grid)
    return lambda audio, _: np.asarray(program(audio))[None]


def code_frames(sets: Mapping[str, Float[np.ndarray, "K W"]], grid: FrameGrid) -> Frames:
    """One-hot labels of all label sets, one layer: a window's mean is a bag of codes. sets: centroids by front end."""
    programs = {name: _front_end_program(name, grid) for name in sets}

    def frames(audio, _):
        hot = [jax.nn.one_hot(assign(sets[name], programs[name](audio)), len(sets[name])) for name in sets]
        return np.concatenate(hot, axis=-1)[None]

    return frames


@functools.cache
def _front_end_program(name: str, grid: FrameGrid):
    front = make_front_end(name, **grid._asdict())

    @jax.jit
    def frames(kernels, audio):
        rows = len(audio)
        outside = jnp.zeros((rows, front.margin), audio.dtype)
        nothing = jnp.zeros(rows, jnp.int32)
        batch = {"audio": audio, "before": outside, "after": outside, "mean": jnp.zeros(rows), "std": jnp.ones(rows)}
        return front.apply(kernels, batch | {"real_before": nothing, "real_after": nothing})

    return functools.partial(frames, front.kernels)


def pooled(
    heard: Heard, tracks: Sequence[Float[np.ndarray, " samples"]], asked: Mapping[str, Asked], grid: FrameGrid
) -> dict[str, Float[np.ndarray, "layers windows D"]]:
    """By question, the mean frame of each of its windows, as evaluation pools."""
    found: dict[str, list] = {name: [] for name in asked}
    for number, (frames, times) in enumerate(_of_tracks(heard, tracks, grid)):
        for name, one in asked.items():
            found[name].append(mean_of_spans(frames, times, one.spans[number]))
    return {name: np.concatenate(parts, axis=1) for name, parts in found.items()}


def _of_tracks(heard: Heard, tracks: Sequence[Float[np.ndarray, " samples"]], grid: FrameGrid):
    """Frames of each track and their centres in seconds; as many windows at a time as fill a batch."""
    size = heard.samples
    counts = [-(-len(track) // size) for track in tracks]
    waiting: list[np.ndarray] = []
    first = 0  # of the tracks that wait
    for number, track in enumerate(tracks):
        if heard.normalize:
            track = (track - track.mean()) / np.sqrt(track.var() + NORMALIZE_EPSILON)
        waiting.append(np.pad(track, (0, counts[number] * size - len(track))).reshape(-1, size).astype(np.float32))
        if sum(map(len, waiting)) < BATCH and number + 1 < len(tracks):
            continue
        rows = np.concatenate(waiting)
        ends = [len(tracks[one]) - at * size for one in range(first, number + 1) for at in range(counts[one])]
        lengths = np.clip(ends, grid.receptive_field, size)  # of less than a frame there is one, all the same
        more = -len(rows) % BATCH
        rows, lengths = np.pad(rows, ((0, more), (0, 0))), np.pad(lengths, (0, more), constant_values=size)
        batches = zip(np.split(rows, len(rows) // BATCH), np.split(lengths, len(rows) // BATCH), strict=True)
        states = np.concatenate([heard.frames(*batch) for batch in batches], axis=1)
        for one in range(first, number + 1):
            mine, states = states[:, : counts[one]], states[:, counts[one] :]
            starts = np.arange(counts[one])[:, None] * size + np.arange(mine.shape[2]) * grid.hop + grid.centre
            inside = starts.ravel() < max(len(tracks[one]), grid.centre + 1)
            yield mine.reshape(len(mine), -1, mine.shape[-1])[:, inside], starts.ravel()[inside] / grid.sample_rate
        waiting, first = [], number + 1


def _in_range(features: Float[np.ndarray, "layers windows D"], asked: Asked) -> Float[np.ndarray, "layers windows D"]:
    """Every dimension kept to what training windows have of it.

    Probes standardise. A code that no training track has, or one of them for a moment, would be thousands of deviations
    large in the first other track that has it: one such track made R² of tempo -3 by a bag of codes that gets .2.
    """
    known = features[:, asked.parts.train]
    return np.clip(features, known.min(axis=1, keepdims=True), known.max(axis=1, keepdims=True))


def linear(features: Float[np.ndarray, "layers windows D"], asked: Asked) -> Answers:
    """Ridge regression; layer and penalty by validation."""
    found = probe(_in_range(features, asked), asked.task, asked.parts)
    return Answers(found.score, found.draws, found.layer, np.array(found.valid_score_by_layer))


def mlp(features: Float[np.ndarray, "layers windows D"], asked: Asked, epochs: int) -> Answers:
    """An MLP with one hidden layer of 512, trained as evaluation trains its probes, at one rate; layer and epoch by
    validation. Answers for windows of one track are averaged where tracks are scored."""
    task = asked.task
    first = unit = np.arange(len(task.labels))
    if task.per_group:
        _, first, unit = np.unique(task.groups, return_index=True, return_inverse=True)
    part = np.select([mask[first] for mask in asked.parts], (TRAIN, VALID, TEST))
    truth, groups = task.labels[first], task.groups[first]
    classes = np.unique(task.labels)
    kind: Kind = "class" if task.kind == "class" else "numbers"
    labels = np.searchsorted(classes, truth) if kind == "class" else truth[:, None].astype(np.float32)

    def predicted(answers: Float[np.ndarray, "n K"]) -> np.ndarray:
        return answers.argmax(axis=1) if kind == "class" else answers[:, 0]

    problem = Problem(
        layers=_InMemory(_in_range(features, asked)),
        unit=unit,
        part=part,
        labels=blank_test(labels, part, kind),
        kind=kind,
        outputs=len(classes) if kind == "class" else 1,
        score=lambda wanted, answers: task.score(wanted if kind == "class" else wanted[:, 0], predicted(answers)),
    )
    settings = Settings(rates=(MLP_RATE,), epochs=epochs, seeds=(0,))
    trained = train_probes(
        problem, [Probe(layer, MLP_RATE, 0) for layer in range(len(features))], settings, settings.hidden, keep=True
    )
    best = int(trained.scores.argmax())
    assert trained.answers is not None
    test = part == TEST
    wanted, given = (labels if kind == "class" else truth)[test], predicted(trained.answers[best][test])
    draws = bootstrap_by_group(lambda rows: task.score(wanted[rows], given[rows]), groups[test])
    return Answers(task.score(wanted, given), draws, best, trained.scores)


class _InMemory:
    """Features as probes read them."""

    def __init__(self, features: Float[np.ndarray, "layers rows D"]):
        self.features = features.astype(np.float32)
        self.count, self.rows, self.width = features.shape

    def layer(self, index: int) -> Float[np.ndarray, "rows D"]:
        return self.features[index]
