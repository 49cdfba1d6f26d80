"""What counts as learning, decided before any run: the rules of docs/learning.md as functions of scores and curves.

Of how a run ended one rule came later: that music2vec can guess.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.learning.scores import Comparison, Scored, compare
from benchmarks.learning.strength import Strength, weigh
from musicssl_jax.mir.probes import percentile_interval
from musicssl_jax.training.collapse import data2vec_signs, hubert_signs

HARMONY = ("key", "chords")
KEPT = ("pitch", "instrument", "beats")
"""What a target that hears harmony must not lose."""

GUESSING = 0.97  # of what guessing by frequency costs: a loss above it has learned nothing of the clip
GENERALISES = 0.5  # of what it knows of training clips, that it has to know of others
LEAST_GAP = 0.1
"""Of the loss: the swap gap from which predictions are of their own clip. What predicts a constant has one too, by the
chance that masked frames say less than others: of some .01 over the many batches of a curve's last fifth, of -.11 to
.13 over the few held-out ones of reported controls, which stay the same. Runs that learn have a gap above 1."""

HEALTHY, COLLAPSED, MEMORISES, GUESSES, DIVERGED = "healthy", "collapsed", "memorises", "guesses", "diverged"

CONTROLS = ("targets redrawn", "targets permuted")


class Learned(NamedTuple):
    """Whether an arm learned what a question asks for. gains: over its step 0 and over each control. missing: controls
    that were not trained, without which nothing is learned. rise: of the score over the whole of training by the
    straight line through all points, and its 95% interval. strength: what weighs the verdict and does not change it;
    None where there is no control."""

    question: str
    learned: bool
    gains: dict[str, Comparison]
    missing: list[str]
    rise: tuple[float, float, float]
    strength: Strength | None

    @property
    def weak(self) -> list[str]:
        """Why it is weakly shown that it learned; nothing: it is not, or it did not learn."""
        return self.strength.weak if self.learned and self.strength else []

    @property
    def words(self) -> str:
        """The verdict in one sentence."""
        shown = [f"{gain} over {name}" for name, gain in self.gains.items()]
        rise = f"rises by {self.rise[0]:+.3f} ({self.rise[1]:+.3f} to {self.rise[2]:+.3f})"
        if self.learned and self.strength:
            mark = f" (weak: {', '.join(self.weak)})" if self.weak else ""
            return f"learned {self.question}{mark}: {', '.join(shown)}; {rise}; {self.strength.words}"
        reasons = [
            f"not above {name} with intervals apart ({gain})" for name, gain in self.gains.items() if not gain.apart
        ]
        if not self.rise[1] > 0:
            reasons.append(f"does not rise over training ({self.rise[1]:+.3f} to {self.rise[2]:+.3f})")
        if reasons:
            return f"did not learn {self.question}: {', '.join(reasons)}"
        untrained = " and ".join(self.missing)
        return f"cannot be said to have learned {self.question}, for want of {untrained}: {', '.join(shown)}; {rise}"


def judge(question: str, course: Sequence[Scored], controls: Mapping[str, Sequence[Scored]]) -> Learned:
    """course: the arm's scores from step 0 to the end of training. controls: theirs.

    Learned: better than its step 0 and every control with 95% intervals apart, and rising over the points.
    """
    gains = {"its step 0": compare(course[-1], course[0])}
    gains |= {name: compare(course[-1], control[-1]) for name, control in controls.items()}
    rise = (float(_slope([point.score for point in course])), *percentile_interval(_slope([p.draws for p in course])))
    missing = [name for name in CONTROLS if name not in controls]
    learned = all(gain.apart for gain in gains.values()) and rise[1] > 0 and not missing
    strength = weigh(course[-1], controls) if controls else None
    return Learned(question, bool(learned), gains, missing, rise, strength)


def _slope(points: Sequence[Any]) -> Any:
    """Of the least-squares line over points that are equally far apart, from the first to the last of them."""
    at = np.linspace(-0.5, 0.5, len(points))
    return np.tensordot(at, np.array(points), axes=1) / np.sum(at**2)


class Harmony(NamedTuple):
    """Whether a target hears harmony. over_reference, over_codes: of key and chords, how much better its arm is than
    the arm with MFCC targets, and than its own bag of codes. lost: what it tells worse than MFCC targets do. missing:
    questions that were not asked, without which nothing is heard or kept."""

    target: str
    hears: bool
    over_reference: dict[str, Comparison]
    over_codes: dict[str, Comparison]
    lost: dict[str, Comparison]
    missing: list[str]

    @property
    def words(self) -> str:
        """The verdict in one sentence."""
        gains = [
            f"{name} {self.over_reference[name]} over MFCC targets, {gain} over its own bag of codes"
            for name, gain in self.over_codes.items()
        ]
        lost = [f"loses {name} ({gain})" for name, gain in self.lost.items()]
        if self.missing:
            unasked = f"not asked were {', '.join(self.missing)}"
            return f"whether {self.target} hears harmony cannot be told: {'; '.join([unasked, *gains, *lost])}"
        verdict = "hears harmony" if self.hears else "was not shown to hear harmony"
        return f"{self.target} {verdict}: {'; '.join([*gains, *lost])}"


def judge_harmony(
    target: str, arm: Mapping[str, Scored], reference: Mapping[str, Scored], codes: Mapping[str, Scored]
) -> Harmony:
    """Scores by question, of the arm with this target, of the one with MFCC targets, and of the target's bag of codes.

    It hears harmony if on key and on chords its margin over MFCC targets is larger than its bag of codes' margin, and
    more than nothing: both differences have 95% intervals above 0. And it must not lose pitch, instrument or beats: no
    difference to MFCC targets has its interval below 0. All five have to be asked.
    """
    asked = [name for name in HARMONY if name in arm]
    over_reference = {name: compare(arm[name], reference[name]) for name in asked}
    over_codes = {name: compare(arm[name], codes[name]) for name in asked}
    kept = {name: compare(arm[name], reference[name]) for name in KEPT if name in arm}
    lost = {name: comparison for name, comparison in kept.items() if comparison.high < 0}
    better = [comparison.low > 0 for comparison in (*over_reference.values(), *over_codes.values())]
    missing = [name for name in (*HARMONY, *KEPT) if name not in arm]
    hears = all(better) and not lost and not missing
    return Harmony(target, hears, over_reference, over_codes, lost, missing)


class Condition(NamedTuple):
    """How a run ended: HEALTHY, COLLAPSED, MEMORISES, GUESSES or DIVERGED, and by which figures."""

    name: str
    why: str


def condition(
    curve: Sequence[Mapping[str, float]], objective: str, limits: Any, guessing: Mapping[str, float]
) -> Condition:
    """How a run ended, by the last fifth of its curve.

    curve: metrics of training, and those of held-out clips under valid/. limits: the config's fields of `collapse`.
    guessing: of each label set, the nats that guessing by frequency costs.
    """
    tail = curve[-max(1, len(curve) // 5) :]
    row = {name: float(np.mean([one[name] for one in tail])) for name in tail[-1]}
    for name in ("train/loss", "valid/loss"):
        if not math.isfinite(row[name]):
            return Condition(DIVERGED, f"{name} {row[name]}")
    valid = {name.removeprefix("valid/"): value for name, value in row.items() if name.startswith("valid/")}
    if objective == "data2vec":
        return _data2vec_condition(row, valid, limits)
    return _hubert_condition(row, valid, limits, guessing)


def _data2vec_condition(row: Mapping[str, float], valid: Mapping[str, float], limits: Any) -> Condition:
    for name, (seen, _) in data2vec_signs(row, limits).items():
        if seen:
            return Condition(COLLAPSED, f"{name} {row[name]:.3g} at a loss of {row['train/loss']:.3g}")
    own = row["prediction/swap_gap"] / row["train/loss"]
    others = valid["prediction/swap_gap"] / valid["loss"]
    figures = f"swap gap {own:.2f} of the loss of training clips, {others:.2f} of held-out ones"
    if own > LEAST_GAP and others < GENERALISES * own:
        return Condition(MEMORISES, figures)
    if min(own, others) < LEAST_GAP:
        return Condition(GUESSES, figures)
    return Condition(HEALTHY, figures)


def _hubert_condition(
    row: Mapping[str, float], valid: Mapping[str, float], limits: Any, guessing: Mapping[str, float]
) -> Condition:
    for name, (seen, _) in hubert_signs(row, limits).items():
        if seen:
            return Condition(COLLAPSED, f"{name} {row[name]:.3g}: the labels are nearly all the same")
    names = list(guessing)
    own, others = (float(np.mean([one[f"{name}/accuracy"] for name in names])) for one in (row, valid))
    copying = float(np.mean([valid[f"{name}/copy_accuracy"] for name in names]))
    loss = sum(row[f"{name}/loss"] for name in names) / sum(guessing.values())
    figures = (
        f"accuracy {own:.2f} on training clips, {others:.2f} on held-out ones, where copying the nearest seen frame "
        f"gets {copying:.2f}; loss {loss:.2f} of what guessing by frequency costs"
    )
    if loss > GUESSING:
        return Condition(GUESSES, figures)
    if others < GENERALISES * own:
        return Condition(MEMORISES, figures)
    return Condition(HEALTHY, figures)
