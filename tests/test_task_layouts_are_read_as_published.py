"""Each data set, in the layouts that people have after the official download, with the quirks of its files."""

import json
import os
import shutil

import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from task_fixtures import (
    SONGS_INFO,
    STATIC_ANNOTATIONS,
    emomusic,
    giantsteps,
    jamendo,
    magnatagatune,
    nsynth,
    parts_and_labels,
    put,
    put_wav,
    read,
)

from data_pipelines.tf_example import encode_bytes
from data_pipelines.tfds_metadata import data_set_files, tensor, text
from musicssl_jax.errors import UserError
from musicssl_jax.mir.tasks import mtg_jamendo
from musicssl_jax.mir.tasks.catalogue import TASKS
from musicssl_jax.mir.tasks.completeness import checked
from musicssl_jax.mir.tasks.task import PARTS


@pytest.mark.parametrize("audio", ["mp3/", "", "MagnaTagATune/audio/"])
def test_magnatagatune_takes_its_tags_in_the_shipped_order(tmp_path, audio):
    rows = [
        ("2", ("classical", "zither"), "f/bach-01-aria-30-59.mp3"),
        ("6", ("guitar", "choral"), "0/abs-02-x-0-29.mp3"),
        ("9", (), "c/silent-03-y-59-88.mp3"),
        ("11", ("rock",), "b/gone-04-z-88-117.mp3"),
    ]
    folder = tmp_path / "magnatagatune"
    put(folder, {"annotations_final.csv": magnatagatune(rows=rows), f"{audio}c/silent-03-y-59-88.mp3": ""})
    put(folder, {f"{audio}f/bach-01-aria-30-59.mp3": "", f"{audio}0/abs-02-x-0-29.mp3": ""})
    data = read("mtt_top50", tmp_path)
    assert parts_and_labels(data) == {
        "f/bach-01-aria-30-59.mp3": ("test", (1,)),
        "0/abs-02-x-0-29.mp3": ("train", (0, 49)),
        "c/silent-03-y-59-88.mp3": ("valid", ()),  # kept: whether untagged clips count is for the score to say
    }
    assert data.examples[0].group == "f/bach-01-aria"
    assert data.recordings["0/abs-02-x-0-29.mp3"].path == str(folder / f"{audio}0/abs-02-x-0-29.mp3")
    assert [(gap.recording, gap.part, gap.known) for gap in data.missing] == [
        ("b/gone-04-z-88-117.mp3", "train", False)
    ]


def test_the_dead_clips_of_magnatagatune_are_known(tmp_path):
    clip = "6/norine_braun-now_and_zen-08-gently-117-146.mp3"
    put(tmp_path / "magnatagatune", {"annotations_final.csv": magnatagatune(rows=[("1", ("rock",), clip)]), clip: ""})
    data = read("mtt_top50", tmp_path)
    assert not data.examples and [(gap.recording, gap.known) for gap in data.missing] == [(clip, True)]


@pytest.mark.parametrize("layout", ["genres/{0}/{1}.wav", "Data/genres_original/{0}/{1}.wav", "{0}/{1}.au"])
def test_gtzan_is_found_wherever_it_was_unpacked(tmp_path, layout):
    folder = tmp_path / "gtzan"
    for name in ("blues.00029", "classical.00011", "rock.00099", "jazz.00054"):
        put(folder, {layout.format(name.partition(".")[0], name): ""})
    put(folder, {"Data/genres_original/.DS_Store": "", "Data/genres_original/blues/._blues.00030.wav": "x"})
    data = read("gtzan_genre", tmp_path)
    genres = {name: label for name, (_, label) in parts_and_labels(data).items()}
    assert genres.items() >= {"blues.00029": 0, "classical.00011": 1}.items() and "blues.00030" not in genres
    broken = [gap for gap in data.missing if gap.recording == "jazz.00054"]
    assert [(gap.part, gap.known) for gap in broken] == [("train", True)] and "cannot be read" in broken[0].reason


def test_the_broken_recording_of_gtzan_is_used_where_it_is_whole(tmp_path):
    put_wav(tmp_path / "gtzan" / "genres" / "jazz" / "jazz.00054.wav")
    assert parts_and_labels(read("gtzan_genre", tmp_path)) == {"jazz.00054": ("train", 5)}
    assert not read("gtzan_genre", tmp_path, "marble-v1").examples


