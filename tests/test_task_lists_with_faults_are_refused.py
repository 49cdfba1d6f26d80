"""What is wrong with a data set's lists is said in one line, with file and line, and nothing is guessed."""

import json

import pytest
from task_fixtures import (
    ANNOTATIONS,
    JAMENDO,
    METADATA,
    NOTES,
    SONGS_INFO,
    STATIC_ANNOTATIONS,
    emomusic,
    giantsteps,
    jamendo,
    magnatagatune,
    note,
    nsynth,
    put,
    read,
)

from musicssl_jax.errors import UserError
from musicssl_jax.mir.tasks.catalogue import TASKS, find_tasks


def refused(task, data_dir, *said):
    with pytest.raises(UserError) as error:
        read(task, data_dir)
    message = str(error.value)
    assert "\n" not in message
    for words in said:
        assert words in message
    return message


@pytest.mark.parametrize("task", TASKS)
def test_a_missing_folder_is_named(tmp_path, task):
    refused(task, tmp_path, str(tmp_path / TASKS[task].data_set), "--check-data")


@pytest.mark.parametrize("task", [name for name in TASKS if name != "gtzan_genre"])
def test_an_empty_folder_says_what_belongs_there(tmp_path, task):
    folder = tmp_path / TASKS[task].data_set
    folder.mkdir()
    refused(task, tmp_path, str(folder))


def test_tables_of_magnatagatune(tmp_path):
    folder = tmp_path / "magnatagatune"
    columns = ["clip_id", *TASKS["mtt_top50"].outputs, "mp3_path"]
    put(folder, {"annotations_final.csv": magnatagatune(header=[name for name in columns if name != "sitar"])})
    refused("mtt_top50", tmp_path, "annotations_final.csv", "sitar")
    put(folder, {"annotations_final.csv": magnatagatune().replace('"1"\t"0"', '"2"\t"0"')})
    refused("mtt_top50", tmp_path, "annotations_final.csv:2", "neither 0 nor 1")
    put(folder, {"annotations_final.csv": magnatagatune() + '"3"\t"0"\n'})
    refused("mtt_top50", tmp_path, "annotations_final.csv:3", "2 cells")
    put(folder, {"annotations_final.csv": magnatagatune(rows=[("1", (), "g/no-1-2.mp3")])})
    refused("mtt_top50", tmp_path, "annotations_final.csv:2", "g/no-1-2.mp3")
    twice = [("1", (), "0/a-1-2.mp3"), ("2", (), "0/a-1-2.mp3")]
    put(folder, {"annotations_final.csv": magnatagatune(rows=twice)})
    refused("mtt_top50", tmp_path, "0/a-1-2.mp3 is listed twice")
    (folder / "annotations_final.csv").write_bytes(b"\xff\xfe\x00")
    refused("mtt_top50", tmp_path, "annotations_final.csv", "not UTF-8")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"songs": SONGS_INFO.replace("development", "devel", 1)}, ["songs_info.csv:2", "devel"]),
        ({"songs": SONGS_INFO.replace("Mediaeval 2013 set", "set")}, ["songs_info.csv", "Mediaeval 2013 set"]),
        ({"songs": SONGS_INFO.replace("\r\n3,", "\r\n2,")}, ["songs_info.csv:3", "'2' is there twice"]),
        ({"songs": SONGS_INFO.replace("\r\n3,", "\r\nx,")}, ["songs_info.csv:3", "'x' is no number"]),
        ({"songs": SONGS_INFO.replace(",Blues,evaluation", ",evaluation")}, ["songs_info.csv:3", "7 cells"]),
        ({"ratings": STATIC_ANNOTATIONS.replace("5.3", "?")}, ["static_annotations.csv:4", "not numbers"]),
        ({"ratings": STATIC_ANNOTATIONS.replace("5.3", "nan")}, ["static_annotations.csv:4", "not numbers"]),
        ({"ratings": STATIC_ANNOTATIONS + "7,1,1,1,1"}, ["static_annotations.csv:6", "song 7"]),
        ({"ratings": STATIC_ANNOTATIONS.partition("189")[0]}, ["song 189"]),
    ],
)
def test_tables_of_emomusic(tmp_path, changes, said):
    emomusic(tmp_path / "emomusic", **changes)
    refused("emomusic", tmp_path, *said)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"annotations": ANNOTATIONS.replace("D# minor", "H minor")}, ["annotations.txt:2", "'H minor'"]),
        ({"annotations": ANNOTATIONS.replace("minor\t2\n5881", "minor\t3\n5881")}, ["annotations.txt:2", "'3'"]),
        ({"annotations": ANNOTATIONS.replace("5881\tA", "5061\tA")}, ["5061 is listed twice"]),
        ({"metadata": METADATA.replace("33846", "33847")}, ["annotations.txt:6", "33846"]),
        ({"metadata": METADATA.replace("33846", "5061")}, ["beatport_metadata.txt:7", "listed twice"]),
        ({"metadata": METADATA.replace("ARTIST", "WHO")}, ["beatport_metadata.txt", "ARTIST"]),
        ({"key": "D dorian"}, ["10089.LOFI.key:1", "'D dorian'"]),
        ({"key": ""}, ["10089.LOFI.key", "0 lines"]),
    ],
)
def test_tables_of_giantsteps(tmp_path, changes, said):
    giantsteps(tmp_path / "giantsteps", **changes)
    refused("giantsteps_key", tmp_path, *said)


