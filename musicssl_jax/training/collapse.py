"""Whether a run has stopped learning anything: the reference's spreads, positions, swapped clips, used clusters."""

import math
from collections.abc import Callable, Mapping
from typing import Any

Signs = dict[str, tuple[bool, str]]
"""Name of a metric -> (whether it looks like collapse, what to say then)."""


def data2vec_signs(row: Mapping[str, float], limits) -> Signs:
    """The reference's thresholds of spread (mean standard deviations over masked frames), and what those cannot see:
    targets that are a function of the frame's position, and predictions that do not depend on the clip."""
    nan = math.nan
    target = row.get("target/spread", nan)
    prediction = row.get("prediction/spread", nan)
    share = row.get("target/positional_share", nan)
    gap, loss = row.get("prediction/swap_gap", nan), row.get("train/loss", nan)
    # Comparisons with NaN (a batch of one clip) are false: no sign.
    return {
        "target/spread": (
            target < limits.target_spread,
            f"target/spread is {target:.3g}, under collapse.target_spread={limits.target_spread}: the "
            "teacher says the same of every frame; try a lower schedule.peak or a slower teacher.decay",
        ),
        "prediction/spread": (
            prediction < limits.prediction_spread,
            f"prediction/spread is {prediction:.3g}, under collapse.prediction_spread="
            f"{limits.prediction_spread}: the student predicts a constant; try a lower schedule.peak",
        ),
        "target/positional_share": (
            share > limits.positional_share,
            f"target/positional_share is {share:.3g}, over collapse.positional_share="
            f"{limits.positional_share}: targets have become a function of the frame's position; try a "
            "lower schedule.peak, a slower teacher (higher teacher.decay), or more clips in a batch",
        ),
        "prediction/swap_gap": (
            gap < limits.swap_gap * loss,
            f"prediction/swap_gap is {gap:.3g}, under collapse.swap_gap={limits.swap_gap} of the loss "
            f"{loss:.3g}: predictions fit other clips as well as their own; try a lower schedule.peak, a "
            "longer warm-up, or set collapse.after later if the run is young",
        ),
    }


def hubert_signs(row: Mapping[str, float], limits) -> Signs:
    """Labels that are nearly all the same: the task is then solved by a constant."""
    used = {name: share for name, share in row.items() if name.endswith("/used")}
    return {
        name: (
            share < limits.used,
            f"{name} is {share:.3g}, under collapse.used={limits.used}: the labels of a batch are nearly all the same; "
            "look at the codebook's picture, and for silence in the data",
        )
        for name, share in used.items()
    }


SIGNS: Mapping[str, Callable[[Mapping[str, float], Any], Signs]] = {"data2vec": data2vec_signs, "hubert": hubert_signs}


class CollapseWatch:
    """Reads rows of metrics and gives the verdict once the same sign has shown `patience` times in a row.

    `config`: the fields of `config.collapse`; nothing is judged before `after` of all `steps`.
    """

    def __init__(self, config, steps: int, objective: str):
        self.config = config
        self.signs = SIGNS[objective]
        self.first = int(config.after * steps)
        self.counts: dict[str, int] = {}

    def verdict(self, step: int, row: Mapping[str, float]) -> str | None:
        """A message for the user when the run has collapsed, else None."""
        if not self.config.stop or step < self.first:
            return None
        for sign, (seen, advice) in self.signs(row, self.config).items():
            self.counts[sign] = self.counts.get(sign, 0) + 1 if seen else 0
            if self.counts[sign] >= self.config.patience:
                return f"collapse at step {step}: {advice} ({self.config.patience} rows in a row)"
        return None
