"""What came out, as JSON, Markdown and pictures."""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np

from benchmarks.learning.verdicts import Condition, Harmony, Learned, Scored

matplotlib.use("Agg")
import matplotlib.pyplot as plt

JSON, MARKDOWN = "learning.json", "learning.md"
PICTURES = {"scores": "scores.png", "layers": "layers.png", "curves": "curves.png"}


class Trained(NamedTuple):
    """One arm. steps: at its points. course: probe -> question -> the score at each point that it was asked at, None
    elsewhere. layers: question -> validation score of each layer at the end, mean over seeds. curves, conditions,
    seconds: by seed. audio_hours, flop: of one seed's run."""

    name: str
    model: str
    steps: list[int]
    course: dict[str, dict[str, list[Scored | None]]]
    layers: dict[str, np.ndarray]
    curves: list[list[dict[str, float]]]
    conditions: list[Condition]
    seconds: list[float]
    audio_hours: float
    flop: float

    def last(self, probe: str, question: str) -> Scored:
        found = self.course[probe][question][-1]
        assert found is not None
        return found


class Findings(NamedTuple):
    """All that is shown. baselines: name -> probe -> question -> score. chance: by question."""

    about: dict[str, Any]
    arms: list[Trained]
    baselines: dict[str, dict[str, dict[str, Scored]]]
    chance: dict[str, float]
    learned: dict[str, dict[str, list[Learned]]]
    """Of each arm that is no control: probe -> verdicts, one a question."""
    harmony: dict[str, list[Harmony]]
    """By probe."""

    @property
    def questions(self) -> list[str]:
        return list(self.chance)

    @property
    def probes(self) -> list[str]:
        return list(self.harmony)


def write(findings: Findings, folder: Path) -> list[str]:
    """Writes all files into the folder; gives what a terminal shows."""
    (folder / JSON).write_text(json.dumps(_rounded(_json(findings)), allow_nan=False), encoding="utf-8")
    text = "\n".join(_markdown(findings))
    (folder / MARKDOWN).write_text(text + "\n", encoding="utf-8")
    _draw_scores(findings, folder / PICTURES["scores"])
    _draw_layers(findings, folder / PICTURES["layers"])
    draw_curves({arm.name: arm.curves[0] for arm in findings.arms}, folder / PICTURES["curves"])
    files = ", ".join(str(folder / name) for name in (JSON, MARKDOWN, *PICTURES.values()))
    return [*_summary(findings), f"learning: {files}"]


def _summary(findings: Findings) -> Iterator[str]:
    """What a terminal shows."""
    yield ""
    for arm in findings.arms:
        ended = ", ".join(one.name for one in arm.conditions)
        seconds = ", ".join(f"{value:.0f}" for value in arm.seconds)
        yield f"{arm.name}: {ended}; heard {arm.audio_hours:.2f} h in {seconds} device seconds"
        for probe, verdicts in findings.learned.get(arm.name, {}).items():
            yes = ", ".join(verdict.question for verdict in verdicts if verdict.learned) or "nothing"
            no = ", ".join(verdict.question for verdict in verdicts if not verdict.learned) or "nothing"
            yield f"  {probe:6} learned {yes}; was not shown to learn {no}"
    for probe, harmonies in findings.harmony.items():
        yield from (f"{probe}: {harmony.words}" for harmony in harmonies)


def _rows(findings: Findings, probe: str) -> Iterator[tuple[str, dict[str, Scored]]]:
    for arm in findings.arms:
        yield arm.name, {name: arm.last(probe, name) for name in findings.questions}
    by_model = {arm.model: arm for arm in findings.arms}  # which all begin alike
    for model, arm in by_model.items():
        first = {name: arm.course[probe][name][0] for name in findings.questions}
        yield f"{model}, step 0", {name: score for name, score in first.items() if score is not None}
    yield from ((name, scores[probe]) for name, scores in findings.baselines.items())


