"""What --check-data says, what is refused as too incomplete, and the hash that names a split."""

import hashlib
import json
import shutil
from dataclasses import replace

import pytest
from task_fixtures import giantsteps, jamendo, nsynth, put, read

from musicssl_jax.errors import DONE, USER_ERROR, UserError
from musicssl_jax.mir.tasks import check, vocalset
from musicssl_jax.mir.tasks.assembly import shipped_lines
from musicssl_jax.mir.tasks.catalogue import TASKS, find_tasks
from musicssl_jax.mir.tasks.check import check_data
from musicssl_jax.mir.tasks.completeness import checked
from musicssl_jax.mir.tasks.sources import SOURCES
from musicssl_jax.mir.tasks.split_hash import split_sha256
from musicssl_jax.mir.tasks.task import PARTS, Example, Missing, Recording, TaskData

GENRE = TASKS["gtzan_genre"]


def task_data(*, missing=(), per_part=10):
    ids = [(f"{part}{number}", part) for part in PARTS for number in range(per_part)]
    examples = tuple(Example(id, part, 0, id) for id, part in ids)
    return TaskData({id: Recording(id, f"/{id}") for id, _ in ids}, examples, tuple(missing))


def test_few_missing_recordings_become_a_note():
    data = task_data(missing=[Missing("gone", "test", "no such file"), Missing("broken", "train", "empty", known=True)])
    notes = checked(data, GENRE, max_missing=0.1).notes
    assert any("gone (no such file)" in note and "missing" in note for note in notes)
    assert any("broken (empty)" in note and "known" in note for note in notes)
    assert checked(task_data(), GENRE, max_missing=0.0) == task_data()


def test_too_many_missing_recordings_of_one_part_stop_the_task():
    gaps = [Missing(f"gone{number}", "test", "no such file") for number in range(2)]
    with pytest.raises(UserError, match=r"gtzan_genre: 2 of 12 .* test part .*5%.*gone0 \(no such file\)"):
        checked(task_data(missing=gaps), GENRE, max_missing=0.05)
    known = [replace_known(gap) for gap in gaps]
    assert checked(task_data(missing=known), GENRE, max_missing=0.0).examples


def replace_known(gap):
    return gap._replace(known=True)


def test_an_empty_part_stops_the_task():
    data = task_data()
    data = replace(data, examples=tuple(example for example in data.examples if example.part != "valid"))
    with pytest.raises(UserError, match="no recording in its valid part"):
        checked(data, GENRE, max_missing=1.0)


def test_a_split_is_named_by_what_is_in_it():
    data = task_data(per_part=2)
    name = split_sha256(data)
    assert len(name) == 64
    moved = {id: Recording(id, f"/elsewhere/{id}") for id in data.recordings}
    assert split_sha256(TaskData(moved, data.examples[::-1], notes=("said",))) == name
    first, *rest = data.examples
    for changed in (first._replace(part="test"), first._replace(label=1), first._replace(recording="other")):
        assert split_sha256(replace(data, examples=(changed, *rest))) != name
    assert split_sha256(replace(data, examples=tuple(rest))) != name


def test_with_nothing_there_the_check_is_a_shopping_list(tmp_path):
    result = check_data(tmp_path / "nowhere", find_tasks("all"))
    text = result.text()
    assert result.exit_code == USER_ERROR and text.startswith("0 of 13 tasks are ready")
    for task in TASKS.values():
        assert task.name in text
    for source in SOURCES.values():
        assert source.title in text and source.licence in text and source.disk in text
        assert all(step in text for step in source.how)
    assert not (tmp_path / "nowhere").exists()
    assert set(SOURCES) == {task.data_set for task in TASKS.values()}


def test_counts_are_compared_with_the_official_ones(tmp_path, monkeypatch):
    nsynth(tmp_path / "nsynth")
    tasks = find_tasks("nsynth_pitch")
    result = check_data(tmp_path, tasks)
    assert result.tasks[0].state == "unofficial" and result.exit_code == USER_ERROR
    assert "train 2  valid 1  test 1" in result.text() and "train 289205  valid 12678  test 4096" in result.text()
    monkeypatch.setattr(check, "official_counts", lambda *_: {"train": 2, "valid": 1, "test": 1})
    result = check_data(tmp_path, tasks)
    assert result.exit_code == DONE and "1 of 1 tasks are ready" in result.text()
    assert split_sha256(read("nsynth_pitch", tmp_path))[:12] in result.text()
    assert "get  " not in result.text()  # nothing to fetch
    put(tmp_path / "nsynth", {"nsynth-test/audio/x.wav": ""})
    (tmp_path / "nsynth" / "nsynth-test" / "audio" / "vocal_acoustic_000-120-050.wav").unlink()
    result = check_data(tmp_path, tasks)
    assert result.tasks[0].state == "incomplete" and "vocal_acoustic_000-120-050 (no such file)" in result.text()


