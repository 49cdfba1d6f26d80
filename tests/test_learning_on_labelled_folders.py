"""benchmarks.learning asks about music of your own: folders of audio files with a .jsonl beside them."""

import json

import numpy as np
import pytest
import soundfile

from benchmarks.learning.evaluation import Heard, front_end_frames, linear, pooled
from benchmarks.learning.music import folder_pieces, read_folder
from benchmarks.learning.questions import ask, chance
from musicssl_jax.errors import UserError
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
    pieces = folder_pieces(notes, RATE, 30.0, 0.5)
    assert pieces["training"].shape == (72, round(0.7 * RATE))
    assert pieces["validation"].shape == (8, round(0.7 * RATE))
    assert pieces["training"].dtype == np.int16
    with pytest.raises(UserError, match="at least two files of 2 s or more"):
        folder_pieces(notes, RATE, 30.0, 2.0)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"file": "a.wav", "pitch": "C4"}', "line 1: pitch is 'C4', which is no whole number"),
        ('{"file": "a.wav", "bpm": true}', "bpm is True, which is no number"),
        ('{"file": "a.wav", "beats": 3}', "beats is 3, which is no list"),
        ('{"file": "a.wav", "beats": [0.5, "1"]}', "beats is '1', which is no number"),
        ('{"file": "a.wav", "bpm": 0}', "bpm is 0, and has to be above 0"),
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
    with pytest.raises(UserError) as error:
        list(read_folder(tmp_path, RATE, 8.0))
    assert said in str(error.value) and "a.jsonl, line 1" in str(error.value)


def test_a_folder_without_a_list_is_named(tmp_path):
    with pytest.raises(UserError, match="holds no .jsonl file"):
        list(read_folder(tmp_path, RATE, 8.0))