def _markdown(findings: Findings) -> Iterator[str]:
    yield "# Does it learn?"
    yield ""
    yield from (f"- {name}: {value}" for name, value in findings.about.items() if isinstance(value, str))
    for probe in findings.probes:
        yield ""
        yield f"## Test scores, {'linear' if probe == 'linear' else 'MLP'} probes"
        yield ""
        yield "Accuracy, of tempo R²; layer chosen on validation; mean over seeds, and the 95% interval by track."
        yield ""
        yield f"| | {' | '.join(findings.questions)} |"
        yield f"|---|{'---|' * len(findings.questions)}"
        for name, scores in _rows(findings, probe):
            yield f"| {name} | {' | '.join(_cell(scores[question]) for question in findings.questions)} |"
        chance = " | ".join(f"{findings.chance[name]:.2f}" for name in findings.questions)
        yield f"| the commonest answer | {chance} |"
    yield ""
    yield "## Verdicts"
    yield ""
    yield "By rules that were written before the runs (docs/learning.md)."
    for arm in findings.learned:
        yield ""
        yield f"**{arm}**"
        yield ""
        for probe, verdicts in findings.learned[arm].items():
            yield from (f"- {probe}: {verdict.words}" for verdict in verdicts)
    if any(findings.harmony.values()):
        yield ""
        yield "**Harmony**"
        yield ""
        for probe, harmonies in findings.harmony.items():
            yield from (f"- {probe}: {harmony.words}" for harmony in harmonies)
    yield ""
    yield "## The runs"
    yield ""
    yield "| | heard (h) | PFLOP | device seconds, by seed | ended | |"
    yield "|---|---|---|---|---|---|"
    for arm in findings.arms:
        seconds = ", ".join(f"{value:.0f}" for value in arm.seconds)
        ended = ", ".join(one.name for one in arm.conditions)
        why = "; ".join(one.why for one in arm.conditions)
        yield f"| {arm.name} | {arm.audio_hours:.2f} | {arm.flop / 1e15:.3g} | {seconds} | {ended} | {why} |"
    yield ""
    yield from (f"![{name}]({file})" for name, file in PICTURES.items())


def _cell(scored: Scored) -> str:
    low, high = scored.interval
    return f"{scored.score:.2f} [{low:.2f} {high:.2f}]"


def _json(findings: Findings) -> dict[str, Any]:
    def plain(scored: Scored | None) -> Any:
        return scored and {"score": scored.score, "interval": scored.interval, "seeds": scored.seeds}

    def verdicts(found: Sequence[Learned | Harmony]) -> list[dict[str, Any]]:
        return [_plain_tuple(one) | {"words": one.words} for one in found]

    return {
        "about": findings.about,
        "chance": findings.chance,
        "arms": {
            arm.name: {
                "steps": arm.steps,
                "scores": {
                    probe: {name: list(map(plain, course)) for name, course in questions.items()}
                    for probe, questions in arm.course.items()
                },
                "validation_by_layer": {name: layers.tolist() for name, layers in arm.layers.items()},
                "conditions": [one._asdict() for one in arm.conditions],
                "seconds": arm.seconds,
                "audio_hours": arm.audio_hours,
                "flop": arm.flop,
                "curves": [[_shown(row) for row in curve] for curve in arm.curves],
            }
            for arm in findings.arms
        },
        "baselines": {
            name: {probe: {q: plain(s) for q, s in scores.items()} for probe, scores in of_probe.items()}
            for name, of_probe in findings.baselines.items()
        },
        "learned": {
            arm: {probe: verdicts(found) for probe, found in of_arm.items()} for arm, of_arm in findings.learned.items()
        },
        "harmony": {probe: verdicts(found) for probe, found in findings.harmony.items()},
    }


def _shown(row: Mapping[str, float]) -> dict[str, float]:
    """Without what the same row says in another unit or by parts."""
    return {name: value for name, value in row.items() if not re.search(r"_bits|_at_\d|/chance|/unmasked", name)}


def _rounded(value: Any) -> Any:
    """Numbers of five digits; JSON has no NaN."""
    if isinstance(value, dict):
        return {name: _rounded(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(entry) for entry in value]
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return value


def _plain_tuple(value: Any) -> Any:
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: _plain_tuple(entry) for name, entry in value._asdict().items()}
    if isinstance(value, dict):
        return {name: _plain_tuple(entry) for name, entry in value.items()}
    return value


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


