"""What came out, drawn: scores over training, probes by layer, curves."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from benchmarks.learning.findings import Findings

matplotlib.use("Agg")
import matplotlib.pyplot as plt

Curve = Sequence[Mapping[str, float]]


def _colours(names: Iterable[str]) -> dict[str, tuple]:
    return {name: plt.get_cmap("tab10")(number % 10) for number, name in enumerate(names)}


def _panels(count: int, columns: int, width: float, height: float):
    rows = -(-count // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(width * columns, height * rows), layout="constrained", squeeze=False
    )
    for spare in axes.ravel()[count:]:
        spare.axis("off")
    return figure, axes.ravel()


def draw_scores(findings: Findings, path: Path) -> None:
    """A panel a question: linear scores over training, with intervals; baselines at the right; controls dashed."""
    figure, panels = _panels(len(findings.questions) + 1, 4, 4.2, 3.4)
    colours = _colours(arm.name for arm in findings.arms)
    marks = dict(zip(findings.baselines, "s^vDPX*<>ph", strict=False))
    for panel, question in zip(panels, findings.questions, strict=False):
        for number, arm in enumerate(findings.arms):
            course = arm.asked("linear", question)
            scores = np.array([scored.score for scored in course])
            errors = np.abs(np.array([scored.interval for scored in course]).T - scores)
            style = "-" if arm.name in findings.learned else ":"
            shift = 0.012 * (number - len(findings.arms) / 2)
            panel.errorbar(
                np.linspace(0, 1, len(course)) + shift,
                scores,
                errors,
                color=colours[arm.name],
                ls=style,
                lw=1.3,
                elinewidth=0.6,
            )
        for number, (name, of_probe) in enumerate(findings.baselines.items()):
            scored = of_probe["linear"][question]
            panel.plot(1.12 + 0.03 * number, scored.score, marks.get(name, "o"), color="black", ms=5, mfc="none")
        panel.axhline(findings.chance[question], color="grey", ls="--", lw=0.8)
        panel.set_title(question, fontsize=10)
        panel.set_xticks([0, 0.5, 1], ["step 0", "half", "end of training"])
        panel.tick_params(labelsize=8)
    key = panels[len(findings.questions)]
    for arm in findings.arms:
        key.plot([], [], color=colours[arm.name], ls="-" if arm.name in findings.learned else ":", label=arm.name)
    for name in findings.baselines:
        key.plot([], [], marks.get(name, "o"), color="black", mfc="none", label=name)
    key.plot([], [], color="grey", ls="--", label="the commonest answer")
    key.legend(fontsize=7, frameon=False, loc="center")
    key.axis("off")
    figure.suptitle("Linear probes over training: test scores and 95% intervals by track", fontsize=11)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_layers(findings: Findings, path: Path) -> None:
    """A heat map an arm: validation score by layer and question, of each probe, at the end of training."""
    rows = [(probe, question) for probe in findings.probes for question in findings.questions]
    figure, panels = _panels(len(findings.arms), 5, 3.2, 1.0 + 0.3 * len(rows))
    for panel, arm in zip(panels, findings.arms, strict=False):
        values = np.array([arm.layers[probe][question] for probe, question in rows])
        panel.imshow(np.clip(values, 0, 1), vmin=0, vmax=1, aspect="auto", cmap="viridis")
        for (row, column), value in np.ndenumerate(values):
            panel.text(
                column, row, f"{value:.2f}", ha="center", va="center", fontsize=6, color="w" if value < 0.6 else "k"
            )
        panel.set_yticks(range(len(rows)), [f"{question}, {probe}" for probe, question in rows], fontsize=7)
        panel.set_xticks(range(values.shape[1]), [n * findings.about["layer step"] for n in range(values.shape[1])])
        panel.tick_params(axis="x", labelsize=7)
        panel.set_title(arm.name, fontsize=9)
        panel.set_xlabel("layer", fontsize=8)
    figure.suptitle("Probes by layer at the end of training: validation scores, mean over seeds", fontsize=11)
    figure.savefig(path, dpi=110)
    plt.close(figure)


SHOWN = {
    "loss": ("train/loss", "valid/loss"),
    "target/spread": ("target/spread", "valid/target/spread"),
    "prediction/spread": ("prediction/spread", "valid/prediction/spread"),
    "positional share": ("target/positional_share", "valid/target/positional_share"),
    "swap gap": ("prediction/swap_gap", "valid/prediction/swap_gap"),
}


def draw_curves(curves: Mapping[str, Sequence[Curve]], path: Path) -> None:
    """Signs of health over training, of runs by name, a line a seed: of training clips (solid) and held-out ones
    (dashed)."""
    figure, panels = _panels(len(SHOWN) + 1, 3, 4.6, 3.2)
    colours = _colours(curves)
    lines = [(run, curve) for run, seeds in curves.items() for curve in seeds]
    for panel, (title, (own, others)) in zip(panels, SHOWN.items(), strict=False):
        for run, curve in lines:
            _line(panel, curve, own, colours[run], "-")
            _line(panel, curve, others, colours[run], "--")
        panel.set_title(title, fontsize=10)
        panel.tick_params(labelsize=8)
    last = panels[len(SHOWN)]
    for run, curve in lines:
        sets = [name for name in curve[-1] if name.startswith("valid/") and name.endswith("/accuracy")]
        for name in sets[:1]:
            _line(last, curve, name.removeprefix("valid/"), colours[run], "-")
            _line(last, curve, name, colours[run], "--")
            _line(last, curve, name.replace("/accuracy", "/copy_accuracy"), colours[run], ":")
    last.set_title("accuracy of the first label set; dotted: copying the nearest seen frame", fontsize=8)
    last.tick_params(labelsize=8)
    for run in curves:
        panels[0].plot([], [], color=colours[run], label=run)
    panels[0].legend(fontsize=6, frameon=False)
    figure.suptitle("Training: solid on training clips, dashed on held-out clips; a line a seed", fontsize=11)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _line(panel: Any, curve: Curve, name: str, colour: Any, style: str) -> None:
    if name in curve[-1]:
        panel.plot([row["step"] for row in curve], [row[name] for row in curve], style, color=colour, lw=0.7)