def test_a_link_to_the_recordings_is_followed_and_a_circle_is_not(tmp_path):
    put(tmp_path / "elsewhere", {"genres_original/blues/blues.00029.wav": ""})
    (tmp_path / "gtzan").mkdir()
    os.symlink(tmp_path / "elsewhere" / "genres_original", tmp_path / "gtzan" / "genres")
    os.symlink(tmp_path / "gtzan", tmp_path / "gtzan" / "again")
    assert "blues.00029" in read("gtzan_genre", tmp_path).recordings


def jams(*times):
    def annotation(kind, observed):
        data = [{"time": time, "duration": 0.0, "value": 1.0, "confidence": None} for time in observed]
        return {"namespace": "beat", "sandbox": {"annotation_type": kind}, "data": data}

    tempo = {"namespace": "tempo", "sandbox": {}, "data": []}
    return json.dumps({"annotations": [tempo, annotation("downbeat", times[::4]), annotation("beat", times)]})


def test_beats_are_read_from_jams_and_from_the_mirrors_tables(tmp_path):
    folder = tmp_path / "gtzan"
    put(folder, {f"genres/{name[:-6]}/{name}.wav": "" for name in ("blues.00029", "jazz.00003", "reggae.00002")})
    put(folder, {"GTZAN-Rhythm_v2_ismir2015_lbd/jams/blues.00029.wav.jams": jams(0.428173, 0.898377, 30.5)})
    put(folder, {"gtzan_tempo_beat/beats/gtzan_blues_00029.beats": "0.4\t1\n"})
    put(folder, {"gtzan_tempo_beat/beats/gtzan_jazz_00003.beats": "0.29\n1.08\n1.854\n"})
    data = read("gtzan_beats", tmp_path)
    beats = {name: label for name, (_, label) in parts_and_labels(data).items()}
    assert beats == {"blues.00029": (0.428173, 0.898377, 30.5), "jazz.00003": (0.29, 1.08, 1.854)}
    lacking = {gap.recording: gap for gap in data.missing}["reggae.00002"]
    assert lacking.reason == "no annotation of its beats" and not lacking.known


def test_giantsteps_follows_the_annotators_and_the_artists(tmp_path):
    giantsteps(tmp_path / "giantsteps")
    keys = TASKS["giantsteps_key"].outputs
    data = read("giantsteps_key", tmp_path)
    assert {song: (part, keys[label]) for song, (part, label) in parts_and_labels(data).items()} == {
        "5061": ("train", "Eb minor"),
        "5881": ("train", "A major"),
        "33846": ("valid", "Gb minor"),
        "10089": ("test", "D major"),
    }
    assert data.recordings["10089"].path.endswith("giantsteps-key-dataset/audio/10089.LOFI.mp3")


def test_giantsteps_audio_may_lie_in_one_folder_and_be_converted(tmp_path):
    giantsteps(tmp_path / "giantsteps")
    for path in list((tmp_path / "giantsteps").rglob("*.mp3")):
        put(tmp_path / "giantsteps", {f"audio/{path.stem}.wav": ""})
        path.unlink()
    assert len(read("giantsteps_key", tmp_path).recordings) == 4


@pytest.mark.parametrize("below", ["", "annotations/"])
def test_emomusic_bears_the_spaces_of_its_tables(tmp_path, below):
    folder = tmp_path / "emomusic"
    emomusic(folder)
    if below:
        for name in ("songs_info.csv", "static_annotations.csv"):
            (folder / below).mkdir(exist_ok=True)
            (folder / name).rename(folder / below / name)
    assert parts_and_labels(read("emomusic", tmp_path)) == {
        "2": ("valid", (3.1, 3.0)),
        "3": ("test", (3.5, 3.3)),
        "5": ("train", (4.4, 5.3)),
        "189": ("valid", (5.0, 6.0)),
    }


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_tables_may_have_any_line_ends(tmp_path, end):
    emomusic(tmp_path / "emomusic", SONGS_INFO.replace("\r\n", end), "\ufeff" + STATIC_ANNOTATIONS.replace("\r\n", end))
    assert len(read("emomusic", tmp_path).examples) == 4
    jamendo(tmp_path / "mtg_jamendo")
    for path in (tmp_path / "mtg_jamendo").rglob("autotagging_genre-*.tsv"):
        path.write_bytes(path.read_bytes().replace(b"\r\n", end.encode()))
    assert len(read("mtg_genre", tmp_path).examples) == 4


