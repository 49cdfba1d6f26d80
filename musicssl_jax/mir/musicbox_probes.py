"""What features know of synthetic music: pitch and instrument of single notes, key and tempo of tracks."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from sklearn.metrics import r2_score

from musicssl_jax.mir.pooling import pool_spans
from musicssl_jax.mir.probes import ProbeResult, Score, Task, accuracy, probe, split_by_group
from musicssl_jax.shapes import Float

Track = tuple[Float[np.ndarray, " samples"], Mapping[str, Any]]
"""Waveform and truth, as `data_pipelines.musicbox.render_track` gives them."""

Frames = tuple[Float[np.ndarray, "layers T D"], Float[np.ndarray, " T"]]
"""Frames of one or more layers, and their centres in seconds."""

Representation = Callable[[Float[np.ndarray, " samples"]], Frames]

Example = tuple[float, float, Any]
"""(begin, end, label) of a window, in seconds."""

WINDOW_SECONDS = 5.0
VALID_SHARE, TEST_SHARE = 0.2, 0.4
CHANCE = "chance"


@dataclass(frozen=True)
class Question:
    """A task on a musicbox track: `examples(truth)` are its windows; the rest is as in `probes.Task`."""

    name: str
    examples: Callable[[Mapping[str, Any]], list[Example]]
    kind: Literal["class", "number"]
    score: Score
    per_group: bool = False


def solo_notes(label: str) -> Callable[[Mapping[str, Any]], list[Example]]:
    """The notes that sound alone, labelled by one of their fields."""
    return lambda truth: [
        (note["onset"], note["onset"] + note["duration"], note[label])
        for note in truth["notes"]
        if note["role"] == "solo"
    ]


def windows(label: Callable[[Mapping[str, Any]], Any]) -> Callable[[Mapping[str, Any]], list[Example]]:
    """The whole windows of WINDOW_SECONDS in a track, all with the label of the track."""
    return lambda truth: [
        (n * WINDOW_SECONDS, (n + 1) * WINDOW_SECONDS, label(truth))
        for n in range(int(truth["seconds"] // WINDOW_SECONDS))
    ]


QUESTIONS = (
    Question("pitch (25)", solo_notes("pitch"), "class", accuracy),
    Question("instrument (6)", solo_notes("instrument"), "class", accuracy),
    Question("key (12)", windows(lambda truth: truth["key"]), "class", accuracy, per_group=True),
    Question("tempo (R²)", windows(lambda truth: np.log(truth["bpm"])), "number", r2_score, per_group=True),
)


def probe_tracks(
    tracks: Iterable[Track], representations: Mapping[str, Representation], *, seed: int = 0
) -> dict[str, dict[str, ProbeResult]]:
    """question -> representation -> result, the last representation being CHANCE (features that say nothing).

    All share one split by track (`seed`): 40% train, 20% validation, 40% test.
    """
    features: dict[tuple[str, str], list] = {}
    examples: dict[str, list[tuple[int, Any]]] = {question.name: [] for question in QUESTIONS}
    for number, (waveform, truth) in enumerate(tracks):
        for question in QUESTIONS:
            examples[question.name] += [(number, label) for _, _, label in question.examples(truth)]
        for name, represent in representations.items():
            frames, times = represent(waveform)
            for question in QUESTIONS:
                spans = [example[:2] for example in question.examples(truth)]
                pooled = pool_spans(frames, times, np.array(spans).reshape(-1, 2))
                features.setdefault((question.name, name), []).append(pooled)
    return {
        question.name: _probe_question(
            question,
            examples[question.name],
            {name: np.concatenate(features[question.name, name], axis=1) for name in representations},
            seed,
        )
        for question in QUESTIONS
    }


def _probe_question(
    question: Question, examples: list[tuple[int, Any]], features: dict[str, np.ndarray], seed: int
) -> dict[str, ProbeResult]:
    groups, labels = (np.array(column) for column in zip(*examples, strict=True))
    task = Task(question.name, labels, groups, question.kind, question.score, question.per_group)
    parts = split_by_group(groups, valid=VALID_SHARE, test=TEST_SHARE, seed=seed)
    features[CHANCE] = np.zeros((1, len(groups), 1))
    return {name: probe(values, task, parts) for name, values in features.items()}