def test_files_of_nsynth(tmp_path):
    folder = tmp_path / "nsynth"
    name, entry = note("guitar_acoustic_021", 63)
    for wrong in ({"pitch": 128}, {"pitch": None}, {"instrument_family_str": "harp"}):
        nsynth(folder, {**NOTES, "valid": [(name, {**entry, **wrong})]})
        refused("nsynth_pitch", tmp_path, "nsynth-valid/examples.json")
    for wrong in ("[1, 2]", "{", json.dumps({name: 3})):
        put(folder, {"nsynth-valid/examples.json": wrong})
        refused("nsynth_instrument", tmp_path, "nsynth-valid/examples.json")
    nsynth(folder, {**NOTES, "valid": NOTES["train"]})
    refused("nsynth_pitch", tmp_path, "is listed twice")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (("track_0000001", "01/1.mp3", "genre---yodel"), ["genre-validation.tsv:2", "'genre---yodel'", "87"]),
        (("track_0000001", "01/one.mp3", "genre---rock"), ["genre-validation.tsv:2", "PATH"]),
        (JAMENDO["train"][0], ["track_0000241 is listed twice"]),
    ],
)
def test_tables_of_jamendo(tmp_path, row, said):
    jamendo(tmp_path / "mtg_jamendo", {**JAMENDO, "validation": [row]})
    refused("mtg_genre", tmp_path, *said)


def test_other_files_than_jamendos_split_are_not_read_for_it(tmp_path):
    folder = tmp_path / "mtg_jamendo"
    jamendo(folder)
    split = folder / "mtg-jamendo-dataset" / "data" / "splits" / "split-0"
    put(split, {"autotagging_genre-test.tsv": "track_0000241\tartist_000005\talbum_000033\t41/241.mp3\t340.1\tx\r\n"})
    refused("mtg_genre", tmp_path, "genre-test.tsv:1", "TRACK_ID")
    (split / "autotagging_genre-test.tsv").unlink()
    refused("mtg_genre", tmp_path, "split-0/autotagging_genre-test.tsv", "git clone")


@pytest.mark.parametrize("text", ["x\t1\n", "", "-1.0\n", "nan\n"])
def test_beats_that_are_none(tmp_path, text):
    put(tmp_path / "gtzan", {"genres/blues/blues.00029.wav": "", "beats/gtzan_blues_00029.beats": text})
    refused("gtzan_beats", tmp_path, "gtzan_blues_00029.beats")
    put(tmp_path / "gtzan", {"jams/blues.00029.wav.jams": '{"annotations": [{"namespace": "tempo", "data": []}]}'})
    refused("gtzan_beats", tmp_path, "blues.00029.wav.jams")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "not a JSON object"),
        ('{"audio_path": "data/GTZAN/genres/blues/blues.00012.wav"}', "not a JSON object"),
        ('{"audio_path": "data/x.wav", "label": "blues"}', "not named"),
        ('{"audio_path": "genres/blues/blues.00012.wav", "label": "polka"}', "'polka'"),
    ],
)
def test_manifests(tmp_path, line, said):
    folder = tmp_path / "gtzan"
    good = '{"audio_path": "genres/rock/rock.00001.wav", "label": "rock"}\n'
    put(folder, {"GTZANGenre.train.jsonl": good + line + "\n"})
    refused("gtzan_genre", tmp_path, "GTZANGenre.train.jsonl:2", said)
    put(folder, {"GTZANGenre.train.jsonl": good})
    refused("gtzan_genre", tmp_path, "valid part is missing")


def test_marbles_lists_of_vocalset(tmp_path):
    folder = tmp_path / "vocalset"
    put(folder, {"FULL/f1/scales/belt/f1_scales_belt_a.wav": "", "train_s.txt": "belt/f1_scales_belt_a_00.wav\n"})

    def said_of(files):
        put(folder, files)
        with pytest.raises(UserError) as error:
            read("vocalset_singer", tmp_path, "marble-v1")
        return str(error.value)

    assert "valid_s.txt is missing" in said_of({})
    assert "also in the train part" in said_of({"valid_s.txt": "belt/f1_scales_belt_a_01.wav\n"})
    for line in ("belt/f12_scales_belt_a_01.wav", "belted/f9_scales_belt_a_01.wav", "f9_scales_belt_a_01.wav"):
        said = said_of({"valid_s.txt": f"{line}\n"})
        assert "valid_s.txt:1" in said and line in said and "get the lists anew" in said
    (folder / "train_s.txt").unlink()  # without it the rule is not taken in place of the lists
    assert "train_s.txt is missing" in said_of({"valid_s.txt": "belt/f1_scales_belt_a_01.wav\n"})


def test_prepared_data_that_need_tensorflow_say_so(tmp_path):
    kind = "tensorflow_datasets.core.features.audio_feature.Audio"
    audio = {"pythonClassName": kind, "audio": {"dtype": "float32", "shape": {}, "encoding": "none"}}
    features = {"pythonClassName": "tensorflow_datasets.core.features.features_dict.FeaturesDict"}
    info = {"name": "nsynth", "version": "2.3.3", "fileFormat": "array_record", "splits": []}
    put(
        tmp_path / "nsynth" / "2.3.3",
        {
            "dataset_info.json": json.dumps(info),
            "features.json": json.dumps({**features, "featuresDict": {"features": {"audio": audio}}}),
        },
    )
    refused("nsynth_pitch", tmp_path, "2.3.3", "only with TensorFlow")


def test_tasks_are_found_by_name():
    assert find_tasks("all") == tuple(TASKS.values()) and len(TASKS) == 13
    assert [task.name for task in find_tasks(" gtzan_beats,emomusic, gtzan_beats ")] == ["gtzan_beats", "emomusic"]
    with pytest.raises(UserError, match="did you mean gtzan_genre"):
        find_tasks("emomusic,gtzan_gener")
    for none in ("", ",", "zzz"):
        with pytest.raises(UserError, match="mtt_top50"):
            find_tasks(none)
