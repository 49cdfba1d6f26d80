"""What came out, in words and tables; and the files that it is written to."""

from collections.abc import Iterator
from pathlib import Path

from benchmarks.learning.figures import figures, write_figures
from benchmarks.learning.findings import Findings, Trained
from benchmarks.learning.pictures import draw_curves, draw_layers, draw_scores
from benchmarks.learning.questions import Counts
from benchmarks.learning.scores import Scored, compare

JSON, MARKDOWN = "learning.json", "learning.md"
PICTURES = {"scores": "scores.png", "layers": "layers.png", "curves": "curves.png"}


def write(findings: Findings, folder: Path) -> list[str]:
    """Writes all files into the folder; gives what a terminal shows."""
    write_figures(figures(findings), folder / JSON)
    (folder / MARKDOWN).write_text("\n".join(_markdown(findings)) + "\n", encoding="utf-8")
    draw_scores(findings, folder / PICTURES["scores"])
    draw_layers(findings, folder / PICTURES["layers"])
    draw_curves({arm.name: arm.curves for arm in findings.arms}, folder / PICTURES["curves"])
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
            learned = [verdict for verdict in verdicts if verdict.learned]
            yes = ", ".join(f"{one.question}{' (weak)' if one.weak else ''}" for one in learned) or "nothing"
            no = ", ".join(verdict.question for verdict in verdicts if not verdict.learned) or "nothing"
            yield f"  {probe:6} learned {yes}; was not shown to learn {no}"
    for probe, harmonies in findings.harmony.items():
        yield from (f"{probe}: best of all: {line}" for line in best_of_all(findings, probe))
        yield from (f"{probe}: {harmony.words}" for harmony in harmonies)


def _markdown(findings: Findings) -> Iterator[str]:
    yield "# Does it learn?"
    yield ""
    yield from (f"- {name}: {value}" for name, value in findings.about.items() if isinstance(value, str))
    for probe in findings.probes:
        yield from _scores(findings, probe)
    yield from _verdicts(findings)
    yield from _costs(findings)
    yield ""
    yield "## How the runs ended"
    yield ""
    yield "| | by seed | by which figures |"
    yield "|---|---|---|"
    for arm in findings.arms:
        why = "; ".join(one.why for one in arm.conditions)
        yield f"| {arm.name} | {', '.join(one.name for one in arm.conditions)} | {why} |"
    yield ""
    yield from (f"![{name}]({file})" for name, file in PICTURES.items())


def _scores(findings: Findings, probe: str) -> Iterator[str]:
    yield ""
    yield f"## Test scores, {'linear' if probe == 'linear' else 'MLP'} probes"
    yield ""
    yield "Accuracy, of tempo R²; layer chosen on validation; mean over seeds, and the 95% interval by track."
    yield ""
    yield f"| | {' | '.join(findings.questions)} |"
    yield f"|---|{'---|' * len(findings.questions)}"
    for name, scores in _rows(findings, probe).items():
        yield f"| {name} | {' | '.join(_cell(scores[question]) for question in findings.questions)} |"
    chance = " | ".join(f"{findings.chance[name]:.2f}" for name in findings.questions)
    yield f"| the commonest answer | {chance} |"
    split = " | ".join(", ".join(map(_count, parts.values())) for parts in findings.split.values())
    yield f"| *tracks that train, validate, test* | {split} |"
    yield ""
    yield "Best of all:"
    yield ""
    yield from (f"- {line}" for line in best_of_all(findings, probe))


def _count(part: Counts) -> str:
    return f"{part.tracks}" if part.groups == part.tracks else f"{part.tracks} in {part.groups} groups"


def _rows(findings: Findings, probe: str) -> dict[str, dict[str, Scored]]:
    """All that were asked: arms, controls, what they began as, baselines."""
    rows = {arm.name: {name: arm.last(probe, name) for name in findings.questions} for arm in findings.arms}
    for arm in findings.arms:  # those of a model begin alike
        rows[f"{arm.model}, step 0"] = {name: arm.asked(probe, name)[0] for name in findings.questions}
    return rows | {name: scores[probe] for name, scores in findings.baselines.items()}