def test_emomusic_in_another_encoding_has_the_same_split(tmp_path):
    emomusic(tmp_path / "emomusic")
    split = parts_and_labels(read("emomusic", tmp_path))
    table = tmp_path / "emomusic" / "songs_info.csv"
    table.write_bytes(table.read_text(encoding="utf-8").encode("latin-1"))
    assert parts_and_labels(read("emomusic", tmp_path)) == split


def test_nsynth_gives_midi_pitch_family_and_instrument(tmp_path):
    nsynth(tmp_path / "nsynth")
    pitch, instrument = read("nsynth_pitch", tmp_path), read("nsynth_instrument", tmp_path)
    assert [(example.part, example.label) for example in pitch.examples] == [
        ("train", 9),
        ("train", 63),
        ("valid", 22),
        ("test", 120),
    ]
    assert [example.label for example in instrument.examples] == [9, 3, 0, 10]
    assert pitch.examples[0].group == "synth_lead_synthetic_003"
    assert pitch.recordings == instrument.recordings


def write_prepared(folder, name, records):
    """A data set as TFDS reads it without TensorFlow: text features, and audio as a `Tensor`."""
    folder.mkdir(parents=True)
    for split, entries in records.items():
        writer = ArrayRecordWriter(str(folder / f"{name}-{split}.array_record-00000-of-00001"), "group_size:1")
        for entry in entries:
            writer.write(encode_bytes(entry))
        writer.close()
    splits = {split: [(len(entries), 1)] for split, entries in records.items()}
    features = {key: tensor("int16", [-1]) if key == "audio" else text() for key in next(iter(records.values()))[0]}
    for file, content in data_set_files(name, "2.3.3", splits, features).items():
        (folder / file).write_text(json.dumps(content))


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("MUSICSSL_CACHE", str(folder))
    return folder


def test_prepared_data_sets_are_entries_of_a_folder(tmp_path):
    folder = tmp_path / "nsynth" / "nsynth" / "full" / "2.3.3"
    ids = {
        "train": ["synth_lead_synthetic_003-009-050", "guitar_acoustic_021-063-075"],
        "valid": ["bass_electronic_018-022-100"],
        "test": ["vocal_acoustic_000-120-025"],
    }
    write_prepared(folder, "nsynth", {s: [{"id": i.encode(), "audio": b"\0\0"} for i in n] for s, n in ids.items()})
    data = read("nsynth_pitch", tmp_path)
    assert [example.label for example in data.examples] == [9, 63, 22, 120]
    assert [example.label for example in read("nsynth_instrument", tmp_path).examples] == [9, 3, 0, 10]
    assert data.recordings[ids["train"][1]].entry == ("train", 1)
    assert data.recordings[ids["train"][1]].path == str(folder)

    names = ["blues.00029.wav", "jazz.00054.wav"]
    records = [{"audio/filename": name.encode(), "audio": b"\0\0"} for name in names]
    write_prepared(tmp_path / "gtzan" / "1.0.0", "gtzan", {"train": records})
    gtzan = read("gtzan_genre", tmp_path)
    assert parts_and_labels(gtzan) == {"blues.00029": ("train", 0), "jazz.00054": ("train", 5)}
    assert gtzan.recordings["jazz.00054"].entry == ("train", 1)


def test_the_records_of_a_prepared_data_set_are_read_once(tmp_path, cache):
    """By the first command alone, until a file of the data set is another one."""

    def prepare(pitch):
        ids = {part: f"bass_electronic_018-{pitch:03}-{velocity}" for velocity, part in enumerate(PARTS, 100)}
        records = {part: [{"id": id.encode(), "audio": b"\0\0"}] for part, id in ids.items()}
        write_prepared(tmp_path / "nsynth" / "2.3.3", "nsynth", records)

    def pitches():
        return [example.label for example in read("nsynth_pitch", tmp_path).examples[:1]]

    prepare(60)
    assert pitches() == [60]
    for shard in (tmp_path / "nsynth").rglob("*.array_record-*"):  # nothing in it can be read any more
        status = shard.stat()
        shard.write_bytes(b"\0" * status.st_size)
        os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert pitches() == [60]
    for kept in cache.rglob("*.json"):
        kept.write_text('["half wri')
    with pytest.raises(UserError, match="no split 'train'"):
        pitches()
    shutil.rmtree(tmp_path / "nsynth")
    prepare(61)
    assert pitches() == [61]
    shutil.rmtree(tmp_path / "nsynth")
    prepare(62)  # of the same name, version and sizes
    assert pitches() == [62]


