"""How strong a verdict of learning is: by seed, and against controls at their best. It changes no verdict.

The rules of verdicts.py compare means over seeds at the end of training, and their intervals are by track: they say
nothing of another start of training, nor of a control that was better before its end. This was added after reports
had been read.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from benchmarks.learning.scores import Comparison, Scored, compare


class OverBest(NamedTuple):
    """How much better an arm is than a control at its best; at: where that is, as a share of training."""

    comparison: Comparison
    at: float


class OfSeed(NamedTuple):
    """How much better an arm is than the better control of the same seed."""

    control: str
    comparison: Comparison


class Strength(NamedTuple):
    """by_seed: what each seed gained. worst_seed: the score of the arm's worst seed, less that of the best seed of any
    control. over_best: by control."""

    by_seed: list[OfSeed]
    worst_seed: float
    over_best: dict[str, OverBest]

    @property
    def weak(self) -> list[str]:
        """Why what was learned is weakly shown; nothing: it is not."""
        seeds = [
            f"in seed {number} not above {control} with intervals apart ({comparison})"
            for number, (control, comparison) in enumerate(self.by_seed)
            if not comparison.apart
        ]
        worst = (
            [] if self.worst_seed > 0 else [f"its worst seed no better than a control's best ({self.worst_seed:+.3f})"]
        )
        best = [
            f"not above {control} at its best with intervals apart ({comparison}, at {at:.0%} of training)"
            for control, (comparison, at) in self.over_best.items()
            if not comparison.apart
        ]
        return [*seeds, *worst, *best]

    @property
    def words(self) -> str:
        """The figures."""
        seeds = ", ".join(f"{comparison.difference:+.3f}" for _, comparison in self.by_seed)
        best = ", ".join(f"{c.difference:+.3f} over {name} at its best" for name, (c, _) in self.over_best.items())
        return (
            f"by seed {seeds} over the better control, its worst seed {self.worst_seed:+.3f} over all of theirs; {best}"
        )


def weigh(last: Scored, controls: Mapping[str, Sequence[Scored]]) -> Strength:
    """last: the arm's score at the end of training. controls: each one's from step 0 to the end; at step 0 they are the
    arm itself."""
    ends = {name: course[-1] for name, course in controls.items()}
    by_seed = []
    for number, own in enumerate(last.seeds):
        better = max(ends, key=lambda name: ends[name].seeds[number].score)
        by_seed.append(OfSeed(better, compare(own, ends[better].seeds[number])))
    theirs = max(seed.score for end in ends.values() for seed in end.seeds)
    over_best = {}
    for name, course in controls.items():
        best = max(range(1, len(course)), key=lambda point: course[point].score)
        over_best[name] = OverBest(compare(last, course[best]), best / (len(course) - 1))
    return Strength(by_seed, min(seed.score for seed in last.seeds) - theirs, over_best)
