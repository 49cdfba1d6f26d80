"""Data sets of a few lines, written as their publishers lay them out."""

import json
from pathlib import Path

import numpy as np
import soundfile

from musicssl_jax.mir.tasks.catalogue import TASKS
from musicssl_jax.mir.tasks.task import TaskData


def put(folder: Path, files: dict[str, str]) -> None:
    """Text files by path; "" stands for audio that nobody decodes."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="")


def put_wav(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(160, np.float32), 16000)


def read(task: str, data_dir: Path, protocol="ours") -> TaskData:
    return TASKS[task].read(data_dir, protocol)


def parts_and_labels(data: TaskData) -> dict:
    return {example.recording: (example.part, example.label) for example in data.examples}


def magnatagatune(header=None, rows=None) -> str:
    """annotations_final.csv: quoted cells, tabs between."""
    from musicssl_jax.mir.tasks.magnatagatune import TAGS

    columns = header or ["clip_id", *reversed(TAGS), "zither", "mp3_path"]
    lines = [columns]
    for clip, tags, path in rows or [("2", ("classical", "zither"), "f/bach-01-aria-30-59.mp3")]:
        lines.append([clip, *("1" if tag in tags else "0" for tag in columns[1:-1]), path])
    return "\n".join("\t".join(f'"{cell}"' for cell in line) for line in lines) + "\n"


SONGS_INFO = (
    "song_id,file_name,Artist,Song title,start of the segment (min.sec),end of the segment (min.sec),Genre,"
    "Mediaeval 2013 set\r\n"
    "2,\t2.mp3,\tThe New Mystikal Troubadours,\tTonight  A Lonely Century,0.48,1.33,Blues\t,\tdevelopment\r\n"
    '3,3.mp3,Kevin MacLeod,"DD Groove, live",0.36,1.21,Blues,evaluation \r\n'
    "5,5.mp3,My Bubba & Mi,Nothing Much,0.36,1.21,Blues, development\r\n"
    "189,189.mp3,Sláinte,Wild Rover with Bellevue Chamber Chorus,3.2,4.05,Classical,development\r\n"
)
STATIC_ANNOTATIONS = (
    "song_id,mean_arousal,std_arousal,mean_valence,std_valence\r\n"
    "2, 3.1,.99443, 3,.66667\r\n3,3.5,1.8409,3.3,1.7029\r\n5,4.4,2.1187,5.3,1.9465\r\n189,5,1,6,1\r\n"
)


def emomusic(folder: Path, songs: str = SONGS_INFO, ratings: str = STATIC_ANNOTATIONS) -> None:
    put(folder, {"songs_info.csv": songs, "static_annotations.csv": ratings})
    put(folder, {f"clips_45seconds/{song}.mp3": "" for song in (2, 3, 5, 189)})


ANNOTATIONS = (
    "ID\tMANUAL KEY\tC\n5061\tD# minor\t2\n5881\tA major \t2\n10981\t-\t0\n16484\tA minor\t1\n33846\tF# minor\t2\n"
    "61578\tC minor / F# minor\t2\n"
)
METADATA = (
    "ID\tARTIST\tSONG TITLE\tMIX\tLABEL\tBP GENRE\tBP BPM\tBP KEY\n"
    "5061\tPhilippe Van Mullem\tCanopy\tProgress Mix\tBonzai Classics\tTrance\t132\tD# major\n"
    '5881\tBrainbashers, Lance Madden\t12" Realness\tBrain Bashers Mix\tShock Records\tHard Dance\t149\tA major\n'
    "10981\tA\tT\tM\tL\tG\t1\tC major\n16484\tA\tT\tM\tL\tG\t1\tC major\n61578\tA\tT\tM\tL\tG\t1\tC major\n"
    "33846\tPole Folder\tLondon\tOriginal Mix\tBedrock Records\tProgressive House\t128\tC major\n"
)


def giantsteps(folder: Path, *, annotations: str = ANNOTATIONS, metadata: str = METADATA, key: str = "D major") -> None:
    train, test = folder / "giantsteps-mtg-key-dataset-fd7b8c5", folder / "giantsteps-key-dataset"
    put(train, {"annotations/annotations.txt": annotations, "annotations/beatport_metadata.txt": metadata})
    put(train, {f"audio/{song}.LOFI.mp3": "" for song in (5061, 5881, 33846)})
    put(test, {"annotations/key/10089.LOFI.key": key, "annotations/giantsteps/10089.LOFI.key": "#@format: key"})
    put(test, {"audio/10089.LOFI.mp3": ""})


JAMENDO = {
    "train": [("track_0000241", "41/241.mp3", "genre---rock"), ("track_0000946", "46/946.mp3", "genre---pop")],
    "validation": [("track_0000947", "47/947.mp3", "genre---ambient\tgenre---80s")],
    "test": [("track_0000214", "14/214.mp3", "genre---punkrock")],
}


def jamendo_table(rows) -> str:
    lines = ["TRACK_ID\tARTIST_ID\tALBUM_ID\tPATH\tDURATION\tTAGS"]
    lines += [f"{track}\tartist_000005\talbum_000033\t{path}\t340.1\t{tags}" for track, path, tags in rows]
    return "\r\n".join(lines) + "\r\n"


def jamendo(folder: Path, tables=JAMENDO) -> None:
    splits = folder / "mtg-jamendo-dataset" / "data" / "splits"
    for part, rows in tables.items():
        put(splits, {f"split-0/autotagging_genre-{part}.tsv": jamendo_table(rows)})
        put(splits, {f"split-1/autotagging_genre-{part}.tsv": "of another split"})
    put(folder, {"mtg-jamendo-dataset/data/autotagging.tsv": "raw_30s_cleantags_50artists.tsv"})
    put(folder, {f"audio-low/{path}.low.mp3": "" for path in ("41/241", "46/946", "47/947", "14/214")})


def note(instrument: str, pitch: int, velocity: int = 50) -> tuple[str, dict]:
    family = instrument.rsplit("_", 2)[0]
    entry = {"pitch": pitch, "velocity": velocity, "instrument_str": instrument, "instrument_family_str": family}
    return f"{instrument}-{pitch:03}-{velocity:03}", {**entry, "qualities": [0] * 10}


NOTES = {
    "train": [note("synth_lead_synthetic_003", 9), note("guitar_acoustic_021", 63)],
    "valid": [note("bass_electronic_018", 22)],
    "test": [note("vocal_acoustic_000", 120)],
}


def nsynth(folder: Path, notes=NOTES) -> None:
    for part, entries in notes.items():
        put(folder, {f"nsynth-{part}/examples.json": json.dumps(dict(entries))})
        put(folder, {f"nsynth-{part}/audio/{name}.wav": "" for name, _ in entries})
