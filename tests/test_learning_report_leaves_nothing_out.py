"""The report of benchmarks.learning names what wins, be it a baseline, and says what was equal and what was not."""

import json

import numpy as np
import pytest

from benchmarks.learning.findings import Findings, Trained
from benchmarks.learning.pictures import draw_curves
from benchmarks.learning.questions import Counts
from benchmarks.learning.report import JSON, MARKDOWN, PICTURES, best_of_all, equal_and_not, write
from benchmarks.learning.scores import over_seeds
from benchmarks.learning.verdicts import Condition, judge, judge_harmony

QUESTIONS, PROBES = ("pitch", "mode"), ("linear", "mlp")
STEP_0, CONTROL, END = (0.5, 0.5), (0.5, 0.75), (0.72, 0.78)


def scored(scores):
    noise = np.random.default_rng(0).normal(0, 0.01, 1000)
    return over_seeds(scores, [score + noise for score in scores])


def curve(*losses):
    return [{"step": 10 * n, "train/loss": loss, "valid/loss": loss + 1} for n, loss in enumerate(losses, 1)]


def trained(name, pitch, seconds, flop=2e12):
    """Told by linear probes at three points, by MLPs at two; of mode nothing is told."""
    ends = [scored(STEP_0), None, scored(pitch)]
    course = {"pitch": ends, "mode": [scored((0.5, 0.5)), None, scored((0.5, 0.5))]}
    linear = course | {"pitch": [ends[0], ends[2], ends[2]]}
    return Trained(
        name=name,
        model="music2vec",
        steps=[0, 10, 20],
        course={"linear": linear, "mlp": course},
        layers={
            probe: {question: np.array([0.5, n + 0.25]) for question in QUESTIONS} for n, probe in enumerate(PROBES)
        },
        chosen={probe: {question: [1, 0] for question in QUESTIONS} for probe in PROBES},
        curves=[curve(3.0, 2.0), curve(3.0, 2.5)],
        conditions=[Condition("healthy", "all is well")] * 2,
        seconds=seconds,
        audio_hours=1.0,
        flop=flop,
        encoder_flop=1e12,
    )


def split(*tracks: int, group: int):
    return {
        part: Counts(count, count // group, 2 * count)
        for part, count in zip(("train", "valid", "test"), tracks, strict=True)
    }


@pytest.fixture
def findings():
    controls = {
        name: trained(f"music2vec, {name}", CONTROL, [3.0, 4.0]) for name in ("targets redrawn", "targets permuted")
    }
    arm = trained("music2vec", END, [1.0, 2.0])
    learned = {
        probe: [
            judge(question, arm.asked(probe, question), {n: c.asked(probe, question) for n, c in controls.items()})
            for question in QUESTIONS
        ]
        for probe in PROBES
    }
    scores = {"pitch": scored((0.9,)), "mode": scored((0.45,))}
    lower = {"pitch": scored((0.1,)), "mode": scored((0.45,))}
    return Findings(
        about={"size": "none", "layer step": 1},
        arms=[arm, *controls.values()],
        baselines={"log-mel": {"linear": scores, "mlp": lower}},
        chance={"pitch": 0.1, "mode": 0.5},
        split={"pitch": split(5, 3, 12, group=1), "mode": split(4, 2, 8, group=2)},
        learned={"music2vec": learned},
        harmony={probe: [judge_harmony("chroma", lower, lower, lower)] for probe in PROBES},
    )


def test_what_tells_a_question_best_is_named_whatever_it_is(findings):
    pitch, mode = best_of_all(findings, "linear")
    assert pitch.startswith("pitch: log-mel 0.90 [")
    assert "+0.150 (+0.150 to +0.150) over the best arm, music2vec" in pitch
    assert mode.endswith("nothing is apart from the commonest answer")
    pitch, _ = best_of_all(findings, "mlp")
    assert pitch.startswith("pitch: music2vec 0.75 [")
    assert "+0.125 (+0.125 to +0.125) over the best that is no arm, music2vec, targets" in pitch


def test_only_what_is_equal_is_called_equal():
    one, other = trained("one", END, [1.0, 2.0]), trained("other", END, [3.0, 4.0])
    equal, unequal = equal_and_not([one, other]).split("; ")
    assert "20 updates" in equal and "1 hours of music" in equal and "2 TFLOP in all" in equal
    assert unequal == "not equal are 1 to 4 device seconds"
    equal, unequal = equal_and_not([one, other._replace(flop=3e12, audio_hours=2.0)]).split("; ")
    assert "TFLOP in all" not in equal and "2 to 3 TFLOP in all" in unequal and "1 to 2 hours of music" in unequal


def test_all_of_it_is_written(findings, tmp_path):
    said = "\n".join(write(findings, tmp_path))
    text = (tmp_path / MARKDOWN).read_text()
    assert "learned pitch (weak); was not shown to learn mode" in said
    assert "- linear: learned pitch (weak: in seed 1 not above targets redrawn with intervals apart (+0.030" in text
    assert "added later and changes no verdict" in text
    assert "validate, test* | 5, 3, 12 | 4 in 2 groups, 2 in 1 groups, 8 in 4 groups |" in text
    assert "- pitch: log-mel 0.90" in text and "linear: best of all: pitch: log-mel 0.90" in said
    assert "music2vec: equal for all are 20 updates" in text and "1 to 4 device seconds" in text
    assert "whether chroma hears harmony cannot be told: not asked were key, chords" in text
    found = json.loads((tmp_path / JSON).read_text(), parse_constant=pytest.fail)
    arm = found["arms"]["music2vec"]
    assert arm["validation_by_layer"] == {
        "linear": {question: [0.5, 0.25] for question in QUESTIONS},
        "mlp": {question: [0.5, 1.25] for question in QUESTIONS},
    }
    assert arm["chosen_layer"]["mlp"]["pitch"] == [1, 0]
    assert arm["scores"]["linear"]["pitch"][-1]["seeds"] == [0.72, 0.78]
    assert found["split"]["mode"]["test"] == {"tracks": 8, "groups": 4, "windows": 16}
    verdict = found["learned"]["music2vec"]["linear"][0]
    assert verdict["learned"] and verdict["weak"] and verdict["strength"]["worst_seed"] == pytest.approx(-0.03)
    assert [one["comparison"]["difference"] for one in verdict["strength"]["by_seed"]] == pytest.approx([0.22, 0.03])
    assert all((tmp_path / picture).stat().st_size > 10_000 for picture in PICTURES.values())


def test_every_seed_is_drawn(tmp_path):
    one, other = curve(3.0, 2.0), curve(3.0, 2.5)
    for name, seeds in {"one.png": [one], "both.png": [one, other]}.items():
        draw_curves({"music2vec": seeds}, tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() != (tmp_path / "both.png").read_bytes()
