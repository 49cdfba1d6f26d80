"""All that was found as plain figures, for JSON."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.learning.findings import Findings
from benchmarks.learning.scores import Scored
from benchmarks.learning.verdicts import Harmony, Learned


def figures(findings: Findings) -> dict[str, Any]:
    """Of all that is shown."""

    def plain(scored: Scored | None) -> Any:
        return scored and {
            "score": scored.score,
            "interval": scored.interval,
            "seeds": [one.score for one in scored.seeds],
        }

    def said(verdict: Learned | Harmony) -> dict[str, Any]:
        weak = {"weak": verdict.weak} if isinstance(verdict, Learned) else {}
        return _plain(verdict) | weak | {"words": verdict.words}

    return {
        "about": findings.about,
        "chance": findings.chance,
        "split": _plain(findings.split),
        "arms": {
            arm.name: {
                "steps": arm.steps,
                "scores": {
                    probe: {name: list(map(plain, course)) for name, course in questions.items()}
                    for probe, questions in arm.course.items()
                },
                "validation_by_layer": {
                    probe: {name: layers.tolist() for name, layers in of_probe.items()}
                    for probe, of_probe in arm.layers.items()
                },
                "chosen_layer": arm.chosen,
                "conditions": _plain(arm.conditions),
                "seconds": arm.seconds,
                "audio_hours": arm.audio_hours,
                "flop": arm.flop,
                "encoder_flop": arm.encoder_flop,
                "curves": [shown(curve) for curve in arm.curves],
            }
            for arm in findings.arms
        },
        "baselines": {
            name: {probe: {q: plain(s) for q, s in scores.items()} for probe, scores in of_probe.items()}
            for name, of_probe in findings.baselines.items()
        },
        "learned": {
            arm: {probe: list(map(said, found)) for probe, found in of_arm.items()}
            for arm, of_arm in findings.learned.items()
        },
        "harmony": {probe: list(map(said, found)) for probe, found in findings.harmony.items()},
    }


def shown(curve: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """A curve without what its rows say in another unit or by parts."""
    left_out = re.compile(r"_bits|_at_\d|/chance|/unmasked")
    return [{name: value for name, value in row.items() if not left_out.search(name)} for row in curve]


def write_figures(value: Any, file: Path) -> None:
    """Numbers of five digits; JSON has no NaN."""
    file.write_text(json.dumps(_rounded(value), allow_nan=False), encoding="utf-8")


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(entry) for entry in value]
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return value


def _plain(value: Any) -> Any:
    """Named tuples as objects."""
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return value
