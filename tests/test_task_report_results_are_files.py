"""A task's result is two files, which come back as they were, or are refused in one line."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from task_report_fixtures import made_up_result

from musicssl_jax.errors import UserError
from musicssl_jax.mir.report.results import Contamination, TaskResult, read_results, slug, to_json

KINDS = ("gtzan_genre", "mtt_top50", "emomusic", "gtzan_beats", "giantsteps_key")


@pytest.mark.parametrize("task", KINDS)
def test_what_is_saved_comes_back(tmp_path, task):
    heard = Contamination(0.25, None, 0.5, (("song 1", "track 7", 12.5),), "by landmarks")
    result = made_up_result(task, contamination=heard, versions={"jax": "1", "numpy": "2"})
    back = TaskResult.load(result.save(tmp_path))
    for field in dataclasses.fields(TaskResult):
        a, b = getattr(result, field.name), getattr(back, field.name)
        if isinstance(a, np.ndarray):
            np.testing.assert_array_equal(a, b)
    assert to_json(back) == to_json(result)
    assert back.contamination == heard and back.chosen == result.chosen and back.encoder == result.encoder


def test_scores_that_are_not_numbers_are_kept(tmp_path):
    result = made_up_result("gtzan_genre", scores={"mlp": {"accuracy": (0.5, math.nan, -math.inf)}}, seconds=math.nan)
    path = result.save(tmp_path)
    assert "NaN" not in path.read_text()
    back = TaskResult.load(path)
    assert back.scores["mlp"]["accuracy"][0] == 0.5
    assert np.isnan(back.main_scores[1:]).all() and math.isnan(back.seconds)


def test_a_folder_of_results_or_of_one_encoder_is_read(tmp_path):
    for name in ("b", "a"):
        for task in ("gtzan_genre", "emomusic"):
            made_up_result(task, name).save(tmp_path)
    (tmp_path / "results.json").write_text("{}")  # the report's own
    assert [(r.encoder.name, r.task) for r in read_results(tmp_path)] == [
        *(("a", "emomusic"), ("a", "gtzan_genre"), ("b", "emomusic"), ("b", "gtzan_genre"))
    ]
    assert [r.encoder.name for r in read_results(tmp_path / "b")] == ["b", "b"]


def test_names_that_are_no_folder_names_stay_apart():
    names = ("runs/a", "runs_a", "runs a", "..", "", "é", "a" * 200, "a" * 201)
    assert len({slug(name) for name in names}) == len(names)
    assert all("/" not in slug(name) and slug(name) not in ("", ".", "..") for name in names)
    assert slug("music2vec-95M_v1.0") == "music2vec-95M_v1.0"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def without(field: str):
    def change(path: Path) -> None:
        content = json.loads(path.read_text())
        del content[field]
        path.write_text(json.dumps(content))

    return change


def with_value(field: str, value):
    def change(path: Path) -> None:
        path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))

    return change


@pytest.mark.parametrize(
    ("damage", "suffix", "message"),
    [
        (cut, ".json", "half written"),
        (cut, ".npz", "not what"),
        (Path.unlink, ".npz", "cannot read"),
        (lambda path: path.write_text("[1]"), ".json", "not a task result"),
        (without("scores"), ".json", "no field 'scores'"),
        (with_value("task", "nothing"), ".json", "no task 'nothing'"),
        (with_value("seeds", [0]), ".json", "for each of 1 seeds"),
        (with_value("encoder", "x"), ".json", "not a whole task result"),
        (with_value("encoder", {"name": "a", "kind": "wizard", "notes": []}), ".json", "not a whole task result"),
        (with_value("chosen", None), ".json", "not a whole task result"),
        (with_value("scores", {"mlp": {"accuracy": ["high"]}}), ".json", "not a whole task result"),
        (with_value("unheard_of", 1), ".json", "unheard_of"),
    ],
)
def test_damaged_files_are_refused_in_one_line(tmp_path, damage, suffix, message):
    path = made_up_result("gtzan_genre").save(tmp_path)
    damage(path.with_suffix(suffix))
    with pytest.raises(UserError) as error:
        read_results(tmp_path)
    assert message in str(error.value) and "gtzan_genre" in str(error.value) and "\n" not in str(error.value)


def test_a_kill_between_the_two_files_is_noticed(tmp_path):
    path = made_up_result("gtzan_genre").save(tmp_path)
    newer = made_up_result("gtzan_genre", seed=5).save(tmp_path / "elsewhere").with_suffix(".npz")
    newer.replace(path.with_suffix(".npz"))
    with pytest.raises(UserError, match="not what gtzan_genre.json was written with"):
        TaskResult.load(path)


def test_a_result_that_cannot_be_saved_names_its_file(tmp_path):
    (tmp_path / "one").write_text("not a folder")
    with pytest.raises(UserError, match=r"one/emomusic.npz cannot be written \(.*\): give an --output that can be"):
        made_up_result("emomusic", "one").save(tmp_path)


def test_an_empty_folder_has_no_results(tmp_path):
    with pytest.raises(UserError, match="holds no results"):
        read_results(tmp_path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"group": np.array(["a"])}, "groups of shape"),
        ({"outputs": np.zeros((3, 40, 2))}, "no outputs of 3 seeds, 40 units and 10 names"),
        ({"counts": {"train": 1}}, "counts of train instead"),
        ({"seeds": 3 * (0,) + (1,)}, "for each of 4 seeds"),
        ({"layer_weights": (0.5,) * 9}, "9 weights of 3 layers"),
        ({"layer_scores_valid": {"mlp": (0.5,)}}, "validation scores"),
    ],
)
def test_parts_that_do_not_agree_are_no_result(changed, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(made_up_result("gtzan_genre"), **changed)
