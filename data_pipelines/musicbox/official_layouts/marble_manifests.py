"""The same audio as MARBLE v2 has it: `data/<SET>/<TASK>.<train, val or test>.jsonl`, a JSON object a line.

Paths in it are relative to the folder above `data`. MARBLE v2 has no NSynth and no VocalSet; EmoMusic and GiantSteps
are WAV files, those of GiantSteps clips of songs that `ori_uid` names. Other audio is linked, not copied.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from data_pipelines.musicbox.official_layouts.layout import Layout, Row
from data_pipelines.musicbox.official_layouts.sounds import write_wav

# task -> folder and name of its manifests
MANIFESTS = {
    "magnatagatune": ("MTT", "MTT"),
    "gtzan_genre": ("GTZAN", "GTZANGenre"),
    "gtzan_beats": ("GTZAN", "GTZANBeatTracking"),
    "giantsteps_key": ("GS", "GS"),
    "emomusic": ("EMO", "EMO"),
    "mtg_top50": ("MTG", "MTGTop50"),
    "mtg_genre": ("MTG", "MTGGenre"),
    "mtg_instrument": ("MTG", "MTGInstrument"),
    "mtg_moodtheme": ("MTG", "MTGMood"),
}
PARTS = {"train": "train", "valid": "val", "test": "test"}


def write_marble_manifests(folder: Path, layouts: Mapping[str, Layout]) -> dict[str, int]:
    """Writes `folder/data/...`; the number of lines of every manifest."""
    counts: dict[str, int] = {}
    for layout in layouts.values():
        for task in {row.task for row in layout.rows} & set(MANIFESTS):
            rows = [row for row in layout.rows if row.task == task]
            for part, name in PARTS.items():
                counts |= _write_manifest(folder, layout, rows, task, part, name)
    return counts


def _write_manifest(folder: Path, layout: Layout, rows: list[Row], task: str, part: str, name: str) -> dict[str, int]:
    place, title = MANIFESTS[task]
    labels = _labels(task, rows)
    lines = []
    for row in (row for row in rows if row.part == part):
        song = {"ori_uid": row.group.zfill(7)} if task == "giantsteps_key" else {}
        for file in _AUDIO.get(task, _linked)(folder / "data" / place, layout.folder / row.file, row):
            path = f"data/{place}/{file}"
            entry = {"audio_path": path, "label": labels[row.file]} | _properties(folder / path) | song
            lines.append(json.dumps(entry) + "\n")
    file = f"data/{place}/{title}.{name}.jsonl"
    (folder / file).write_text("".join(lines))
    return {file: len(lines)}


def _linked(folder: Path, audio: Path, row: Row) -> list[str]:
    link = folder / row.file
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.exists():
        os.link(audio, link)
    return [row.file]


def _mono_wav(folder: Path, audio: Path, row: Row) -> list[str]:
    """EmoMusic, `emomusic/wav/0005.wav`."""
    file = f"emomusic/wav/{row.group.zfill(4)}.wav"
    wave, rate = soundfile.read(audio, always_2d=True)
    write_wav(folder / file, wave.mean(1), rate)
    return [file]


def _clips(folder: Path, audio: Path, row: Row) -> list[str]:
    """GiantSteps, `giantsteps_clips/wav/0005061-0.wav` and on: two quarters of the song, which is four clips long."""
    wave, rate = soundfile.read(audio)
    quarter = len(wave) // 4
    files = [f"giantsteps_clips/wav/{row.group.zfill(7)}-{number}.wav" for number in range(2)]
    for number, file in enumerate(files):
        write_wav(folder / file, wave[number * quarter : (number + 1) * quarter], rate)
    return files


_AUDIO = {"emomusic": _mono_wav, "giantsteps_key": _clips}


def _labels(task: str, rows: list[Row]) -> dict[str, Any]:
    """Of every file; EmoMusic's standardised by the songs outside of test, as MARBLE's preparation does."""
    if task != "emomusic":
        return {row.file: row.label for row in rows}
    known = np.array([row.label for row in rows if row.part != "test"])
    return {row.file: ((np.array(row.label) - known.mean(0)) / known.std(0)).tolist() for row in rows}


def _properties(path: Path) -> dict[str, Any]:
    info = soundfile.info(path)
    depth = 16 if info.subtype == "PCM_16" else None
    return {
        "duration": info.duration,
        "sample_rate": info.samplerate,
        "num_samples": info.frames,
        "bit_depth": depth,
        "channels": info.channels,
    }