def _draw_scores(findings: Findings, path: Path) -> None:
    """A panel a question: linear scores over training, with intervals; baselines at the right; controls dashed."""
    figure, panels = _panels(len(findings.questions) + 1, 4, 4.2, 3.4)
    colours = _colours(arm.name for arm in findings.arms)
    marks = dict(zip(findings.baselines, "s^vDPX*<>ph", strict=False))
    for panel, question in zip(panels, findings.questions, strict=False):
        for number, arm in enumerate(findings.arms):
            course = arm.course["linear"][question]
            at = [n for n, scored in enumerate(course) if scored is not None]
            scores = np.array([course[n].score for n in at])
            errors = np.abs(np.array([course[n].interval for n in at]).T - scores)
            style = "-" if arm.name in findings.learned else ":"
            shift = 0.012 * (number - len(findings.arms) / 2)
            panel.errorbar(
                np.array(at) / (len(course) - 1) + shift,
                scores,
                errors,
                color=colours[arm.name],
                ls=style,
                lw=1.3,
                elinewidth=0.6,
            )
        for number, (name, scores) in enumerate(findings.baselines.items()):
            scored = scores["linear"][question]
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


def _draw_layers(findings: Findings, path: Path) -> None:
    """A heat map an arm: validation score by layer and question, at the end of training."""
    figure, panels = _panels(len(findings.arms), 5, 3.2, 3.2)
    for panel, arm in zip(panels, findings.arms, strict=False):
        values = np.array([arm.layers[name] for name in findings.questions])
        panel.imshow(np.clip(values, 0, 1), vmin=0, vmax=1, aspect="auto", cmap="viridis")
        for (row, column), value in np.ndenumerate(values):
            panel.text(
                column, row, f"{value:.2f}", ha="center", va="center", fontsize=6, color="w" if value < 0.6 else "k"
            )
        panel.set_yticks(range(len(findings.questions)), findings.questions, fontsize=7)
        panel.set_xticks(range(values.shape[1]), [n * findings.about["layer step"] for n in range(values.shape[1])])
        panel.tick_params(axis="x", labelsize=7)
        panel.set_title(arm.name, fontsize=9)
        panel.set_xlabel("layer", fontsize=8)
    figure.suptitle("Linear probes by layer at the end of training: validation scores, mean over seeds", fontsize=11)
    figure.savefig(path, dpi=110)
    plt.close(figure)


SHOWN = {
    "loss": ("train/loss", "valid/loss"),
    "target/spread": ("target/spread", "valid/target/spread"),
    "prediction/spread": ("prediction/spread", "valid/prediction/spread"),
    "positional share": ("target/positional_share", "valid/target/positional_share"),
    "swap gap": ("prediction/swap_gap", "valid/prediction/swap_gap"),
}


def draw_curves(curves: Mapping[str, Sequence[Mapping[str, float]]], path: Path) -> None:
    """Signs of health over training, of runs by name: of training clips (solid) and held-out ones (dashed)."""
    figure, panels = _panels(len(SHOWN) + 1, 3, 4.6, 3.2)
    colours = _colours(curves)
    for panel, (title, (own, others)) in zip(panels, SHOWN.items(), strict=False):
        for run, curve in curves.items():
            _line(panel, curve, own, colours[run], "-", run)
            _line(panel, curve, others, colours[run], "--", None)
        panel.set_title(title, fontsize=10)
        panel.tick_params(labelsize=8)
    last = panels[len(SHOWN)]
    for run, curve in curves.items():
        sets = [name for name in curve[-1] if name.startswith("valid/") and name.endswith("/accuracy")]
        for name in sets[:1]:
            _line(last, curve, name.removeprefix("valid/"), colours[run], "-", None)
            _line(last, curve, name, colours[run], "--", None)
            _line(last, curve, name.replace("/accuracy", "/copy_accuracy"), colours[run], ":", None)
    last.set_title("accuracy of the first label set; dotted: copying the nearest seen frame", fontsize=8)
    last.tick_params(labelsize=8)
    panels[0].legend(fontsize=6, frameon=False)
    figure.suptitle("Training: solid on training clips, dashed on held-out clips", fontsize=11)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _line(
    panel: Any, curve: Sequence[Mapping[str, float]], name: str, colour: Any, style: str, label: str | None
) -> None:
    if name in curve[-1]:
        panel.plot([row["step"] for row in curve], [row[name] for row in curve], style, color=colour, lw=1, label=label)
