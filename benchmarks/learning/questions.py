"""What is asked of the features of a track: which windows, and what is to be told of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
from sklearn.metrics import r2_score

from musicssl_jax.mir.probes import Parts, Score, Task, accuracy, split_by_group
from musicssl_jax.shapes import Float, Int

VALID_SHARE, TEST_SHARE = 0.15, 0.6
"""The rest fits the probes. Most is test, since a score's interval goes with the root of the number of its tracks."""
LEAST_TRACKS = 10
"""That answer a question: of so many, two are in validation and six in test."""
BEAT_SECONDS = 0.08
"""Length of the windows on beats, and of those halfway between them."""

Example = tuple[float, float, Any]
"""(begin, end, what is to be told) of a window, in seconds."""

Truth = Mapping[str, Any]


@dataclass(frozen=True)
class Question:
    """examples: (truth, seconds of the track) -> its windows; none where the truth does not say. per_track: the track
    has one answer, to which its windows contribute."""

    name: str
    examples: Callable[[Truth, float], list[Example]]
    kind: Literal["class", "number"]
    score: Score
    per_track: bool = False


def _notes(field: str, of_file: str) -> Callable[[Truth, float], list[Example]]:
    """Notes that sound alone, or the whole of a file that is one note."""

    def examples(truth: Truth, seconds: float) -> list[Example]:
        if "notes" in truth:
            solo = [n for n in truth["notes"] if n["role"] == "solo" and n["onset"] + n["duration"] <= seconds]
            return [(note["onset"], note["onset"] + note["duration"], note[field]) for note in solo]
        return [(0.0, seconds, truth[of_file])] if of_file in truth else []

    return examples


_SHARPS = {"Db": "C#", "Eb": "D#", "Gb": "F#", "Ab": "G#", "Bb": "A#", "Cb": "B", "Fb": "E", "E#": "F", "B#": "C"}


def _tonic(name: str) -> str:
    """One name for each of the twelve."""
    return _SHARPS.get(name, name)


def _track(label: Callable[[Truth], Any], field: str) -> Callable[[Truth, float], list[Example]]:
    return lambda truth, seconds: [(0.0, seconds, label(truth))] if field in truth else []


def _chords(truth: Truth, seconds: float) -> list[Example]:
    """Major and minor chords, without those that a single melody only hints at."""
    alone = {solo["start"] for solo in truth.get("solos", [])}
    return [
        (chord["start"], chord["end"], f"{_tonic(chord['root'])} {chord['quality']}")
        for chord in truth.get("chords", [])
        if chord["quality"] in ("maj", "min") and chord["start"] not in alone and chord["end"] <= seconds
    ]


def _beats(truth: Truth, seconds: float) -> list[Example]:
    beats = [beat for beat in truth.get("beats", []) if beat < seconds]
    between = [(beat + after) / 2 for beat, after in pairwise(beats)]
    half = BEAT_SECONDS / 2
    return [(at - half, at + half, on) for on, times in ((1, beats), (0, between)) for at in times if at > half]


QUESTIONS = (
    Question("pitch", _notes("pitch", "pitch"), "class", accuracy),
    Question("instrument", _notes("instrument", "family"), "class", accuracy),
    Question("key", _track(lambda truth: _tonic(truth["key"]), "key"), "class", accuracy, per_track=True),
    Question("mode", _track(lambda truth: truth["mode"], "mode"), "class", accuracy, per_track=True),
    Question("chords", _chords, "class", accuracy),
    Question("tempo", _track(lambda truth: np.log(truth["bpm"]), "bpm"), "number", r2_score, per_track=True),
    Question("beats", _beats, "class", accuracy),
)


class Asked(NamedTuple):
    """A question of given tracks. spans: of each track the (begin, end) of its windows."""

    task: Task
    parts: Parts
    spans: list[Float[np.ndarray, "windows 2"]]


def ask(
    truths: Sequence[Truth], seconds: Sequence[float], *, seed: int = 0, say: Callable[[str], None] = lambda _: None
) -> dict[str, Asked]:
    """The questions that enough tracks answer, and not all alike; `say` is told which are left out, and why.

    Tracks are split into 25% training, 15% validation and 60% test (`seed`).
    """
    asked = {}
    for question in QUESTIONS:
        examples = [question.examples(*track) for track in zip(truths, seconds, strict=True)]
        labels = np.array([label for of_track in examples for _, _, label in of_track])
        groups = np.repeat(np.arange(len(examples)), [len(of_track) for of_track in examples])
        answering = len(np.unique(groups))
        if answering < LEAST_TRACKS:
            say(f"{question.name} is not asked: {answering} tracks answer it, and {LEAST_TRACKS} are needed")
            continue
        parts = split_by_group(groups, valid=VALID_SHARE, test=TEST_SHARE, seed=seed)
        # One class in validation is a poor judge; one number there, or one answer elsewhere, is none.
        judging = parts if question.kind == "number" else (parts.train, parts.test)
        if any(len(np.unique(labels[part])) < 2 for part in judging):
            say(f"{question.name} is not asked: all tracks of a part of the split answer alike")
            continue
        spans = [np.array([example[:2] for example in of_track]).reshape(-1, 2) for of_track in examples]
        task = Task(question.name, labels, groups, question.kind, question.score, question.per_track)
        asked[question.name] = Asked(task, parts, spans)
    return asked


def chance(asked: Asked) -> float:
    """The score of the commonest class of the training part, or of its mean."""
    labels, (train, valid, test) = asked.task.labels, asked.parts
    fitted, wanted = labels[train | valid], labels[test]
    groups: Int[np.ndarray, " windows"] = asked.task.groups
    if asked.task.kind == "number":
        return asked.task.score(wanted, np.full(len(wanted), fitted.mean()))
    names, counts = np.unique(fitted, return_counts=True)
    if asked.task.per_group:
        wanted = wanted[np.unique(groups[test], return_index=True)[1]]
    return float(np.mean(wanted == names[counts.argmax()]))
