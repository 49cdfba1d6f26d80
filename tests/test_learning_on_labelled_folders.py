"""benchmarks.learning asks about music of your own: folders of audio files with a .jsonl beside them."""

import json

import jax
import numpy as np
import pytest
import soundfile

from benchmarks.learning.evaluation import Heard, encoder_frames, front_end_frames, linear, pooled
from benchmarks.learning.music import folder_pieces, read_folder
from benchmarks.learning.questions import ask, chance
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
    pieces = folder_pieces(notes, RATE, 30.0, 0.5, said.append)
    assert pieces["training"].shape == (72, round(0.7 * RATE))
    assert pieces["validation"].shape == (8, round(0.7 * RATE))
    assert pieces["training"].dtype == np.int16
    assert "80 of 80 files in pieces of 0.70 s, 100% of the music" in said[0]
    with pytest.raises(UserError, match="at least two files of 2 s or more"):
        folder_pieces(notes, RATE, 30.0, 2.0, said.append)


def test_one_short_file_does_not_cut_all_others(tmp_path):
    """It is left out, and that is said."""
    seconds = [2.1, *[9.0] * 20, *[12.0] * 10]
    for number, length in enumerate(seconds):
        soundfile.write(tmp_path / f"{number}.wav", np.full(round(length * RATE), 0.1), RATE)
    lines = [json.dumps({"file": f"{number}.wav"}) for number in range(len(seconds))]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    said = []
    pieces = folder_pieces(tmp_path, RATE, 30.0, 2.0, said.append)
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
        ('{"file": "a.wav", "pitch": "C4"}', "line 1: pitch is 'C4', which is no whole number"),
        ('{"file": "a.wav", "bpm": true}', "bpm is True, which is no number"),
        ('{"file": "a.wav", "beats": 3}', "beats is 3, which is no list"),
        ('{"file": "a.wav", "beats": [0.5, "1"]}', "beats is '1', which is no number"),
        ('{"file": "a.wav", "bpm": 0}', "bpm is 0, and has to be above 0"),
        ('{"file": "a.wav", "bpm": NaN}', "bpm is nan, and has to be above 0"),
        ('{"file": "nan.wav"}', "holds values that are no numbers"),
        ('{"file": "a.wav", "chords": [{"start": 0, "end": 1, "root": "C"}]}', "want objects with start, end, root"),
        ('{"file": "a.wav", "chords": [{"start": 0, "end": 1, "root": 3, "quality": "maj"}]}', "root is 3"),
        ('{"pitch": 60}', 'want an object with a "file"'),
        ("[1]", 'want an object with a "file"'),
        ("{", "this is not JSON"),
        ('{"file": "b.wav"}', "cannot read"),
        ('{"file": "text.wav"}', "cannot read"),
        ('{"file": "short.wav"}', "shorter than a tenth of a second"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path, line, said):
    (tmp_path / "a.jsonl").write_text(line)
    (tmp_path / "text.wav").write_text("no audio")
    soundfile.write(tmp_path / "short.wav", np.zeros(100), RATE)
    soundfile.write(tmp_path / "nan.wav", np.full(RATE, np.nan), RATE, subtype="FLOAT")
    with pytest.raises(UserError) as error:
        list(read_folder(tmp_path, RATE, 8.0))
    assert said in str(error.value) and "a.jsonl, line 1" in str(error.value)


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