def _cell(scored: Scored) -> str:
    low, high = scored.interval
    return f"{scored.score:.2f} [{low:.2f} {high:.2f}]"


def best_of_all(findings: Findings, probe: str) -> Iterator[str]:
    """Of each question what tells it best, and by how much: over the best arm, or, if it is one, over all that is
    none."""
    rows = _rows(findings, probe)
    for question in findings.questions:
        scores = {name: of_name[question] for name, of_name in rows.items()}
        best, *others = sorted(scores, key=lambda name: -scores[name].score)
        is_arm = best in findings.learned
        line = f"{question}: {best} {_cell(scores[best])}"
        rival = next((name for name in others if (name in findings.learned) != is_arm), None)
        if rival:
            than = "the best that is no arm" if is_arm else "the best arm"
            line += f", {compare(scores[best], scores[rival])} over {than}, {rival}"
        if all(scored.interval[0] <= findings.chance[question] for scored in scores.values()):
            line += "; nothing is apart from the commonest answer"
        yield line


def _verdicts(findings: Findings) -> Iterator[str]:
    yield ""
    yield "## Verdicts"
    yield ""
    yield (
        "By rules that were written before the runs (docs/learning.md). What passed them is called weak if it does not "
        "stand in each seed, or against a control at its best: a mark that was added later and changes no verdict."
    )
    for arm, of_probe in findings.learned.items():
        yield ""
        yield f"**{arm}**"
        yield ""
        for probe, verdicts in of_probe.items():
            yield from (f"- {probe}: {verdict.words}" for verdict in verdicts)
    if any(findings.harmony.values()):
        yield ""
        yield "**Harmony**"
        yield ""
        for probe, harmonies in findings.harmony.items():
            yield from (f"- {probe}: {harmony.words}" for harmony in harmonies)


def _costs(findings: Findings) -> Iterator[str]:
    yield ""
    yield "## What they cost"
    yield ""
    yield "| a seed's run | updates | heard (h) | encoder forward (TFLOP) | all (TFLOP) | device seconds, by seed |"
    yield "|---|---|---|---|---|---|"
    for arm in findings.arms:
        figures = f"{arm.steps[-1]} | {arm.audio_hours:.2f} | {arm.encoder_flop / 1e12:.4g} | {arm.flop / 1e12:.4g}"
        yield f"| {arm.name} | {figures} | {', '.join(f'{value:.0f}' for value in arm.seconds)} |"
    yield ""
    for model in dict.fromkeys(arm.model for arm in findings.arms):
        yield f"- {equal_and_not([arm for arm in findings.arms if arm.model == model])}"
    yield ""
    yield (
        "Device seconds are those of training, with the front ends that make labels, which differ from label set to "
        "label set, and with the crops that controls take their targets from: FLOP and hours count neither."
    )


def equal_and_not(arms: list[Trained]) -> str:
    """Of a model's arms and controls."""
    quantities = {
        "updates": [float(arm.steps[-1]) for arm in arms],
        "hours of music": [arm.audio_hours for arm in arms],
        "TFLOP of the encoder's forward pass": [arm.encoder_flop / 1e12 for arm in arms],
        "TFLOP in all": [arm.flop / 1e12 for arm in arms],
        "device seconds": [seconds for arm in arms for seconds in arm.seconds],
    }
    equal = [f"{of[0]:.5g} {name}" for name, of in quantities.items() if min(of) == max(of)]
    other = [f"{min(of):.5g} to {max(of):.5g} {name}" for name, of in quantities.items() if min(of) < max(of)]
    return f"{arms[0].model}: equal for all are {', '.join(equal)}; not equal are {', '.join(other) or 'none of these'}"
