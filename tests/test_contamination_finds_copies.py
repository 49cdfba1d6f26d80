"""Which evaluation recordings hold audio of the pretraining collection: crops and codecs are seen through, and pieces
that only sound alike are told apart."""

import numpy as np
import pytest
from audio_fixtures import write_audio
from contamination_fixtures import CODECS, RATE, build_music, kbit_per_second, musicbox, sequenced, write_copy
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.musicbox.instruments import MAKERS, Timbre
from musicssl_jax.mir.contamination.check import find_matches
from musicssl_jax.mir.contamination.index import ensure_index
from musicssl_jax.mir.contamination.matching import Match, Undecided, find_match
from musicssl_jax.mir.tasks.task import Recording

TRACKS = musicbox(range(4), 40.0)
FRAME = 0.032


def pcm16(waveform):
    return np.round(np.clip(waveform, -1, 1) * 32767).astype(np.int16)


def crop(name, start, seconds):
    return TRACKS[name][round(start * RATE) : round((start + seconds) * RATE)]


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    return ensure_index(build_music(tmp_path_factory.mktemp("music"), TRACKS), workers=1, progress=False)


def find(index, *paths):
    recordings = [Recording(path.name, str(path)) for path in paths]
    found = find_matches([index], recordings, workers=1, progress=False)
    return [found[path.name] for path in paths]


def assert_is(match, track, offset, tolerance=2 * FRAME):
    assert isinstance(match, Match)
    assert match.track == f"{track}.wav"
    assert match.offset == pytest.approx(offset, abs=tolerance)


@pytest.mark.parametrize("codec", CODECS)
def test_a_lossy_excerpt_is_found_where_it_was_cut(index, tmp_path, codec):
    cuts = [("additive-0", 7.321), ("plucked-1", 0.0), ("additive-2", 29.87), ("plucked-3", 13.337)]
    files = [write_copy(tmp_path / f"{n}", crop(*cut, 10.0), codec) for n, cut in enumerate(cuts)]
    assert kbit_per_second(files[0]) < (150 if "128" in codec else 75)
    for match, cut in zip(find(index, *files), cuts, strict=True):
        assert_is(match, *cut)
        assert match.share > 0.9


@pytest.mark.parametrize("seconds", [5.0, 10.0, 30.0])
def test_short_and_long_excerpts_are_found(index, seconds):
    for track, start in (("additive-1", 3.21), ("plucked-2", 8.765)):
        match = find_match([index], pcm16(crop(track, start, seconds)), RATE)
        assert_is(match, track, start, 0.001)
        assert match.share == 1.0


@settings(max_examples=15, deadline=None)
@given(
    track=st.sampled_from(sorted(TRACKS)),
    start=st.integers(0, 30 * RATE),
    seconds=st.floats(8.0, 10.0),
    decibels=st.floats(-40.0, 0.0),
)
def test_any_excerpt_at_any_level_is_found(index, track, start, seconds, decibels):
    excerpt = 10 ** (decibels / 20) * TRACKS[track][start : start + round(seconds * RATE)]
    assert_is(find_match([index], pcm16(excerpt), RATE), track, start / RATE, 0.001)


def test_level_and_sample_rate_do_not_matter(index, tmp_path):
    quiet = write_audio(tmp_path / "quiet.wav", 0.01 * crop("additive-3", 4.0, 10.0)[:, None], RATE)
    slow = write_copy(tmp_path / "mp3", crop("additive-3", 4.0, 10.0), "mp3 at 128 kbit/s", level=0.05)
    for match in find(index, quiet, slow):
        assert_is(match, "additive-3", 4.0)


def test_an_excerpt_may_be_in_the_collection_and_the_track_in_the_evaluation(tmp_path):
    index = ensure_index(build_music(tmp_path, {"excerpt": crop("plucked-0", 20.0, 6.0)}), workers=1, progress=False)
    match = find_match([index], pcm16(TRACKS["plucked-0"]), RATE)
    assert_is(match, "excerpt", -20.0)
    assert match.share == pytest.approx(6 / 40, abs=0.03)