def test_lists_that_cannot_be_read_are_quoted_and_the_others_checked(tmp_path):
    nsynth(tmp_path / "nsynth")
    jamendo(tmp_path / "mtg_jamendo")
    result = check_data(tmp_path, find_tasks("mtg_genre,mtg_top50"))
    assert [found.state for found in result.tasks] == ["unofficial", "faulty"]
    assert "autotagging_top50tags-train.tsv" in result.text()


def test_giantsteps_is_compared_with_its_own_md5(tmp_path):
    folder = tmp_path / "giantsteps"
    giantsteps(folder)
    good = hashlib.md5(b"").hexdigest()
    put(folder, {"giantsteps-key-dataset/md5/10089.LOFI.md5": good + "\n"})
    put(folder, {"giantsteps-mtg-key-dataset-fd7b8c5/md5/5061.LOFI.md5": good})
    tasks = find_tasks("giantsteps_key")
    assert "2 files by the data set's own MD5\n" in check_data(tmp_path, tasks).text()
    put(folder, {"giantsteps-key-dataset/audio/10089.LOFI.mp3": "damaged"})
    result = check_data(tmp_path, tasks)
    assert result.hashes[0].wrong == ("giantsteps-key-dataset/audio/10089.LOFI.mp3",)
    assert "1 differ, fetch them anew: giantsteps-key-dataset/audio/10089.LOFI.mp3" in result.text()


def test_vocalset_is_asked_for_every_singer(tmp_path):
    names = [f"{singer}_scales_belt_{vowel}" for singer in ("f1", "f2") for vowel in "abcdef"]
    put(tmp_path / "vocalset" / "FULL", {f"{name[:2]}/scales/belt/{name}.wav": "" for name in names})
    (found,) = check_data(tmp_path, find_tasks("vocalset_singer")).tasks
    assert found.difference.startswith("nothing of f3; f4;") and found.difference.endswith("10 more")


def whole_vocalset(folder):
    """Two recordings of every singer in every technique, and those whose names lack the singer."""
    techniques = vocalset.TECHNIQUES + vocalset.OTHER_TECHNIQUES
    names = [f"{s}/scales/{t}/{s}_scales_{t}_{v}" for s in vocalset.SINGERS for t in techniques for v in "xy"]
    for line in shipped_lines("vocalset_names.txt"):
        technique, name, singer = line.split(" ")
        names += [f"{singer}/scales/{technique}/{name}"] if singer != "-" else []
    put(folder, {f"FULL/{name}.wav": "" for name in names})
    return len(names)


@pytest.mark.parametrize("task", ["vocalset_technique", "vocalset_singer"])
def test_a_split_by_marbles_rule_is_ready_only_with_what_it_depends_on(tmp_path, task):
    folder = tmp_path / "vocalset"
    count = whole_vocalset(folder)
    (found,) = check_data(tmp_path, find_tasks(task), "marble-v1").tasks
    assert (found.state, found.difference) == ("ready", "")
    (note,) = [note for note in found.notes if "one that is not here moves others to other parts" in note]
    assert f"Here are {count}: belt 40, breathy 40, fast_forte 41, fast_piano 53," in note
    (folder / "FULL/f4/scales/straight/scales_straight_e.wav").unlink()
    shutil.rmtree(folder / "FULL" / "m11")
    result = check_data(tmp_path, find_tasks(task), "marble-v1")
    (found,) = result.tasks
    assert found.state == "unofficial" and result.exit_code == USER_ERROR
    said = "needs the whole data set, which has m11; straight/f4_scales_straight_e as well"
    assert said in found.difference and said in result.text() and any(said in note for note in found.notes)
    (ours,) = check_data(tmp_path, find_tasks(task)).tasks  # whose parts do not depend on each other
    assert not any("whole data set" in note for note in ours.notes)


def test_the_check_is_json_too(tmp_path):
    nsynth(tmp_path / "nsynth")
    content = json.loads(json.dumps(check_data(tmp_path, find_tasks("nsynth_pitch")).as_json()))
    assert content["tasks"][0]["counts"] == {"train": 2, "valid": 1, "test": 1}
    assert content["sources"]["nsynth"]["licence"] == "CC BY 4.0"
