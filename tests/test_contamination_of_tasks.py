"""What results say of contamination: shares of a task's parts; which music a checkpoint saw; searches go on."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from audio_fixtures import write_audio
from contamination_fixtures import RATE, build_music, musicbox, write_copy
from conversion_fixtures import random_model, small_config

from musicssl_jax.convert import main as convert
from musicssl_jax.interop.runs import write_run
from musicssl_jax.mir.contamination.check import contamination, find_matches
from musicssl_jax.mir.contamination.index import ensure_index
from musicssl_jax.mir.contamination.matching import Match, Undecided
from musicssl_jax.mir.contamination.pretraining import pretraining_collections
from musicssl_jax.mir.tasks.task import Example, Recording, TaskData

TRACKS = musicbox(range(2), 12.0)
OTHERS = musicbox(range(60, 62), 8.0)


@pytest.fixture(scope="module")
def music(tmp_path_factory):
    return build_music(tmp_path_factory.mktemp("music"), TRACKS)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two of three test recordings are excerpts of the collection, one of two in train, none in valid."""
    folder = tmp_path_factory.mktemp("audio")
    recordings, examples = {}, []

    def add(name, part, path):
        recordings[name] = Recording(name, str(path))
        examples.append(Example(name, part, 0, name))

    for part, tracks in (("test", ("additive-0", "plucked-1")), ("train", ("plucked-0",))):
        for track in tracks:
            excerpt = TRACKS[track][3 * RATE : 9 * RATE]
            add(f"copy of {track}", part, write_copy(folder / f"copy-{track}", excerpt, "mp3 at 128 kbit/s"))
    for part, (track, waveform) in zip(("test", "train", "valid", "valid"), OTHERS.items(), strict=True):
        add(track, part, write_audio(folder / f"{track}.wav", waveform[:, None], RATE))
    add("broken", "test", folder / "broken.mp3")
    (folder / "broken.mp3").write_bytes(b"no music")
    return TaskData(recordings, tuple(examples))


def test_the_share_of_each_part_is_said_and_where_it_comes_from(music, data):
    found = find_matches([ensure_index(music, progress=False)], data.recordings.values(), progress=False)
    said = contamination(found, data)
    assert (said["test"], said["train"], said["valid"]) == (2 / 3, 1 / 2, 0.0)
    assert (said["checked"], said["matched"]) == (7, 3)
    [reason] = said["undecided"]
    assert reason.startswith("undecodable")
    assert [(e["part"], e["recording"], e["track"]) for e in said["examples"]] == [
        ("test", "copy of additive-0", "additive-0.wav"),
        ("test", "copy of plucked-1", "plucked-1.wav"),
        ("train", "copy of plucked-0", "plucked-0.wav"),
    ]
    assert all(e["offset"] == pytest.approx(3.0, abs=0.064) for e in said["examples"])
    assert json.loads(json.dumps(said)) == said


def test_a_part_of_which_nothing_was_decided_has_no_share(music, data):
    broken = TaskData({"broken": data.recordings["broken"]}, tuple(e for e in data.examples if e.recording == "broken"))
    found = find_matches([ensure_index(music, progress=False)], broken.recordings.values(), progress=False)
    said = contamination(found, broken)
    assert said["test"] is said["train"] is None
    assert said["checked"] == 0


def test_a_stopped_search_goes_on(music, data, tmp_path):
    index = ensure_index(music, progress=False)
    recordings = list(data.recordings.values())
    whole = find_matches([index], recordings, progress=False)
    find_matches([index], recordings[:3], journal=tmp_path, progress=False)
    [journal] = tmp_path.iterdir()
    with journal.open("a") as file:
        file.write('{"recording": "torn')
    before = journal.read_text()
    assert find_matches([index], recordings, journal=tmp_path, progress=False) == whole
    added = journal.read_text().removeprefix(before)
    assert sum('"recording"' in line for line in added.splitlines()) == len(recordings) - 3
    finished = journal.read_text()
    assert find_matches([index], recordings, journal=tmp_path, progress=False) == whole
    assert journal.read_text() == finished