def test_a_part_of_a_mix_is_found_with_its_share(index):
    other = musicbox([77], 20.0)["additive-77"]
    match = find_match([index], pcm16(np.concatenate([other, crop("additive-2", 10.0, 10.0)])), RATE)
    assert_is(match, "additive-2", 10.0 - 20.0)
    assert match.share == pytest.approx(1 / 3, abs=0.05)


def test_of_two_collections_that_is_named_which_has_more(index, tmp_path):
    other = ensure_index(build_music(tmp_path, {"part": crop("additive-1", 5.0, 4.0)}), workers=1, progress=False)
    match = find_match([other, index], pcm16(crop("additive-1", 2.0, 10.0)), RATE)
    assert_is(match, "additive-1", 2.0)
    assert match.collection == index.collection.folder.name
    assert_is(find_match([other], pcm16(crop("additive-1", 2.0, 10.0)), RATE), "part", -3.0)


def test_other_music_of_the_same_instruments_is_not_found(index):
    assert [find_match([index], pcm16(w), RATE) for w in musicbox(range(100, 110), 15.0).values()] == [None] * 20


def test_pieces_of_one_sequencer_in_one_key_and_tempo_are_told_apart(tmp_path):
    pieces = {f"{family}-{n}": sequenced(n, family, 16.0) for family in ("additive", "plucked") for n in range(4)}
    index = ensure_index(build_music(tmp_path, pieces), workers=1, progress=False)
    others = [sequenced(1000 + n, family, 16.0) for family in ("additive", "plucked") for n in range(4)]
    assert [find_match([index], pcm16(other), RATE) for other in others] == [None] * 8
    assert_is(find_match([index], pcm16(pieces["plucked-3"][3 * RATE : 9 * RATE]), RATE), "plucked-3", 3.0)


def note(instrument, pitch, family="additive"):
    frequency = 440 * 2 ** ((pitch - 69) / 12)
    wave = np.zeros(4 * RATE, np.float32)
    sound = MAKERS[family][instrument](frequency, 3.0, Timbre(0.5, 0.5, 0.5, 1), RATE)
    wave[: len(sound)] = 0.3 * sound / np.abs(sound).max()
    return wave


def test_single_notes_are_never_taken_for_each_other(tmp_path):
    notes = {f"{i}-{p}": note(i, p) for i in ("organ", "bowed", "flute", "bell") for p in (48, 60, 72)}
    index = ensure_index(build_music(tmp_path, notes), workers=1, progress=False)
    others = [note(i, p, "plucked") for i in ("organ", "bowed", "flute", "bell") for p in (48, 60, 72)]
    assert not any(isinstance(find_match([index], pcm16(other), RATE), Match) for other in others)


@pytest.mark.parametrize(
    ("waveform", "reason"),
    [
        (crop("additive-0", 5.0, 2.9), "shorter than 3 s"),
        (np.zeros(0, np.float32), "shorter than 3 s"),
        (np.zeros(10 * RATE, np.float32), "silent"),
        (np.concatenate([np.zeros(9 * RATE), crop("additive-0", 5.0, 1.0)]), "silent"),
        (0.3 * np.sin(2 * np.pi * 440 * np.arange(5 * RATE) / RATE), "too little happens in it"),
    ],
)
def test_what_cannot_be_told_is_said(index, waveform, reason):
    assert find_match([index], pcm16(waveform), RATE) == Undecided(reason)


def test_a_collection_of_silence_is_searched(tmp_path):
    quiet = 1e-3 * np.sign(np.sin(2 * np.pi * 60 * np.arange(5 * RATE) / RATE))
    index = ensure_index(build_music(tmp_path, {"hum": quiet}), workers=1, progress=False)
    assert find_match([index], pcm16(crop("additive-0", 0.0, 10.0)), RATE) is None
