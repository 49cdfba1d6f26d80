"""Beat tracking by one encoder's frames: a probe that says of each frame whether a beat falls on it, then a decoder.

Layers are taken one at a time, so that no more than one is ever in memory. A probe is chosen by the average precision
of its frames on validation; the beats of the test part are then decoded from the chosen one's probabilities.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from sklearn.metrics import average_precision_score

from musicssl_jax.mir.beat_decoding import decode_beats, pick_peaks
from musicssl_jax.mir.features.store import Frames
from musicssl_jax.mir.metrics import per_track_f, score
from musicssl_jax.mir.probed_task import Answers, Say
from musicssl_jax.mir.probing.problem import TEST, Problem, blank_test
from musicssl_jax.mir.probing.settings import Settings, for_seeds
from musicssl_jax.mir.probing.training import Probe, train_probes
from musicssl_jax.mir.report.results import Chosen
from musicssl_jax.mir.tasks.task import PARTS, Example, Task
from musicssl_jax.shapes import Float, Int

NEIGHBOUR = 0.5
"""Target of the frames beside a beat's, as MARBLE v1 widens targets; the beat's own is 1."""


@runtime_checkable
class FramesByLayer(Protocol):
    """What gives frames: a `FeatureStore`."""

    def frames_for(self, recordings: Sequence[str], layer: int) -> Frames: ...


@dataclass(frozen=True)
class _OneLayer:
    """The frames of one layer as a problem's layers."""

    values: Float[np.ndarray, "rows width"]
    count: int = 1

    @property
    def rows(self) -> int:
        return len(self.values)

    @property
    def width(self) -> int:
        return self.values.shape[1]

    def layer(self, index: int) -> Float[np.ndarray, "rows width"]:
        del index
        return self.values


def probe_beats(
    task: Task,
    examples: Sequence[Example],
    store: FramesByLayer,
    layers: Sequence[int],
    settings: Settings,
    networks: Sequence[str],
    say: Say,
) -> Answers:
    """Probes of the networks that are trained ("mlp", "linear"), on `layers`, by settings that are `for_frames`."""
    began = time.monotonic()
    trained = [network for network in networks if network != "knn"]
    grids = {network: np.empty((len(layers), len(settings.rates))) for network in trained}
    for number, layer in enumerate(layers):
        say(f"beats: layer {layer}, {len(settings.rates)} rates")
        problem = _problem(examples, _frames(store, examples, layer))
        probes = [Probe(0, rate, settings.selection_seed) for rate in settings.rates]
        for network in trained:
            title = f"{network}: layer {layer}"
            trained_probes = train_probes(
                problem, probes, settings, _hidden(settings, network), keep=False, title=title
            )
            grids[network][number] = trained_probes.scores
    answers = {network: _final(network, grids[network], examples, store, layers, settings) for network in trained}
    test = [example for example in examples if example.part == "test"]
    truth = [np.asarray(example.label, np.float64) for example in test]
    return Answers(
        recording=np.array([example.recording for example in test]),
        group=np.array([example.group for example in test]),
        f=np.stack([per_track_f(truth, beats) for beats in answers[trained[0]][1]]),
        scores={network: _scores(task, truth, beats, peaks) for network, (_, beats, peaks) in answers.items()},
        chosen={network: chosen for network, (chosen, _, _) in answers.items()},
        layer_names=tuple(map(str, layers)),
        layer_scores_valid={network: list(grid.max(axis=1)) for network, grid in grids.items()},
        seconds=time.monotonic() - began,
    )


def beat_targets(beats: Sequence[float], times: Float[np.ndarray, " T"]) -> Float[np.ndarray, " T"]:
    """1 on the frame nearest to each beat, NEIGHBOUR on those beside it; beats beyond the frames have none."""
    targets = np.zeros(len(times), np.float32)
    if len(times) < 2:
        return targets
    step = times[1] - times[0]
    nearest = np.rint((np.asarray(beats, np.float64) - times[0]) / step).astype(int)
    for offset, value in ((-1, NEIGHBOUR), (1, NEIGHBOUR), (0, 1.0)):
        where = nearest + offset
        where = where[(where >= 0) & (where < len(times))]
        targets[where] = np.maximum(targets[where], value)
    return targets


def _frames(store: FramesByLayer, examples: Sequence[Example], layer: int) -> Frames:
    return store.frames_for([example.recording for example in examples], layer)


def _problem(examples: Sequence[Example], frames: Frames) -> Problem:
    """Each frame is a unit of its own."""
    targets = [
        beat_targets(example.label, frames.first_frame + np.arange(last - first) / frames.frame_rate)
        for example, first, last in zip(examples, frames.offsets[:-1], frames.offsets[1:], strict=True)
    ]
    part = np.repeat([PARTS.index(example.part) for example in examples], np.diff(frames.offsets))
    labels = blank_test(np.concatenate(targets)[:, None], part, "tags")
    return Problem(_OneLayer(frames.values), np.arange(len(part)), part, labels, "tags", 1, _frame_precision)


def _frame_precision(truth: Float[np.ndarray, "n 1"], answers: Float[np.ndarray, "n 1"]) -> float:
    on_beat = truth[:, 0] > 0.9
    return float(average_precision_score(on_beat, answers[:, 0])) if on_beat.any() else 0.0


def _final(
    network: str,
    grid: Float[np.ndarray, "layers rates"],
    examples: Sequence[Example],
    store: FramesByLayer,
    layers: Sequence[int],
    settings: Settings,
) -> tuple[Chosen, list[list[np.ndarray]], list[list[np.ndarray]]]:
    """The choice, and of each seed the beats of every test recording: decoded, and picked."""
    which, rate = map(int, np.unravel_index(np.argmax(grid), grid.shape))
    frames = _frames(store, examples, layers[which])
    problem = _problem(examples, frames)
    probes = [Probe(0, settings.rates[rate], seed) for seed in settings.seeds]
    hidden, title = _hidden(settings, network), f"{network}: seeds"
    final = train_probes(problem, probes, for_seeds(settings), hidden, keep=True, title=title)
    assert final.answers is not None
    spans = _test_spans(examples, frames.offsets)
    decoded, picked = [], []
    for answers in final.answers[:, :, 0]:
        activations = [np.nan_to_num(answers[first:last]).clip(0, 1) for first, last in spans]
        beats = decode_beats(activations, frames.frame_rate)
        decoded.append([times + frames.first_frame for times in beats])
        picked.append([pick_peaks(a, frames.frame_rate) + frames.first_frame for a in activations])
    chosen = Chosen(str(layers[which]), settings.rates[rate], float(np.mean(final.scores)))
    return chosen, decoded, picked


def _test_spans(examples: Sequence[Example], offsets: Int[np.ndarray, " bounds"]) -> list[tuple[int, int]]:
    return [
        (int(offsets[number]), int(offsets[number + 1]))
        for number, example in enumerate(examples)
        if PARTS.index(example.part) == TEST
    ]


def _scores(
    task: Task, truth: list[np.ndarray], decoded: list[list[np.ndarray]], picked: list[list[np.ndarray]]
) -> dict[str, list[float]]:
    """Every metric of decoded beats, of each seed, and with `_peaks` behind its name that of picked peaks."""
    of_seeds = [
        score(task, truth, beats) | {f"{name}_peaks": value for name, value in score(task, truth, peaks).items()}
        for beats, peaks in zip(decoded, picked, strict=True)
    ]
    return {name: [scores[name] for scores in of_seeds] for name in of_seeds[0]}


def _hidden(settings: Settings, network: str) -> int | None:
    return settings.hidden if network == "mlp" else None
