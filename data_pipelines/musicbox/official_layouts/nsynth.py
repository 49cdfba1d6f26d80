"""NSynth: `nsynth-{train,valid,test}/examples.json` and `audio/<note_str>.wav` (16 kHz, int16).

Single notes of instruments that train shares with no other part; `synth_lead` occurs in train only. The test set
repeats a waveform under several names, as the official one does for `brass_acoustic_046`.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from data_pipelines.musicbox.official_layouts.layout import Layout, Row, Size, generator
from data_pipelines.musicbox.official_layouts.sounds import Note, Wave, timbre, tone, write_wav

RATE = 16000
FAMILIES = ("bass", "brass", "flute", "guitar", "keyboard", "mallet", "organ", "reed", "string", "synth_lead", "vocal")
SOURCES = ("acoustic", "electronic", "synthetic")
QUALITIES = (
    *("bright", "dark", "distortion", "fast_decay", "long_release"),
    *("multiphonic", "nonlinear_env", "percussive", "reverb", "tempo-synced"),
)
_VOICES = (10, 2, 3, 4, 6, 5, 0, 7, 1, 8, 9)  # the sound of each family
_PITCHES = (36, 45, 52, 57, 64, 71, 76, 84, 40, 48, 60, 67, 74, 79, 88, 93)  # a larger set takes more of them
_FIRST = {"train": 1, "valid": 40, "test": 60}  # numbers of instruments: no part has another's
DUPLICATES = "brass_acoustic_046"


class NSynthNote(NamedTuple):
    part: str
    family: int
    source: int
    instrument: str
    pitch: int
    velocity: int

    @property
    def name(self) -> str:
        return f"{self.instrument}-{self.pitch:03d}-{self.velocity:03d}"


def nsynth_notes(size: Size) -> Iterator[NSynthNote]:
    """All notes, in the order of the parts. Train has twice as many instruments as valid and test."""
    for part, instruments in (("train", 2 * size.clips), ("valid", size.clips), ("test", size.clips)):
        for family, name in enumerate(FAMILIES):
            if name == "synth_lead" and part != "train":
                continue
            source = 2 if name == "synth_lead" else family % 2
            for number in range(_FIRST[part], _FIRST[part] + instruments):
                instrument = f"{name}_{SOURCES[source]}_{number:03d}"
                for pitch in _PITCHES[: 5 + 2 * size.clips]:
                    yield NSynthNote(part, family, source, instrument, pitch, (25, 75, 100)[pitch % 3])
    brass = FAMILIES.index("brass")
    yield from (NSynthNote("test", brass, 0, DUPLICATES, 57, velocity) for velocity in (25, 50, 100))


def note_sound(note: NSynthNote, seed: int, seconds: float) -> Wave:
    """The note at its pitch in its family's voice; the same instrument has the same timbre at every pitch."""
    level = 0.2 if note.instrument == DUPLICATES else 0.05 + 0.0015 * note.velocity
    played = Note(0.0, 0.75 * seconds, note.pitch, _VOICES[note.family], level)
    wave = tone(played, timbre(generator(seed, note.instrument)), RATE)
    noise = generator(seed, "" if note.instrument == DUPLICATES else note.name).standard_normal(round(seconds * RATE))
    noise *= 0.0005
    noise[: len(wave)] += wave[: len(noise)]
    return noise.astype("float32").clip(-0.99, 0.99)


def note_seconds(size: Size) -> float:
    """4 s in the official set; in proportion here."""
    return size.seconds / 9


def write_nsynth(folder: Path, seed: int, size: Size) -> Layout:
    """Writes the three parts into `folder`; tasks nsynth_pitch and nsynth_instrument."""
    layout = Layout(folder)
    examples: dict[str, dict[str, Any]] = {"train": {}, "valid": {}, "test": {}}
    for number, note in enumerate(nsynth_notes(size)):
        file = f"nsynth-{note.part}/audio/{note.name}.wav"
        write_wav(folder / file, note_sound(note, seed, note_seconds(size)), RATE)
        examples[note.part][note.name] = _metadata(number, note)
        layout.rows.append(Row("nsynth_pitch", note.part, file, note.pitch, note.instrument))
        layout.rows.append(Row("nsynth_instrument", note.part, file, FAMILIES[note.family], note.instrument))
        if note.instrument == DUPLICATES:
            layout.defects[file] = "the same waveform under several names"
    for part, content in examples.items():
        (folder / f"nsynth-{part}/examples.json").write_text(json.dumps(content, indent=4))
    return layout


def _metadata(number: int, note: NSynthNote) -> dict[str, Any]:
    bright = int(note.pitch > 60)
    qualities = [int(name == ("bright" if bright else "dark")) for name in QUALITIES]
    return {
        "note_str": note.name,
        "sample_rate": RATE,
        "qualities_str": ["bright" if bright else "dark"],
        "instrument_source": note.source,
        "instrument_family_str": FAMILIES[note.family],
        "instrument_family": note.family,
        "note": number,
        "instrument_source_str": SOURCES[note.source],
        "qualities": qualities,
        "pitch": note.pitch,
        "instrument_str": note.instrument,
        "instrument": int(note.instrument[-3:]) + 80 * note.family,
        "velocity": note.velocity,
    }
