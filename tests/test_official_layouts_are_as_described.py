"""The small data sets have the official layouts with their quirks, and the sound says what the labels say."""

import csv
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import mir_eval
import numpy as np
import pytest
import soundfile
import tensorflow_datasets as tfds
from array_record.python.array_record_data_source import ArrayRecordDataSource
from google.protobuf import json_format
from tensorflow_datasets.core.proto import feature_pb2

from data_pipelines.musicbox.official_layouts import (
    DATA_SETS,
    Size,
    write_gtzan,
    write_task_sets,
    write_tfds_nsynth,
)

SMALL = Size(clips=1, seconds=2.4)


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> tuple[Path, dict[str, dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("sets")
    return folder, write_task_sets(folder, seed=3, size=SMALL, marble=True)


def decodes(path: Path) -> bool:
    try:
        return len(soundfile.read(path)[0]) > 0
    except soundfile.LibsndfileError:
        return False


def hashes(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha1(path.read_bytes()).hexdigest() for path in files}


def test_every_sound_file_decodes_but_those_that_are_planted(sets):
    folder, planted = sets
    for name in DATA_SETS:
        sounds = [path for path in (folder / name).rglob("*") if path.suffix in (".wav", ".mp3")]
        broken = {str(path.relative_to(folder / name)) for path in sounds if not decodes(path)}
        assert broken == {file for file, what in planted[name]["defects"].items() if what == "unreadable"}
        for labels in planted[name]["labels"].values():
            assert all((folder / name / file).is_file() for file in labels)
    assert "genres/jazz/jazz.00054.wav" in planted["gtzan"]["defects"]
    assert sum(what == "unreadable" for what in planted["magnatagatune"]["defects"].values()) == 3


def test_every_part_of_every_task_has_every_class(sets):
    folder, planted = sets
    labels = {task: labels for name in DATA_SETS for task, labels in planted[name]["labels"].items()}
    assert len(labels) == 13
    counts = {task: count for name in DATA_SETS for task, count in planted[name]["counts"].items()}
    assert all(min(count.values()) >= 10 for count in counts.values())
    assert {len(set(labels[task].values())) for task in ("gtzan_genre", "vocalset_technique")} == {10}
    assert len(set(labels["giantsteps_key"].values())) == 24
    assert len(set(labels["vocalset_singer"].values())) == 20
    for task, tags in {"top50": 50, "genre": 87, "instrument": 40, "moodtheme": 56}.items():
        table = "top50tags" if task == "top50" else task
        for part in ("train", "validation", "test"):
            path = folder / f"mtg_jamendo/data/splits/split-0/autotagging_{table}-{part}.tsv"
            rows = [line.split("\t") for line in path.read_text().splitlines()[1:]]
            assert len({tag for row in rows for tag in row[5:]}) == tags
    families = [json.loads((folder / f"nsynth/nsynth-{part}/examples.json").read_text()) for part in ("train", "test")]
    train, test = ({note["instrument_family_str"] for note in notes.values()} for notes in families)
    assert train - test == {"synth_lead"}


def test_magnatagatunes_table_is_tab_separated_and_its_digits_split(sets):
    folder, planted = sets
    with open(folder / "magnatagatune/annotations_final.csv", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t"))
    assert [rows[0][0], rows[0][-1], len(rows[0])] == ["clip_id", "mp3_path", 190]
    assert {len(row) for row in rows} == {190}
    part = dict.fromkeys("0123456789ab", "train") | {"c": "valid"} | dict.fromkeys("def", "test")
    counts = dict.fromkeys(("train", "valid", "test"), 0)
    for row in rows[1:]:
        counts[part[row[-1][0]]] += f"mp3/{row[-1]}" in planted["magnatagatune"]["labels"]["magnatagatune"]
    assert counts == planted["magnatagatune"]["counts"]["magnatagatune"]
    untagged = [f for f, what in planted["magnatagatune"]["defects"].items() if what == "has no tag of the 50"]
    assert len(untagged) == 3


def test_jamendos_tables_end_lines_with_crlf_and_a_link_is_text(sets):
    folder = sets[0] / "mtg_jamendo"
    for path in (folder / "data").rglob("*.tsv"):
        content = path.read_bytes()
        if path.name == "autotagging.tsv":
            assert content == b"raw_30s_cleantags_50artists.tsv" and not path.is_symlink()
        else:
            assert content.count(b"\n") == content.count(b"\r\n") > 1
            assert content.startswith(b"TRACK_ID\tARTIST_ID\tALBUM_ID\tPATH\tDURATION\tTAGS\r\n")
    line = (folder / "data/splits/split-0/autotagging_genre-train.tsv").read_text().splitlines()[1].split("\t")
    assert line[0] == "track_0000214" and line[3] == "14/214.mp3" and line[5].startswith("genre---")
    assert (folder / "14/214.low.mp3").read_bytes() == (folder / "17/517.low.mp3").read_bytes()


def test_giantsteps_spells_keys_in_two_ways_and_keeps_its_sums(sets):
    folder = sets[0] / "giantsteps"
    keys = {path.read_text() for path in (folder / "giantsteps-key-dataset/annotations/key").iterdir()}
    assert len(keys) == 24 and "Bb minor" in keys and not any("#" in key or "\n" in key for key in keys)
    lines = (folder / "giantsteps-mtg-key-dataset/annotations/annotations.txt").read_text().splitlines()
    assert lines[0] == "ID\tMANUAL KEY\tC"
    assert any("/" in line for line in lines) and {line[-1] for line in lines[1:]} == {"0", "1", "2"}
    assert any("# minor" in line for line in lines) and not any("b minor" in line for line in lines)
    for repository in folder.iterdir():
        for sum_file in (repository / "md5").iterdir():
            audio = repository / "audio" / f"{sum_file.stem}.mp3"
            assert hashlib.md5(audio.read_bytes()).hexdigest() == sum_file.read_text().strip()


def test_collaborators_of_valid_artists_are_valid(sets):
    folder, planted = sets
    path = folder / "giantsteps/giantsteps-mtg-key-dataset/annotations/beatport_metadata.txt"
    with open(path, newline="") as file:
        artists = {row["ID"]: row["ARTIST"] for row in csv.DictReader(file, delimiter="\t")}
    own = {a: int(hashlib.sha1(a.strip().lower().encode()).hexdigest(), 16) % 116 >= 100 for a in artists.values()}
    chain = [artists[str(6000000 + n)] for n in range(3)]
    assert not own[chain[2]] and "," in chain[0] and "," in chain[1]
    assert planted["giantsteps"]["counts"]["giantsteps_key"] == {"train": 48, "valid": 24 + len(chain), "test": 24}


def test_emomusics_cells_have_blanks_and_times_in_minutes(sets):
    folder, planted = sets
    with open(folder / "emomusic/songs_info.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert any(cell != cell.strip() for row in rows for cell in row.values())
    sets_of_songs = [row["Mediaeval 2013 set"].strip() for row in rows]
    assert sets_of_songs.count("evaluation") == planted["emomusic"]["counts"]["emomusic"]["test"]
    starts = {row["start of the segment (min.sec)"] for row in rows}
    assert {"0.3", "1.02", "2.15"} <= starts
    for row in rows:
        (m0, s0), (m1, s1) = (row[f"{end} of the segment (min.sec)"].split(".") for end in ("start", "end"))
        assert 60 * (int(m1) - int(m0)) + int(s1.ljust(2, "0")) - int(s0.ljust(2, "0")) == 45
        assert (folder / f"emomusic/clips_45seconds/{row['song_id']}.mp3").is_file()
    labels = {round(value, 1) for pair in planted["emomusic"]["labels"]["emomusic"].values() for value in pair}
    assert len(labels) > 40 and min(labels) >= 1 and max(labels) <= 9


def test_vocalset_has_the_official_folders_lists_and_misnamed_files(sets):
    folder, planted = sets
    full = folder / "vocalset/FULL"
    assert {path.name for path in full.iterdir() if path.is_dir()} == {
        *(f"female{n}" for n in range(1, 10)),
        *(f"male{n}" for n in range(1, 12)),
    }
    lists = [(full.parent / f"{part}_singers_technique.txt").read_text().split() for part in ("train", "test")]
    assert len(lists[0]) == 15 and lists[1] == ["female2", "female8", "male3", "male5", "male10"]
    assert (full / "female4/arpeggios/straight/arpeggios_straight_a.wav").is_file()
    doubled = [full / f"female2/scales/vibrato/f2_scales_vibrato_a{mark}.wav" for mark in ("", "(1)")]
    assert doubled[0].read_bytes() == doubled[1].read_bytes()
    info = soundfile.info(doubled[0])
    assert (info.samplerate, info.channels) == (44100, 1)
    short = [file for file, what in planted["vocalset"]["defects"].items() if what == "shorter than 3 s"]
    assert short and all(soundfile.info(folder / "vocalset" / file).duration < 3 for file in short)


def test_gtzan_lacks_the_annotations_that_the_official_set_lacks(sets):
    folder = sets[0] / "gtzan"
    jams = folder / "GTZAN-Rhythm_v2_ismir2015_lbd/jams"
    assert (folder / "genres/reggae/reggae.00086.wav").is_file() and not (jams / "reggae.00086.wav.jams").exists()
    beats = jams_beats(jams / "jazz.00014.wav.jams")
    assert beats["beat"] and not beats["downbeat"]
    late = jams_beats(jams / "reggae.00002.wav.jams")["beat"]
    assert late[-1] > soundfile.info(folder / "genres/reggae/reggae.00002.wav").duration


def jams_beats(path: Path) -> dict[str, list[float]]:
    annotations = [a for a in json.loads(path.read_text())["annotations"] if a["namespace"] == "beat"]
    return {a["sandbox"]["annotation_type"]: [entry["time"] for entry in a["data"]] for a in annotations}


def test_the_mirror_of_the_beats_says_the_same(sets, tmp_path):
    write_gtzan(tmp_path, 3, SMALL, beats="mirror")
    lines = (tmp_path / "gtzan_tempo_beat/beats/gtzan_blues_00029.beats").read_text().splitlines()
    times = jams_beats(sets[0] / "gtzan/GTZAN-Rhythm_v2_ismir2015_lbd/jams/blues.00029.wav.jams")["beat"]
    assert [float(line.split("\t")[0]) for line in lines] == times
    assert [line.split("\t")[1] for line in lines[:5]] == ["1", "2", "3", "4", "1"][: len(lines)]
    no_downbeats = (tmp_path / "gtzan_tempo_beat/beats/gtzan_jazz_00014.beats").read_text()
    assert "\t" not in no_downbeats
    assert not (tmp_path / "gtzan_tempo_beat/beats/gtzan_reggae_00086.beats").exists()


def test_the_beats_are_in_the_sound(sets):
    folder, planted = sets
    labels = planted["gtzan"]["labels"]["gtzan_beats"]
    scores = [
        mir_eval.beat.f_measure(np.array(label["beat"]), onsets(folder / "gtzan" / file))
        for file, label in labels.items()
        if Path(file).parent.name in ("blues", "country", "classical")
    ]
    assert np.mean(scores) > 0.9


def onsets(path: Path) -> np.ndarray:
    """Where the level rises most, at least 0.3 s apart."""
    wave, rate = soundfile.read(path)
    level = np.sqrt(np.convolve(wave**2, np.ones(441) / 441, mode="same"))[::220]
    rise = np.maximum(level[5:] - level[:-5], 0)
    found: list[int] = []
    for place in np.argsort(-rise):
        if rise[place] < 0.15 * rise.max():
            break
        if all(abs(place - other) > 0.3 * rate / 220 for other in found):
            found.append(int(place))
    return np.sort(np.array(found) + 2.5) * 220 / rate


def test_the_pitch_is_in_the_sound(sets):
    """The strongest peak is the fundamental, or an octave above it."""
    folder, planted = sets
    labels = planted["nsynth"]["labels"]["nsynth_pitch"]
    right = 0
    for file, pitch in labels.items():
        wave, rate = soundfile.read(folder / "nsynth" / file)
        spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave)), 1 << 16))
        heard = 12 * np.log2(spectrum.argmax() * rate / 65536 / 440) + 69
        right += min(abs(heard - pitch), abs(heard - pitch - 12)) < 0.5
    assert right > 0.9 * len(labels)


