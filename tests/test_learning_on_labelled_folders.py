"""benchmarks.learning asks about music of your own: folders of audio files with a .jsonl beside them."""

import json

import jax
import numpy as np
import pytest
import soundfile

from benchmarks.learning.evaluation import Heard, encoder_frames, front_end_frames, linear, pooled
from benchmarks.learning.folders import drawn, listed, read
from benchmarks.learning.labels import OF_PROBING, OF_TRAINING
from benchmarks.learning.music import folder_pieces
from benchmarks.learning.questions import ask, chance, counts, described
from benchmarks.learning.settings import SIZES, Arm
from benchmarks.learning.training import make_program
from musicssl_jax.errors import UserError
from musicssl_jax.parallel import make_mesh
from musicssl_jax.targets.filter_bank import FrameGrid

RATE = 16_000
GRID = FrameGrid(RATE, 320, 400)


def tone(pitch, seconds, rate, harmonics=1):
    t = np.arange(round(seconds * rate)) / rate
    frequency = 440 * 2 ** ((pitch - 69) / 12)
    return 0.3 * sum(np.sin(2 * np.pi * k * frequency * t) / k for k in range(1, harmonics + 1)) / harmonics


def read_folder(folder, rate, seconds):
    return read(listed(folder, OF_PROBING), rate, seconds)


def pieces_of(folder, *lengths, say=print):
    return folder_pieces(folder, listed(folder, OF_TRAINING), RATE, *lengths, say)


def write_list(folder, lines, name="a.jsonl"):
    (folder / name).write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))


@pytest.fixture
def folder(tmp_path):
    """With a.wav and b.wav, and no list yet."""
    for name in "ab":
        soundfile.write(tmp_path / f"{name}.wav", tone(60, 0.5, RATE), RATE)
    return tmp_path