def test_a_replaced_file_is_searched_again(music, data, tmp_path):
    index = ensure_index(music, progress=False)
    path = Path(shutil.copy(data.recordings["copy of additive-0"].path, tmp_path / "one.mp3"))

    def search():
        return find_matches([index], [Recording("one", str(path))], journal=tmp_path / "journal", progress=False)

    assert isinstance(search()["one"], Match)
    path.write_bytes(b"\0" * path.stat().st_size)  # of the same size
    assert isinstance(search()["one"], Undecided)
    shutil.copy(data.recordings["additive-60"].path, path)
    assert search()["one"] is None


def write_run_on(folder, collections, path, **fields):
    """A run's folder whose checkpoint says that it was trained on these."""
    from data_pipelines.records import open_collection

    model = random_model(small_config("data2vec", {"data.path": path, **fields}))
    fingerprints = [open_collection(collection).fingerprint for collection in collections]
    write_run(dataclasses.replace(model, data={"fingerprints": fingerprints, "hours": [1.0]}), folder)
    return str(folder)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MUSICSSL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


def test_a_run_names_its_collection(music, tmp_path, cache):
    run = write_run_on(tmp_path / "run", [music], str(music))
    assert pretraining_collections(run) == ((music,), ())
    assert pretraining_collections(f"{run}/checkpoints/7") == ((music,), ())


def test_a_folder_of_audio_is_found_where_it_was_built(music, tmp_path, cache):
    shutil.copytree(music, cache / "songs-0123")
    run = write_run_on(tmp_path / "run", [music], str(tmp_path / "songs"))
    assert pretraining_collections(run) == ((cache / "songs-0123",), ())


def test_a_moved_collection_can_be_given(music, tmp_path, cache):
    run = write_run_on(tmp_path / "run", [music], "/gone")
    said = pretraining_collections(run)
    assert said.folders == ()
    assert "/gone" in said.not_checked[0] and "is not here" in said.not_checked[0]
    assert pretraining_collections(run, given=[str(music)]) == ((music,), ())


def test_another_build_in_its_place_is_not_taken_for_it(music, tmp_path, cache):
    run = write_run_on(tmp_path / "run", [music], str(tmp_path / "data"))
    shutil.copytree(music, tmp_path / "data")
    description = json.loads((music / "collection.json").read_text()) | {"build_id": "f" * 64}
    (tmp_path / "data" / "collection.json").write_text(json.dumps(description))
    said = pretraining_collections(run)
    assert said.folders == () and len(said.not_checked) == 1


def test_what_a_model_began_with_counts(music, tmp_path, cache):
    first = write_run_on(tmp_path / "first", [music], str(music))
    other = build_music(tmp_path / "other", musicbox([70, 71], 3.0))
    second = write_run_on(tmp_path / "second", [other], str(other), init_from=first)
    assert pretraining_collections(second) == ((other, music), ())
    shutil.rmtree(first)
    said = pretraining_collections(second)
    assert said.folders == (other,)
    assert "began with another model" in said.not_checked[0]


def test_an_exported_model_is_known_by_its_build(music, tmp_path, cache):
    run = write_run_on(tmp_path / "run", [music], str(music))
    convert([f"--input={run}", f"--output={tmp_path / 'exported'}", "--to=transformers"])
    exported = str(tmp_path / "exported")
    assert len(pretraining_collections(exported).not_checked) == 1
    assert pretraining_collections(exported, given=[str(music)]) == ((music,), ())


def test_foreign_models_do_not_say_and_untrained_ones_have_heard_nothing(music, tmp_path, cache):
    model = dataclasses.replace(random_model(small_config("data2vec", {"data.path": ""})), data={})
    write_run(model, tmp_path / "foreign")
    said = pretraining_collections(str(tmp_path / "foreign"))
    assert said.folders == () and "does not say what it was trained on" in said.not_checked[0]
    assert pretraining_collections(str(tmp_path / "foreign"), given=[str(music)]) == ((music,), ())
    assert pretraining_collections("random:configs/music2vec.py") == ((), ())