def test_the_key_is_in_the_sound(sets):
    """Of the 12 transpositions of the scale, the right one has most of the spectrum (or a neighbouring fifth)."""
    folder, planted = sets
    right = 0
    labels = planted["giantsteps"]["labels"]["giantsteps_key"]
    for file, key in labels.items():
        tonic, mode = key.split()
        scale = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}[mode]
        names = ["C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B"]
        chroma = chroma_of(folder / "giantsteps" / file)
        best = max(range(12), key=lambda root: sum(chroma[(root + step) % 12] for step in scale))
        right += (best - names.index(tonic)) % 12 in (0, 5, 7)
    assert right > 0.8 * len(labels)


def chroma_of(path: Path) -> np.ndarray:
    wave, rate = soundfile.read(path)
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave)))) ** 0.5
    frequency = np.fft.rfftfreq(len(wave), 1 / rate)
    used = (frequency > 120) & (frequency < 1200)
    classes = np.round(12 * np.log2(frequency[used] / 440) + 9).astype(int) % 12
    return np.bincount(classes, spectrum[used], 12) / np.bincount(classes, minlength=12)


def test_arousal_is_in_the_sound(sets):
    folder, planted = sets
    labels = planted["emomusic"]["labels"]["emomusic"]
    levels = [np.log(soundfile.read(folder / "emomusic" / file)[0].std()) for file in labels]
    assert np.corrcoef(levels, [arousal for arousal, _ in labels.values()])[0, 1] > 0.7