@pytest.fixture(scope="module")
def notes(tmp_path_factory):
    """Eighty notes at 22,050 Hz, some in stereo, by two families of instruments, as a data set of notes is."""
    folder = tmp_path_factory.mktemp("notes")
    rng = np.random.default_rng(0)
    lines = []
    for number in range(80):
        pitch, family = int(rng.integers(60, 63)), str(rng.choice(["pure", "rich"]))
        waveform = tone(pitch, 0.7, 22_050, 1 if family == "pure" else 6)
        soundfile.write(folder / f"{number}.wav", np.stack([waveform] * 2, 1) if number % 2 else waveform, 22_050)
        lines.append({"file": f"{number}.wav", "pitch": pitch, "family": family, "velocity": 100})
    (folder / "notes.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    return folder


def test_notes_are_asked_for_pitch_and_instrument_and_nothing_else(notes):
    waveforms, truths = zip(*read_folder(notes, RATE, 8.0), strict=True)
    assert {len(waveform) for waveform in waveforms} == {round(0.7 * RATE)}
    asked = ask(truths, [0.7] * len(waveforms))
    assert set(asked) == {"pitch", "instrument"}
    features = pooled(Heard(front_end_frames("logmel229", GRID), RATE), waveforms, asked, GRID)
    for name, one in asked.items():
        assert features[name].shape == (1, 80, 229)
        assert linear(features[name], one).score > chance(one) + 0.2


def test_tracks_are_asked_for_key_mode_tempo_and_beats(tmp_path):
    lines = []
    for number in range(10):
        waveform = np.concatenate([tone(60 + number % 3, 0.5, RATE)] * 6)
        soundfile.write(tmp_path / f"{number}.wav", waveform, RATE)
        line = {"key": "CDE"[number % 3], "mode": ["major", "minor"][number % 2], "bpm": 100 + number}
        lines.append({"file": f"{number}.wav", "beats": [0.5, 1.0, 1.5, 2.0, 9.0], **line})
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    _, truths = zip(*read_folder(tmp_path, RATE, 2.5), strict=True)
    asked = ask(truths, [2.5] * 10)
    assert set(asked) == {"key", "mode", "tempo", "beats"}
    # On beats, and halfway between; the one behind the end is not asked for.
    assert asked["beats"].spans[0] == pytest.approx(
        np.array([[at - 0.04, at + 0.04] for at in (0.5, 1.0, 1.5, 2.0, 0.75, 1.25, 1.75)])
    )
    assert len(asked["key"].task.labels) == 10


def test_pieces_to_train_on_have_one_length_and_validation_is_of_other_files(notes):
    said = []
    pieces = pieces_of(notes, 30.0, 0.5, say=said.append)
    assert pieces["training"].shape == (72, round(0.7 * RATE))
    assert pieces["validation"].shape == (8, round(0.7 * RATE))
    assert pieces["training"].dtype == np.int16
    assert "80 of 80 files in pieces of 0.70 s, 100% of the music" in said[0]
    with pytest.raises(UserError, match="none of its 80 files has the 2 s of a clip to train on"):
        pieces_of(notes, 30.0, 2.0)


def test_one_short_file_does_not_cut_all_others(tmp_path):
    """It is left out, and that is said."""
    seconds = [2.1, *[9.0] * 20, *[12.0] * 10]
    for number, length in enumerate(seconds):
        soundfile.write(tmp_path / f"{number}.wav", np.full(round(length * RATE), 0.1), RATE)
    lines = [json.dumps({"file": f"{number}.wav"}) for number in range(len(seconds))]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    said = []
    pieces = pieces_of(tmp_path, 30.0, 2.0, say=said.append)
    assert pieces["training"].shape == (27, 9 * RATE) and pieces["validation"].shape == (3, 9 * RATE)
    assert "30 of 31 files in pieces of 9.00 s, 89% of the music" in said[0]


def test_what_too_few_tracks_answer_is_not_asked_and_said(tmp_path):
    truths = [{"bpm": 100.0 + n, "key": "C", "mode": ["major", "minor"][n % 2]} for n in range(9)]
    said = []
    assert ask(truths, [8.0] * 9, say=said.append) == {}
    assert "tempo is not asked: 9 tracks answer it, and 10 are needed" in said
    asked = ask([*truths, {"bpm": 90.0, "key": "C", "mode": "minor"}], [8.0] * 10, say=said.append)
    assert "tempo" in asked and "key" not in asked
    assert "key is not asked: all tracks of a part of the split answer alike" in said


def test_notes_behind_what_is_heard_are_not_asked():
    """Of a track of a minute its first seconds are probed."""
    note = {"duration": 1.0, "instrument": "bell", "role": "solo"}
    truth = {"notes": [note | {"onset": 7.0, "pitch": 60}, note | {"onset": 7.5, "pitch": 61}]}
    other = {"notes": [note | {"onset": 1.0, "pitch": 62, "instrument": "organ"}]}
    asked = ask([truth, other] * 10, [8.0] * 20)
    assert set(asked["pitch"].task.labels.tolist()) == {60, 62}


def test_silence_behind_a_short_file_is_no_audio(notes):
    """The frames of a file are the same, whatever the length of the windows it is heard in."""
    waveforms, truths = zip(*read_folder(notes, RATE, 8.0), strict=True)
    asked = ask(truths, [0.7] * len(waveforms))
    mesh = make_mesh(1, 1)
    with jax.set_mesh(mesh):
        program = make_program(Arm("music2vec", "music2vec"), SIZES["toy"], {}, mesh)
        frames = encoder_frames(program.objective, program.init(0).params, 1)
    one, other = (
        pooled(Heard(frames, size, True), waveforms[:20], _first(asked, 20), GRID) for size in (RATE, 2 * RATE)
    )
    np.testing.assert_allclose(one["pitch"], other["pitch"], atol=2e-4)


def _first(asked, count):
    return {name: one._replace(spans=one.spans[:count]) for name, one in asked.items()}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"file": "a.wav", "pitch": "C4"}', "line 1: pitch is 'C4': want a MIDI number"),
        ('{"file": "a.wav", "chords": "C G"}', "line 1: chords is 'C G': want a list of objects"),
        ('{"pitch": 60}', 'want an object with a "file"'),
        ('{"file": null}', 'want an object with a "file"'),
        ("[1]", 'want an object with a "file"'),
        ("{", "this is not JSON"),
        ("[" * 100_000, "this is not JSON"),
        ('{"file": "a.wav", "bpm": ' + "9" * 5000 + "}", "this is not JSON"),
        ('{"file": "c.wav"}', "c.wav: there is no such file"),
        ('{"file": "\\u0000"}', "which no file can be called"),
        ('{"file": "' + "a" * 1000 + '"}', "which no file can be called"),
        ('{"file": "."}', "there is no such file"),
        ('{"file": "nan.wav"}', "holds values that are no numbers"),
        ('{"file": "text.wav"}', "cannot read"),
        ('{"file": "short.wav"}', "shorter than a tenth of a second"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(folder, line, said):
    (folder / "text.wav").write_text("no audio")
    soundfile.write(folder / "short.wav", np.zeros(100), RATE)
    soundfile.write(folder / "nan.wav", np.full(RATE, np.nan), RATE, subtype="FLOAT")
    write_list(folder, [line])
    with pytest.raises(UserError) as error:
        list(read_folder(folder, RATE, 8.0))
    assert said in str(error.value) and "a.jsonl, line 1" in str(error.value)


def test_all_that_is_wrong_with_lists_is_said_at_once(folder):
    """The first of it; of the rest, how much there is."""
    wrong = [{"file": "a.wav", "key": "H", "mode": "dorian"}, "{", *({"file": f"none{n}.wav"} for n in range(9))]
    write_list(folder, wrong)
    with pytest.raises(UserError) as error:
        listed(folder, OF_PROBING)
    for said in ("line 1: key is 'H'", "line 1: mode is 'dorian'", "line 2: this is not JSON", "line 3: cannot read"):
        assert said in str(error.value)
    assert str(error.value).endswith("and 4 more")


def test_all_files_that_cannot_be_read_are_said_at_once(folder):
    write_list(folder, [{"file": "a.wav"}, {"file": "b.wav"}, {"file": "c.wav"}])
    for name in "bc":
        (folder / f"{name}.wav").write_text("no audio")
    with pytest.raises(UserError, match=r"(?s)line 2: cannot read.*line 3: cannot read"):
        list(read_folder(folder, RATE, 8.0))


def test_what_nobody_asks_for_is_passed_over(folder):
    """Under whatever name, also of fields that only musicbox's lists have."""
    line = {"file": "a.wav", "pitch": 60, "notes": "recorded live", "solos": [0.5], "chord": 3, "velocity": [1, {}]}
    write_list(folder, [line, {"file": "b.wav", "pitch": None, "beats": None, "notes": [{"text": "loud"}]}])
    assert [one.labels for one in listed(folder, OF_PROBING)] == [{"pitch": 60}, {}]


def test_music_to_train_on_needs_no_labels_that_make_sense(folder):
    write_list(folder, [{"file": "a.wav", "key": "H", "group": "one"}, {"file": "b.wav", "bpm": "fast"}])
    assert [line.labels for line in listed(folder, OF_TRAINING)] == [{"group": "one"}, {}]


def test_lists_may_begin_with_a_byte_order_mark_and_end_lines_as_windows_does(folder):
    (folder / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"file": "a.wav", "key": "C"}\r\n{"file": "b.wav"}\r\n')
    (folder / "._a.jsonl").write_bytes(b"\xff\xfe")  # as macOS leaves beside it
    assert [line.labels for line in listed(folder, OF_PROBING)] == [{"key": "C"}, {}]


def test_a_folder_without_a_list_is_named(tmp_path):
    with pytest.raises(UserError, match="holds no .jsonl file"):
        list(read_folder(tmp_path, RATE, 8.0))


def test_a_file_that_is_named_twice_is_refused(notes, tmp_path):
    """Else its copies would be trained on and tested on."""
    soundfile.write(tmp_path / "a.wav", tone(60, 0.5, RATE), RATE)
    (tmp_path / "a.jsonl").write_text('{"file": "a.wav", "key": "C"}')
    (tmp_path / "b.jsonl").write_text('\n{"file": "./a.wav", "bpm": 100}')
    with pytest.raises(UserError, match=r"b.jsonl, line 2: ./a.wav has been named before \(.*a.jsonl, line 1\)"):
        list(read_folder(tmp_path, RATE, 8.0))


def test_lists_that_name_nothing_or_are_no_text_are_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n\n")
    with pytest.raises(UserError, match="name no audio"):
        list(read_folder(tmp_path, RATE, 8.0))
    (tmp_path / "a.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="is not UTF-8 text"):
        list(read_folder(tmp_path, RATE, 8.0))
    (tmp_path / "a.jsonl").unlink()
    (tmp_path / "a.jsonl").mkdir()
    with pytest.raises(UserError, match=r"cannot read .*a.jsonl: Is a directory"):
        list(read_folder(tmp_path, RATE, 8.0))


def songs(count, cuts):
    """Labels of songs of which several cuts are known."""
    return [
        {"bpm": 60.0 + song, "family": f"{song % 2} {cut % 2}", "group": f"song {song}"}
        for song in range(count)
        for cut in range(cuts)
    ]


def test_tracks_of_one_group_are_in_one_part_and_count_as_one():
    truths = songs(12, 4)
    one = ask(truths, [8.0] * 48)["instrument"]
    for part in one.parts:
        inside = {truths[track]["group"] for track in np.flatnonzero(part)}
        assert inside.isdisjoint(truths[track]["group"] for track in np.flatnonzero(~part))
    assert [tuple(part) for part in counts(one).values()] == [(12, 3, 12), (8, 2, 8), (28, 7, 28)]
    said = []
    assert ask(songs(9, 4), [8.0] * 36, say=said.append) == {}
    assert "tempo is not asked: 9 groups of tracks answer it, and 10 are needed" in said


def test_a_group_is_one_draw_of_the_interval():
    """Forty cuts of each song say no more of a score than one does."""
    rng = np.random.default_rng(0)
    bpm = rng.uniform(60, 180, 40)
    feature = np.log(bpm) + rng.normal(0, 0.2, 40)
    spreads = []
    for cuts in (1, 40):
        truths = [{"bpm": float(b), "group": f"{song}"} for song, b in enumerate(bpm) for _ in range(cuts)]
        asked = ask(truths, [8.0] * len(truths))["tempo"]
        spreads.append(linear(np.repeat(feature, cuts)[None, :, None], asked).draws.std())
    assert spreads[1] == pytest.approx(spreads[0], rel=0.2)


def test_what_a_question_rests_on_is_said_before_anything_is_trained():
    truths = [{"bpm": 100.0 + n, "key": "CDE"[n % 3]} for n in range(24)] + [{}]
    asked = ask(truths, [8.0] * 25)
    assert described(asked["key"]) == (
        "key: 24 tracks (6 train, 4 valid, 14 test) (few: scores will say little), 24 windows, "
        "3 classes: C (8), D (8), E (8)"
    )
    assert described(asked["tempo"]).endswith("24 windows, 24 values")
    many = ask(truths * 10, [8.0] * 250)["key"]
    assert "few" not in described(many)
    assert counts(many)["test"] == (144, 144, 144)


def test_validation_music_is_of_other_groups(tmp_path):
    for number in range(40):
        soundfile.write(tmp_path / f"{number}.wav", np.full(RATE, number / 100), RATE)
    write_list(tmp_path, [{"file": f"{number}.wav", "group": number // 4} for number in range(40)])
    pieces = pieces_of(tmp_path, 30.0, 0.5)
    groups = {name: {round(piece[0] / 32767 * 100) // 4 for piece in of} for name, of in pieces.items()}
    assert groups == {"training": {0, 2, 3, 4, 5, 7, 8, 9}, "validation": {1, 6}}


@pytest.mark.parametrize(("files", "enough"), [(5, False), (6, True)])
def test_too_little_music_to_train_on_is_refused(tmp_path, files, enough):
    """Controls need the targets of other pieces."""
    for number in range(files):
        soundfile.write(tmp_path / f"{number}.wav", tone(60, 1.0, RATE), RATE)
    write_list(tmp_path, [{"file": f"{number}.wav"} for number in range(files)])
    if enough:
        pieces = pieces_of(tmp_path, 30.0, 0.5)
        assert (len(pieces["training"]), len(pieces["validation"])) == (4, 2)
        return
    with pytest.raises(UserError, match=r"3 pieces of 1.00 s to train on and 2 to hold out, and at least 4 and 2"):
        pieces_of(tmp_path, 30.0, 0.5)


def test_of_a_large_folder_whole_groups_are_drawn(tmp_path):
    for number in range(30):
        soundfile.write(tmp_path / f"{number}.wav", tone(60, 0.2, RATE), RATE)
    write_list(tmp_path, [{"file": f"{number}.wav", "group": number // 3} for number in range(30)])
    lines = listed(tmp_path, OF_PROBING)
    some = drawn(lines, 10)
    assert len(some) == 9 and some == drawn(lines, 10)
    groups = [line.labels["group"] for line in some]
    assert all(groups.count(group) == 3 for group in groups)
    assert drawn(lines, 2) == []
