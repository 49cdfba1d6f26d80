"""What the musicbox writes down is what can be heard, by estimators that know nothing of it."""

import json
import time

import librosa
import numpy as np
import pytest
import soundfile

from data_pipelines.musicbox import FAMILIES, ensure_musicbox, render_track, write_musicbox
from data_pipelines.musicbox.instruments import CLASSES, MAKERS, Timbre

RATE = 16000
PITCH_NAMES = ["C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B"]
TRIADS = {"maj": (0, 4, 7), "min": (0, 3, 7), "dim": (0, 3, 6)}
# Krumhansl and Kessler (1982): how well each pitch class fits a key.
PROFILES = {
    "major": [6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88],
    "minor": [6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17],
}


@pytest.fixture(scope="module", params=FAMILIES)
def tracks(request):
    return [render_track([11, n], request.param, sample_rate=RATE) for n in range(6)]


def part(waveform, start, end):
    return waveform[round(start * RATE) : round(end * RATE)]


def chroma(waveform, truth):
    return librosa.feature.chroma_cqt(
        y=waveform, sr=RATE, tuning=truth["tuning_cents"] / 100, fmin=librosa.midi_to_hz(36), n_octaves=5
    )


def test_solo_notes_have_the_written_pitch_with_the_tuning(tracks):
    """By YIN, which finds the period of whatever is periodic; bells are not."""
    errors = []
    for waveform, truth in tracks:
        for note in truth["notes"]:
            if note["role"] != "solo" or note["instrument"] == "bell":
                continue
            begin = note["onset"] + 0.1
            middle = part(waveform, begin, begin + max(0.15, note["duration"] - 0.2))
            found = np.median(librosa.yin(middle, fmin=150, fmax=1500, sr=RATE, frame_length=1024))
            errors.append(100 * (librosa.hz_to_midi(found) - note["pitch"]) - truth["tuning_cents"])
    errors = np.abs(errors)
    assert len(errors) > 80
    assert np.median(errors) < 8
    assert np.mean(errors < 30) > 0.9


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", CLASSES)
def test_every_instrument_plays_in_tune(family, name):
    for pitch in (36, 55, 69, 84):
        frequency = 440 * 2 ** ((pitch - 69) / 12)
        wave = MAKERS[family][name](frequency, 1.0, Timbre(0.5, 0.5, 0.5, seed=1), RATE)
        spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave)), 8 * RATE))
        near = np.arange(round(frequency * 0.94 * 8), round(frequency * 1.06 * 8))
        peak = near[spectrum[near].argmax()] / 8
        assert abs(1200 * np.log2(peak / frequency)) < 12
        assert spectrum[near].max() > 0.2 * spectrum.max()


def test_the_tuning_is_heard(tracks):
    for waveform, truth in tracks:
        heard = 100 * librosa.estimate_tuning(y=waveform, sr=RATE, n_fft=8192)
        difference = (heard - truth["tuning_cents"] + 50) % 100 - 50  # a quarter tone up is one down
        assert abs(difference) < 6


def test_the_chords_are_heard(tracks):
    right = total = 0
    for waveform, truth in tracks:
        frames = chroma(waveform, truth)
        solos = {solo["start"] for solo in truth["solos"]}
        for chord in truth["chords"]:
            if chord["start"] in solos:
                continue
            begin, end = librosa.time_to_frames([chord["start"] + 0.1, chord["end"] - 0.1], sr=RATE)
            energy = frames[:, begin:end].mean(1)
            scores = {
                (root, quality): energy[[(root + step) % 12 for step in steps]].sum()
                for root in range(12)
                for quality, steps in TRIADS.items()
            }
            right += max(scores, key=scores.get) == (PITCH_NAMES.index(chord["root"]), chord["quality"])
            total += 1
    assert right / total > 0.8


def test_the_key_is_heard(tracks):
    """The written key fits better than most; its relatives (fifth, parallel, relative) share most of its notes."""
    ranks = []
    for waveform, truth in tracks:
        heard = chroma(waveform, truth).mean(1)
        fits = {
            (PITCH_NAMES[tonic], mode): np.corrcoef(heard, np.roll(profile, tonic))[0, 1]
            for tonic in range(12)
            for mode, profile in PROFILES.items()
        }
        ranks.append(sorted(fits, key=fits.get, reverse=True).index((truth["key"], truth["mode"])))
    assert np.median(ranks) <= 1
    assert max(ranks) <= 5