@pytest.mark.parametrize("root", ["", "FULL/", "VocalSet11/FULL/", "data_by_singer/"])
def test_vocalset_finds_singer_and_technique_in_path_and_name(tmp_path, root):
    folder = tmp_path / "vocalset"
    names = {
        "female1/arpeggios/belt/f1_arpeggios_belt_c_a": ("belt/f1_arpeggios_belt_c_a", "f1"),
        "male10/scales/fast_piano/scales_c_fast_piano_a": ("fast_piano/m10_scales_c_fast_piano_a", "m10"),
        "female4/arpeggios/straight/arpeggios_straight_a": ("straight/f4_arpeggios_straight_a", "f4"),
        "male3/long_tones/trillo/long_trillo_a": ("trillo/m3_long_trillo_a", "m3"),
    }
    put(folder, {f"{root}{name}.wav": "" for name in names})
    put(folder, {f"{root}female2/scales/vibrato/f2_scales_vibrato_a(1).wav": "", f"{root}female2/._f2_x.wav": ""})
    put(folder, {"data_by_technique/belt/f1_arpeggios_belt_c_a.wav": ""} if root else {})
    singers = TASKS["vocalset_singer"].outputs
    found = {example.recording: singers[example.label] for example in read("vocalset_singer", tmp_path).examples}
    assert found == dict(names.values())
    techniques = read("vocalset_technique", tmp_path)
    assert {example.recording for example in techniques.examples} == {id for id in found if "fast" not in id}
    assert {example.group for example in techniques.examples} == {"f1", "f4", "m3"}


def test_vocalset_tells_which_recordings_it_could_not_place(tmp_path):
    names = [
        "female1/scales/belt/f1_x",
        "female2/arpeggios/vibrado/f2_x",
        "male12/scales/belt/m12_x",
        "male8/a/belt/m9_x",
    ]
    put(tmp_path / "vocalset" / "FULL", {f"{name}.wav": "" for name in names})
    data = read("vocalset_singer", tmp_path)
    assert {example.recording for example in data.examples} == {"belt/f1_x", "belt/m9_x"}
    (note,) = [note for note in data.notes if "left out" in note]
    assert note.startswith("2 recordings") and "vibrado/f2_x.wav" in note and "m12_x.wav" in note


def test_vocalset_takes_marbles_lists_for_marbles_protocol(tmp_path):
    folder = tmp_path / "vocalset"
    put(folder, {f"FULL/{s}/scales/belt/{s}_scales_belt_a.wav": "" for s in ("f1", "f2", "m1", "m2")})
    put(folder, {"train_t.txt": "belt/f1_scales_belt_a_00.wav\nbelt/f1_scales_belt_a_01.wav\n"})
    put(folder, {"valid_t.txt": "belt/m1_scales_belt_a_00.wav\n", "test_t.txt": "belt/f2_scales_belt_a_00.wav\n"})
    data = read("vocalset_technique", tmp_path, "marble-v1")
    assert {name: part for name, (part, _) in parts_and_labels(data).items()} == {
        "belt/f1_scales_belt_a": "train",
        "belt/m1_scales_belt_a": "valid",
        "belt/f2_scales_belt_a": "test",
    }


