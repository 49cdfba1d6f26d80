"""What is asked of the features of a track: which windows, and what is to be told of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
from sklearn.metrics import r2_score

from benchmarks.learning.labels import Labels, group_numbers
from musicssl_jax.mir.probes import Parts, Score, Task, accuracy, split_by_group
from musicssl_jax.shapes import Bool, Float

VALID_SHARE, TEST_SHARE = 0.15, 0.6
"""The rest fits the probes. Most is test, since a score's interval goes with the root of the number of its tracks."""
LEAST_TRACKS = 10
"""That answer a question: of so many, two are in validation and six in test."""
FEW_TRACKS = 10
"""Of a part of the split: with fewer, scores say little."""
SHOWN_CLASSES = 24
BEAT_SECONDS = 0.08
"""Length of the windows on beats, and of those halfway between them."""

Example = tuple[float, float, Any]
"""(begin, end, what is to be told) of a window, in seconds."""


@dataclass(frozen=True)
class Question:
    """examples: (truth, seconds of the track) -> its windows; none where the truth does not say."""

    name: str
    examples: Callable[[Labels, float], list[Example]]
    kind: Literal["class", "number"]
    score: Score


def _notes(field: str, of_file: str) -> Callable[[Labels, float], list[Example]]:
    """Notes that sound alone, or the whole of a file that is one note."""

    def examples(truth: Labels, seconds: float) -> list[Example]:
        if truth.get("notes"):
            solo = [n for n in truth["notes"] if n["role"] == "solo" and n["onset"] + n["duration"] <= seconds]
            return [(note["onset"], note["onset"] + note["duration"], note[field]) for note in solo]
        return [(0.0, seconds, truth[of_file])] if of_file in truth else []

    return examples


def _track(field: str, label: Callable[[Any], Any] = lambda said: said) -> Callable[[Labels, float], list[Example]]:
    """The whole track has one answer."""
    return lambda truth, seconds: [(0.0, seconds, label(truth[field]))] if field in truth else []


def _chords(truth: Labels, seconds: float) -> list[Example]:
    """Major and minor chords, without those that a single melody only hints at."""
    alone = {solo["start"] for solo in truth.get("solos", [])}
    return [
        (chord["start"], chord["end"], f"{chord['root']} {chord['quality']}")
        for chord in truth.get("chords", [])
        if chord["quality"] in ("maj", "min") and chord["start"] not in alone and chord["end"] <= seconds
    ]


def _beats(truth: Labels, seconds: float) -> list[Example]:
    beats = [beat for beat in truth.get("beats", []) if beat < seconds]
    between = [(beat + after) / 2 for beat, after in pairwise(beats)]
    half = BEAT_SECONDS / 2
    middles = [(at, "on") for at in beats] + [(at, "between") for at in between]
    return [(at - half, at + half, name) for at, name in middles if at > half]


QUESTIONS = (
    Question("pitch", _notes("pitch", "pitch"), "class", accuracy),
    Question("instrument", _notes("instrument", "family"), "class", accuracy),
    Question("key", _track("key"), "class", accuracy),
    Question("mode", _track("mode"), "class", accuracy),
    Question("chords", _chords, "class", accuracy),
    Question("tempo", _track("bpm", np.log), "number", r2_score),
    Question("beats", _beats, "class", accuracy),
)


class Asked(NamedTuple):
    """A question of given tracks. spans: of each track the (begin, end) of its windows."""

    task: Task
    parts: Parts
    spans: list[Float[np.ndarray, "windows 2"]]


def ask(
    truths: Sequence[Labels], seconds: Sequence[float], *, seed: int = 0, say: Callable[[str], None] = lambda _: None
) -> dict[str, Asked]:
    """The questions that enough tracks answer, and not all alike; `say` is told which are left out, and why.

    Tracks are split into 25% training, 15% validation and 60% test (`seed`); those of one group are in one part, and
    count as one.
    """
    group_of = np.array(group_numbers(truths))
    asked = {}
    for question in QUESTIONS:
        examples = [question.examples(*track) for track in zip(truths, seconds, strict=True)]
        labels = np.array([label for of_track in examples for _, _, label in of_track])
        groups = np.repeat(group_of, [len(of_track) for of_track in examples])
        answering = len(np.unique(groups))
        if answering < LEAST_TRACKS:
            what = "tracks answer" if len(set(group_of)) == len(truths) else "groups of tracks answer"
            say(f"{question.name} is not asked: {answering} {what} it, and {LEAST_TRACKS} are needed")
            continue
        parts = split_by_group(groups, valid=VALID_SHARE, test=TEST_SHARE, seed=seed)
        # One class in validation is a poor judge; one number there, or one answer elsewhere, is none.
        judging = parts if question.kind == "number" else (parts.train, parts.test)
        if any(len(np.unique(labels[part])) < 2 for part in judging):
            say(f"{question.name} is not asked: all tracks of a part of the split answer alike")
            continue
        spans = [np.array([example[:2] for example in of_track]).reshape(-1, 2) for of_track in examples]
        asked[question.name] = Asked(Task(question.name, labels, groups, question.kind, question.score), parts, spans)
    return asked


class Counts(NamedTuple):
    """What a score rests on. groups: of tracks that belong together; else as many as tracks."""

    tracks: int
    groups: int
    windows: int


def counts(asked: Asked) -> dict[str, Counts]:
    """Of the parts of the split, by name: train, valid, test."""
    tracks = np.repeat(np.arange(len(asked.spans)), [len(spans) for spans in asked.spans])

    def of(part: Bool[np.ndarray, " windows"]) -> Counts:
        return Counts(len(np.unique(tracks[part])), len(np.unique(asked.task.groups[part])), int(part.sum()))

    return {name: of(part) for name, part in asked.parts._asdict().items()}


def described(asked: Asked) -> str:
    """How many answer a question, and what: for the user to see before anything is trained."""
    parts = counts(asked)
    tracks, windows = (sum(getattr(part, what) for part in parts.values()) for what in ("tracks", "windows"))
    labels = asked.task.labels
    if asked.task.kind == "number":
        answers = f"{len(np.unique(labels))} values"
    else:
        found = [f"{name} ({count})" for name, count in zip(*np.unique(labels, return_counts=True), strict=True)]
        more = f" and {len(found) - SHOWN_CLASSES} more" if len(found) > SHOWN_CLASSES else ""
        answers = f"{len(found)} classes: {', '.join(found[:SHOWN_CLASSES])}{more}"
    few = " (few: scores will say little)" if any(part.groups < FEW_TRACKS for part in parts.values()) else ""
    split = ", ".join(f"{part.tracks} {name}" for name, part in parts.items())
    return f"{asked.task.name}: {tracks} tracks ({split}){few}, {windows} windows, {answers}"


def chance(asked: Asked) -> float:
    """The score of the commonest class of the training part, or of its mean."""
    labels, (train, valid, test) = asked.task.labels, asked.parts
    fitted, wanted = labels[train | valid], labels[test]
    if asked.task.kind == "number":
        return asked.task.score(wanted, np.full(len(wanted), fitted.mean()))
    names, counts = np.unique(fitted, return_counts=True)
    return float(np.mean(wanted == names[counts.argmax()]))