def test_notes_and_drums_begin_on_the_written_beats(tracks):
    for waveform, truth in tracks:
        strength = librosa.onset.onset_strength(y=waveform, sr=RATE, hop_length=160)
        beat = 60 / truth["bpm"]
        np.testing.assert_allclose(np.diff(truth["beats"]), beat, rtol=1e-6)
        assert truth["downbeats"] == truth["beats"][::4]

        def strength_at(times, strength=strength):
            frames = np.round(np.asarray(times) * 100).astype(int)[:, None] + np.arange(-3, 6)
            return strength[frames.clip(0, len(strength) - 1)].max(1).mean()

        beats = np.array(truth["beats"][:-1])
        assert strength_at(beats) > 3 * strength_at(beats + beat / 4)
        assert strength_at(truth["downbeats"]) > 1.5 * strength_at(np.add(truth["downbeats"], beat / 3))


def test_solos_are_alone_and_cover_every_class(tracks):
    for _, truth in tracks:
        assert sorted(solo["instrument"] for solo in truth["solos"]) == sorted(CLASSES)
        for solo in truth["solos"]:
            inside = [
                note
                for note in truth["notes"]
                if note["onset"] + note["duration"] > solo["start"] + 1e-6 and note["onset"] < solo["end"] - 1e-6
            ]
            assert {(note["role"], note["instrument"]) for note in inside} == {("solo", solo["instrument"])}
            ends = [note["onset"] + note["duration"] for note in inside]
            assert all(note["onset"] >= end for note, end in zip(inside[1:], ends, strict=False))


def test_a_track_follows_from_its_seed(tracks):
    waveform, truth = tracks[0]
    again, truth_again = render_track([11, 0], truth["family"], sample_rate=RATE)
    np.testing.assert_array_equal(waveform, again)
    assert truth == truth_again
    other, other_truth = render_track([12, 0], truth["family"], sample_rate=RATE)
    assert (truth["key"], truth["bpm"]) != (other_truth["key"], other_truth["bpm"])
    assert np.abs(np.corrcoef(waveform, other)[0, 1]) < 0.5
    assert np.isfinite(waveform).all()
    assert 0.2 < np.abs(waveform).max() < 1


def test_the_families_play_the_same_score_with_other_sounds():
    (one, truth), (two, other) = (render_track(3, family, seconds=20.0) for family in FAMILIES)
    assert {**truth, "family": ""} == {**other, "family": ""}
    assert np.abs(np.corrcoef(one, two)[0, 1]) < 0.7


def test_files_and_their_truth(tmp_path):
    write_musicbox(tmp_path, seed=4, tracks=3, family="plucked", seconds=10.0, sample_rate=22_050)
    lines = [json.loads(line) for line in (tmp_path / "musicbox.jsonl").read_text().splitlines()]
    assert sorted(line["file"] for line in lines) == sorted(path.name for path in tmp_path.glob("*.wav"))
    for number, line in enumerate(lines):
        pcm, rate = soundfile.read(tmp_path / line["file"])
        waveform, truth = render_track([4, number], "plucked", seconds=10.0, sample_rate=22_050)
        assert (rate, len(pcm)) == (22_050, 220_500)
        np.testing.assert_allclose(pcm, waveform, atol=1 / 32000)
        assert {key: line[key] for key in truth} == truth


def test_the_embedded_set_is_written_once(tmp_path):
    began = time.process_time()
    folder = ensure_musicbox(tmp_path, RATE)
    assert time.process_time() - began < 25
    files = sorted(folder.iterdir())
    assert len(files) == 33
    times = [path.stat().st_mtime_ns for path in files]
    assert ensure_musicbox(tmp_path, RATE) == folder
    assert [path.stat().st_mtime_ns for path in files] == times
    assert list(tmp_path.iterdir()) == [folder]


def test_a_piece_may_be_shorter_than_a_bar():
    """Then notes begin behind its end."""
    for number in range(8):
        waveform, truth = render_track([3, number], "additive", seconds=1.0, sample_rate=16_000)
        assert waveform.shape == (16_000,) and np.isfinite(waveform).all() and truth["seconds"] == 1.0
