"""What folders of one's own say of their music is read as it is meant, or refused: no class has two names."""

import pytest

from benchmarks.learning.labels import OF_PROBING, read_labels


def labels_of(**row):
    labels, faults = read_labels(row, OF_PROBING)
    assert not faults
    return labels


def faults_of(**row):
    _, faults = read_labels(row, OF_PROBING)
    return "; ".join(faults)


@pytest.mark.parametrize(
    ("tonic", "spellings"),
    [
        ("C", ["C", "c", " C ", "B#", "b♯", "Dbb", 0, 0.0]),
        ("C#", ["C#", "c#", "C♯", "Db", "DB".replace("B", "b"), "d♭", 1]),
        ("D#", ["D#", "Eb", "e♭", 3]),
        ("E", ["E", "Fb", 4]),
        ("F", ["F", "E#"]),
        ("F#", ["F#", "Gb", "f♯"]),
        ("G#", ["Ab", "ab", "A♭"]),
        ("A#", ["Bb", "bb", "B♭", 10]),
        ("B", ["B", "b", "Cb", 11, 11.0]),
    ],
)
def test_a_tonic_has_one_name(tonic, spellings):
    assert [labels_of(key=spelling) for spelling in spellings] == [{"key": tonic}] * len(spellings)


@pytest.mark.parametrize(
    ("key", "tonic", "mode"),
    [
        ("C major", "C", "major"),
        ("Am", "A", "minor"),
        ("A♭m", "G#", "minor"),
        ("C:min", "C", "minor"),
        ("F# Minor", "F#", "minor"),
        ("Bbmaj", "A#", "major"),
        ("bm", "B", "minor"),
        ("EM", "E", "major"),
        ("D_MAJOR", "D", "major"),
    ],
)
def test_a_key_may_name_its_mode(key, tonic, mode):
    assert labels_of(key=key) == labels_of(key=key, mode=mode) == {"key": tonic, "mode": mode}
    other = {"major": "minor", "minor": "major"}[mode]
    assert f"key is {key!r}, and mode {other!r}" in faults_of(key=key, mode=other)


def test_a_mode_has_one_name():
    for name in ("major", "Major", "MAJOR", "maj", "M", " major "):
        assert labels_of(mode=name) == {"mode": "major"}
    for name in ("minor", "Minor", "min", "m"):
        assert labels_of(mode=name) == {"mode": "minor"}


def test_null_is_as_no_field():
    assert labels_of(**dict.fromkeys(OF_PROBING)) == {}


def test_whole_numbers_may_be_written_with_a_point():
    assert labels_of(pitch=60.0, bpm=120, group=3) == {"pitch": 60, "bpm": 120.0, "group": "3"}


def test_chords_are_read_in_any_spelling():
    times = {"start": 0, "end": 1.5}
    spellings = [("C", "major"), ("Db", "min"), ("d♭", "m"), (0, "Maj"), ("B", "dim"), ("N", "N"), (None, None)]
    chords = [times | {"root": root, "quality": quality} for root, quality in spellings]
    read = labels_of(chords=chords)["chords"]
    assert [(chord["root"], chord["quality"]) for chord in read] == [
        ("C", "maj"),
        ("C#", "min"),
        ("C#", "min"),
        ("C", "maj"),
        ("B", "dim"),
    ]


CHORD = {"start": 0, "end": 1, "root": "C", "quality": "maj"}
NOTE = {"onset": 0, "duration": 1, "pitch": 60, "instrument": "bell", "role": "solo"}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        *(
            ({"key": key}, f"key is {key!r}: want C, C# or Db")
            for key in ("H", "", "C dorian", "8A", 12, -1, 0.5, True)
        ),
        *(({"mode": mode}, f"mode is {mode!r}: want major or minor") for mode in ("dorian", "", 1)),
        *(({"bpm": bpm}, "want beats a minute, a number above 0") for bpm in (0, -1, True, "120", float("nan"))),
        ({"bpm": float("inf")}, "bpm is inf"),
        ({"bpm": 10**400}, "bpm is 1000000"),
        *(({"pitch": pitch}, f"pitch is {pitch!r}: want a MIDI") for pitch in ("C4", 60.5, 128, -1, True)),
        ({"family": ""}, "family is '': want a name"),
        ({"family": 3}, "family is 3: want a name"),
        ({"group": 1.5}, "group is 1.5: want a name"),
        ({"beats": 3}, "beats is 3: want a list of seconds"),
        ({"beats": [0.5, "1"]}, "beats holds '1'"),
        ({"beats": [0.5, float("nan")]}, "beats holds nan"),
        ({"beats": [-0.5, 1]}, "beats holds -0.5"),
        ({"beats": [1, 0.5]}, "beats holds 0.5 behind 1"),
        ({"beats": [1, 1]}, "beats holds 1 behind 1"),
        ({"chords": [{"start": 0}]}, "chords holds {'start': 0}: want a list of objects with start, end, root"),
        ({"chords": [CHORD | {"root": "C:min"}]}, "chords holds the root 'C:min'"),
        ({"chords": [CHORD | {"quality": 3}]}, "chords holds the quality 3"),
        ({"chords": [CHORD | {"end": 0}]}, "an end behind the start"),
        ({"notes": [NOTE | {"pitch": "C4"}]}, "want seconds, a MIDI number, an instrument and a role"),
    ],
)
def test_what_cannot_be_understood_is_refused(row, said):
    assert said in faults_of(**row)


def test_all_that_is_wrong_with_a_line_is_said():
    assert faults_of(key="H", bpm=0, beats=[2, 1]).count("want") == 3