def test_techniques_are_in_the_sound(sets):
    """What is breathed has a flatter spectrum than what is sung."""
    folder, planted = sets
    flatness: dict[str, list[float]] = {}
    for file, technique in planted["vocalset"]["labels"]["vocalset_technique"].items():
        power = np.abs(np.fft.rfft(soundfile.read(folder / "vocalset" / file)[0])[200:3000]) ** 2
        flatness.setdefault(technique, []).append(float(np.exp(np.log(power).mean()) / power.mean()))
    breathed = min(np.mean(flatness[technique]) for technique in ("breathy", "inhaled"))
    assert breathed > 1.5 * max(np.mean(flatness[technique]) for technique in ("belt", "straight", "vibrato"))


def test_tags_are_in_the_sound(sets):
    """Tracks of which a tag says that there is a high voice have more of the spectrum in its register."""
    folder, planted = sets
    shares: dict[bool, list[float]] = {False: [], True: []}
    for file, tags in planted["mtg_jamendo"]["labels"]["mtg_genre"].items():
        wave, rate = soundfile.read(folder / "mtg_jamendo" / file)
        power = np.abs(np.fft.rfft(wave)) ** 2
        frequency = np.fft.rfftfreq(len(wave), 1 / rate)
        shares["genre---chanson" in tags].append(power[frequency > 440].sum() / power.sum())
    assert np.mean(shares[True]) > np.mean(shares[False]) + 0.05