def test_a_recording_that_marbles_lists_name_and_that_is_not_here_is_missing(tmp_path):
    folder = tmp_path / "vocalset"
    put(folder, {f"FULL/{s}/scales/belt/{s}_scales_belt_a.wav": "" for s in ("f1", "f2", "m1")})
    for task in "ts":
        lists = {"train": ("f1", "m4"), "valid": ("m1",), "test": ("f2", "m3")}
        for part, singers in lists.items():
            chunks = (f"belt/{singer}_scales_belt_a_0{chunk}.wav" for singer in singers for chunk in range(2))
            put(folder, {f"{part}_{task}.txt": "\n".join(chunks) + "\n"})
    for name in ("vocalset_technique", "vocalset_singer"):
        data = read(name, tmp_path, "marble-v1")
        assert [example.recording[5:7] for example in data.examples] == ["f1", "m1", "f2"]
        assert [gap[:3] for gap in data.missing] == [
            ("belt/m4_scales_belt_a", "train", "no such file"),
            ("belt/m3_scales_belt_a", "test", "no such file"),
        ]
        assert len(checked(data, TASKS[name], 0.5).examples) == 3
        with pytest.raises(UserError, match="1 of 2 recordings of its train part are missing"):
            checked(data, TASKS[name], 0.4)


@pytest.mark.parametrize("name", ["{}.low.mp3", "{}.mp3", "{}.low.flac"])
def test_jamendo_reads_split_0_of_the_clone(tmp_path, name):
    folder = tmp_path / "mtg_jamendo"
    jamendo(folder)
    for path in list(folder.rglob("*.low.mp3")):
        path.rename(path.with_name(name.format(path.name.partition(".")[0])))
    tags = TASKS["mtg_genre"].outputs
    data = read("mtg_genre", tmp_path)
    assert {n: (part, [tags[i] for i in label]) for n, (part, label) in parts_and_labels(data).items()} == {
        "track_0000241": ("train", ["genre---rock"]),
        "track_0000946": ("train", ["genre---pop"]),
        "track_0000947": ("valid", ["genre---80s", "genre---ambient"]),
        "track_0000214": ("test", ["genre---punkrock"]),
    }


def test_jamendo_prefers_the_quality_of_published_scores_and_says_when_they_are_mixed(tmp_path):
    folder = tmp_path / "mtg_jamendo"
    jamendo(folder)
    put(folder, {"audio/41/241.mp3": ""})
    data = read("mtg_genre", tmp_path)
    assert data.recordings["track_0000241"].path.endswith("241.low.mp3") and not data.notes
    (folder / "audio-low" / "41" / "241.low.mp3").unlink()
    assert "3 of 4 tracks are in low quality" in read("mtg_genre", tmp_path).notes[0]


def manifest(*entries):
    return "".join(json.dumps({"audio_path": path, "label": label, "duration": 30.0}) + "\n" for path, label in entries)


@pytest.mark.parametrize(
    ("task", "name", "files", "label", "expected"),
    [
        ("gtzan_genre", "GTZANGenre", "data/GTZAN/genres/blues/blues.000{}.wav", "rock", 9),
        ("gtzan_beats", "GTZANBeatTracking", "data/GTZAN/genres/blues/blues.000{}.wav", {"beat": [1, 0.5]}, (0.5, 1.0)),
        ("mtt_top50", "MTT", "data/MTT/mp3/0/album-{}-117-146.mp3", ["violin", "classical"], (1, 12)),
        ("emomusic", "EMO", "data/EMO/emomusic/wav/00{}.wav", [-0.25, 0.5], (-0.25, 0.5)),
        ("giantsteps_key", "GS", "data/GS/giantsteps_clips/wav/00050{}-0.wav", "Eb minor", 15),
        ("mtg_genre", "MTGGenre", "data/MTG/audio/41/{}.low.flac", ["genre---rock"], None),
        ("mtg_moodtheme", "MTGMood", "data/MTG/audio/41/{}.low.flac", ["mood/theme---film"], None),
    ],
)
def test_manifests_of_marble_are_taken(tmp_path, task, name, files, label, expected):
    folder = tmp_path / TASKS[task].data_set
    for number, word in ((11, "train"), (12, "val"), (13, "test")):
        put(folder, {f"{name}.{word}.jsonl": manifest((files.format(number), label))})
        put(folder, {files.format(number).removeprefix("data/"): ""})
    data = read(task, tmp_path)
    assert [example.part for example in data.examples] == ["train", "valid", "test"]
    if expected is None:
        expected = tuple(mtg_jamendo.tags_of(name[3:].lower().replace("mood", "moodtheme")).index(tag) for tag in label)
    assert {example.label for example in data.examples} == {expected}
    assert "MARBLE" in data.notes[0]
    if task == "giantsteps_key":
        assert data.examples[0].group == "5011" and "by clip" in data.notes[1]