def test_the_test_set_of_nsynth_repeats_a_waveform(sets):
    folder, planted = sets
    files = [file for file, what in planted["nsynth"]["defects"].items() if "several names" in what]
    assert len(files) == 3 and len({(folder / "nsynth" / file).read_bytes() for file in files}) == 1


def test_the_same_seed_gives_the_same_files_whichever_sets_are_written(sets, tmp_path):
    folder, planted = sets
    again = write_task_sets(tmp_path, seed=3, size=SMALL, sets=["nsynth", "magnatagatune"])
    write_task_sets(tmp_path / "other", seed=4, size=SMALL, sets=["nsynth"])
    for name in again:
        assert again[name] == planted[name] and hashes(tmp_path / name) == hashes(folder / name)
    assert hashes(tmp_path / "other/nsynth") != hashes(folder / "nsynth")


def test_accidents_are_told(tmp_path):
    planted = write_task_sets(tmp_path, seed=3, size=SMALL, sets=["nsynth"], accidents=True)["nsynth"]
    by_kind = {what: tmp_path / "nsynth" / file for file, what in planted["defects"].items()}
    assert not by_kind["missing"].exists()
    assert not decodes(by_kind["empty"]) and not decodes(by_kind["cut off in the file's header"])
    assert planted["counts"]["nsynth_pitch"]["train"] == 154 - 3


def test_marbles_manifests_name_the_same_audio(sets):
    folder, planted = sets
    assert planted["marble"]["data/EMO/EMO.val.jsonl"] == 12
    for name, lines in planted["marble"].items():
        entries = [json.loads(line) for line in (folder / "marble" / name).read_text().splitlines()]
        assert len(entries) == lines > 0
        for entry in entries:
            info = soundfile.info(folder / "marble" / entry["audio_path"])
            assert (info.samplerate, info.frames) == (entry["sample_rate"], entry["num_samples"])
    known = [
        json.loads(line)["label"]
        for part in ("train", "val")
        for line in (folder / f"marble/data/EMO/EMO.{part}.jsonl").read_text().splitlines()
    ]
    np.testing.assert_allclose(np.mean(known, 0), 0, atol=1e-9)


def test_tfds_metadata_are_those_of_the_public_builder(tmp_path):
    """TFDS opens its audio feature with TensorFlow alone, so that only its own schema can be asked here."""
    counts = write_tfds_nsynth(tmp_path, 3, SMALL)
    folder = tmp_path / "nsynth/full/2.3.3"
    features = json_format.Parse((folder / "features.json").read_text(), feature_pb2.Feature())
    audio = features.features_dict.features["audio"].audio
    assert audio.sample_rate == 16000 and audio.dtype == "float32"
    assert features.features_dict.features["pitch"].class_label.num_classes == 128
    info = json.loads((folder / "dataset_info.json").read_text())
    assert {split["name"]: int(split["shardLengths"][0]) for split in info["splits"]} == counts
    records = ArrayRecordDataSource(str(folder / "nsynth-test.array_record-00000-of-00001"))
    assert len(records) == counts["test"] and b"brass_acoustic_046" in records[len(records) - 1]


def test_tfds_reads_what_the_files_say(sets, tmp_path):
    write_tfds_nsynth(tmp_path, 3, SMALL, audio="Tensor")
    source = tfds.builder_from_directory(tmp_path / "nsynth/full/2.3.3").as_data_source("valid")
    record = source[5]
    name = record["id"].decode()
    metadata = json.loads((sets[0] / "nsynth/nsynth-valid/examples.json").read_text())[name]
    assert (record["pitch"], record["velocity"]) == (metadata["pitch"], metadata["velocity"])
    assert record["instrument"]["family"] == metadata["instrument_family"]
    assert [int(record["qualities"][quality]) for quality in ("bright", "dark")] == metadata["qualities"][:2]
    wave, _ = soundfile.read(sets[0] / f"nsynth/nsynth-valid/audio/{name}.wav", dtype="float32")
    np.testing.assert_allclose(record["audio"], wave, atol=1e-4)


@pytest.mark.long
def test_the_tiny_collection_is_quick_and_small(tmp_path):
    begin = time.process_time()
    write_task_sets(tmp_path, seed=0)
    assert time.process_time() - begin < 60
    assert sum(os.path.getsize(path) for path in tmp_path.rglob("*") if path.is_file()) < 60e6
