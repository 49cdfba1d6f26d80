"""VocalSet 1.1: `FULL/<female1 or male1>/<context>/<technique>/<f1 or m1>_....wav` (44.1 kHz) and two lists of singers.

The official archive has misnamed and doubled files, which are written here under the names that they have there
(from the corrections of MARBLE v1 and of other users of the set). Some recordings are shorter than 3 s.
"""

import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_pipelines.musicbox.official_layouts.layout import Layout, Row, Size, generator, write_text
from data_pipelines.musicbox.official_layouts.sounds import Wave, write_wav
from musicssl_jax.shapes import Float

RATE = 44100
SINGERS = tuple([f"f{n}" for n in range(1, 10)] + [f"m{n}" for n in range(1, 12)])
TEST_SINGERS = ("f2", "f8", "m3", "m5", "m10")
TECHNIQUES = (
    *("belt", "breathy", "inhaled", "lip_trill", "spoken"),
    *("straight", "trill", "trillo", "vibrato", "vocal_fry"),
)
OTHERS = ("fast_forte", "fast_piano", "forte", "messa", "pp", "slow_forte", "slow_piano")
_CONTEXTS = ("scales", "arpeggios", "long_tones", "excerpts")
_SHORT = 0.7  # seconds
_FORMANTS = ((300, 850), (950, 2000), (2200, 4000))  # Hz, lowest and highest
_SONGS = ("caro", "dona", "row")

_NO_SINGER, _DELETED = "name lacks the singer", "name lacks the singer; MARBLE v1 deletes it"
# File -> (singer, technique, what is wrong). Written besides the regular ones.
MISNAMED = {
    "female2/arpeggios/lip_trill/lip_trill_arps.wav": ("f2", "lip_trill", _NO_SINGER),
    "female2/arpeggios/vibrado/f2_arpeggios_vibrato_a.wav": ("f2", "vibrato", "folder misspelt"),
    "female2/arpeggios/vibrado/slow_vibrato_arps.wav": ("f2", "vibrato", f"folder misspelt; {_DELETED}"),
    "female4/arpeggios/straight/arpeggios_straight_a.wav": ("f4", "straight", _NO_SINGER),
    "female4/scales/straight/scales_straight_e.wav": ("f4", "straight", _NO_SINGER),
    "female9/arpeggios/fast_forte/arps_fast_piano_c.wav": ("f9", "fast_forte", f"{_NO_SINGER}, says fast_piano"),
    "male1/scales/straight/m1_straight_tone_scales_u.wav": ("m1", "straight", "name has another order of words"),
    "male3/scales/lip_trill/scales_lip_trill.wav": ("m3", "lip_trill", _NO_SINGER),
    "male8/excerpts/straight/row_straight.wav": ("m8", "straight", _NO_SINGER),
    "male8/excerpts/vibrato/m9_caro_vibrato.wav": ("m8", "vibrato", "name says m9, folder male8"),
    "male10/excerpts/vibrato/caro_vibrato.wav": ("m10", "vibrato", _DELETED),
    "male10/excerpts/vibrato/dona_vibrato.wav": ("m10", "vibrato", _DELETED),
    "male10/excerpts/vibrato/row_vibrato.wav": ("m10", "vibrato", _DELETED),
    "male10/scales/fast_piano/scales_c_fast_piano_a.wav": ("m10", "fast_piano", _NO_SINGER),
}
ORIGINAL, COPY = (f"female2/scales/vibrato/f2_scales_vibrato_a{mark}.wav" for mark in ("", "(1)"))


class Voice(NamedTuple):
    """Of a singer: a comfortable pitch and the peaks of the spectrum, in Hz; fall of the spectrum as a power."""

    pitch: float
    formants: tuple[float, float, float]
    fall: float


def folder_of(singer: str) -> str:
    """f1 -> female1."""
    return f"{'female' if singer[0] == 'f' else 'male'}{singer[1:]}"


def write_vocalset(folder: Path, seed: int, size: Size) -> Layout:
    """Tasks vocalset_technique and vocalset_singer. Only the technique's test part is given by the data set: other
    recordings are of part "train+valid", and of the singers' task "any". Misnamed files are among the defects alone.
    """
    layout = Layout(folder)
    for singer in SINGERS:
        for file, technique, seconds in _recordings(singer, size):
            _write_recording(layout, seed, file, singer, technique, seconds)
    _write_recording(layout, seed, ORIGINAL, "f2", "vibrato", _SHORT)
    shutil.copyfile(folder / "FULL" / ORIGINAL, folder / "FULL" / COPY)
    layout.defects[f"FULL/{COPY}"] = f"a copy of {ORIGINAL}"
    for file, (singer, technique, what) in MISNAMED.items():
        write_wav(folder / "FULL" / file, sing(singer, technique, _SHORT, seed, file), RATE)
        layout.defects[f"FULL/{file}"] = what
    train = [singer for singer in SINGERS if singer not in TEST_SINGERS]
    for part, singers in (("train", train), ("test", TEST_SINGERS)):
        lines = "".join(f"{folder_of(singer)}\n" for singer in singers)
        write_text(folder, {f"{part}_singers_technique.txt": lines})
    write_text(folder, {"readme-anon.txt": "Synthetic, in the layout of VocalSet.\n", "FULL/.DS_Store": "\0"})
    return layout


def _write_recording(layout: Layout, seed: int, file: str, singer: str, technique: str, seconds: float) -> None:
    name = f"FULL/{file}"
    write_wav(layout.folder / name, sing(singer, technique, seconds, seed, file), RATE)
    part = "test" if singer in TEST_SINGERS else "train+valid"
    if technique in TECHNIQUES:
        layout.rows.append(Row("vocalset_technique", part, name, technique, name))
    layout.rows.append(Row("vocalset_singer", "any", name, singer, name))
    if seconds < 3:
        layout.defects[name] = "shorter than 3 s"


def _recordings(singer: str, size: Size) -> list[tuple[str, str, float]]:
    """(file, technique, seconds) of a singer: two of over 3 s, and six that are too short to cut, two of which are of
    the techniques that are no class."""
    group = [s for s in SINGERS if (s in TEST_SINGERS) == (singer in TEST_SINGERS)]
    place, count = group.index(singer), len(TECHNIQUES)
    files = []
    for n in range(2 * size.clips):
        technique = TECHNIQUES[(2 * place + n) % count]
        files.append((_file(singer, technique, n + place + 1, n // count), technique, 3.05 * size.seconds / 6))
    for n in range(4 * size.clips):
        technique = TECHNIQUES[(2 * place + 2 + n) % count]
        files.append((_file(singer, technique, n + place, 3 + n // count), technique, _SHORT))
    for n in range(2 * size.clips):
        technique = OTHERS[(place + n) % len(OTHERS)]
        files.append((_file(singer, technique, n + 1, 1), technique, _SHORT))
    return files


def _file(singer: str, technique: str, context: int, take: int) -> str:
    place = "excerpts" if technique == "spoken" else _CONTEXTS[context % len(_CONTEXTS)]
    if place == "excerpts":
        name = f"{singer}_{_SONGS[take % 3]}_{technique}{'' if take < 3 else '_2'}"
    else:
        name = f"{singer}_{place.removesuffix('_tones')}_{technique}_{'aeiou'[take]}"
    return f"{folder_of(singer)}/{place}/{technique}/{name}.wav"


def _voice(singer: str, seed: int) -> Voice:
    """All properties are evenly spread over the singers, each in an order of its own."""
    rng = generator(seed, "voices")
    place = SINGERS.index(singer)
    ranks = [rng.permutation(len(SINGERS))[place] / (len(SINGERS) - 1) for _ in range(5)]
    pitches = (105, 160) if singer[0] == "m" else (210, 330)
    ranges = (*_FORMANTS, pitches, (0.4, 1.2))
    first, second, third, pitch, fall = (
        low + rank * (high - low) for rank, (low, high) in zip(ranks, ranges, strict=True)
    )
    return Voice(pitch, (first, second, third), fall)


def sing(singer: str, technique: str, seconds: float, seed: int, name: str) -> Wave:
    """A phrase of three notes; quiet at both ends."""
    rng = generator(seed, name)
    voice = _voice(singer, seed)
    t = np.arange(round(seconds * RATE)) / RATE
    steps = rng.choice((0, 2, 4, 5, 7), 3)
    semitones = steps[np.minimum((3 * t / seconds).astype(int), 2)].astype(float) + rng.normal(0, 0.2)
    pitch, level, breath, bright = _manner(technique, t, semitones, seconds)
    wave = (1 - breath) * _harmonics(voice, pitch, bright) + breath * _whisper(voice, len(t), rng)
    ends = np.clip(np.minimum(t - 0.08, seconds - 0.08 - t) / 0.05, 0, 1)
    out = 0.25 * level * ends * wave + 0.0003 * rng.standard_normal(len(t))
    return (out / max(1.0, np.abs(out).max() / 0.95)).astype(np.float32)


def _manner(technique: str, t: Wave, semitones: Wave, seconds: float) -> tuple[Wave, Wave, float, float]:
    """What a technique does: pitch as a factor, level, share of breath, brightness (1: as the voice is)."""
    flat = np.ones_like(t)

    def factor(extra: Wave | float) -> Wave:
        return 2 ** ((semitones + extra) / 12)

    plain = factor(0.0)
    swing = np.sin(2 * np.pi * 5.5 * t)
    manners = {
        "belt": lambda: (factor(7.0), 2.5 * flat, 0.0, 2.0),
        "breathy": lambda: (plain, 0.6 * flat, 0.7, 0.7),
        "inhaled": lambda: (plain, 0.2 + 0.8 * (t / seconds), 1.0, 1.0),
        "lip_trill": lambda: (factor(-5.0), 0.5 + 0.5 * np.sign(np.sin(2 * np.pi * 24 * t)), 0.25, 0.5),
        "spoken": lambda: (2 ** (-2.5 * (t % 0.3)), np.clip(np.sin(2 * np.pi * t / 0.3), 0, 1), 0.25, 1.2),
        "straight": lambda: (plain, flat, 0.02, 1.0),
        "trill": lambda: (factor(1.0 + np.sign(np.sin(2 * np.pi * 6.5 * t))), flat, 0.02, 1.0),
        "trillo": lambda: (plain, np.clip(np.sin(2 * np.pi * 9 * t), 0, 1) ** 0.5, 0.05, 1.0),
        "vibrato": lambda: (factor(0.8 * swing), flat, 0.02, 1.0),
        "vocal_fry": lambda: (0.25 * flat, 0.8 * flat, 0.1, 1.6),
        "fast_forte": lambda: (factor(2 * np.floor(4 * t)), 1.8 * flat, 0.02, 1.4),
        "fast_piano": lambda: (factor(2 * np.floor(4 * t)), 0.4 * flat, 0.1, 0.7),
        "forte": lambda: (plain, 1.8 * flat, 0.02, 1.4),
        "messa": lambda: (plain, 0.3 + 1.5 * np.sin(np.pi * t / seconds), 0.02, 1.0),
        "pp": lambda: (plain, 0.2 * flat, 0.1, 0.6),
        "slow_forte": lambda: (factor(2 * np.floor(t)), 1.8 * flat, 0.02, 1.4),
        "slow_piano": lambda: (factor(2 * np.floor(t)), 0.4 * flat, 0.1, 0.7),
    }
    return manners[technique]()


def _spectrum(voice: Voice, frequency: Float[np.ndarray, "*k"], bright: float) -> Float[np.ndarray, "*k"]:
    """Amplitude at these frequencies: three peaks over a slope."""
    peaks = sum(1 / (1 + ((frequency - formant) / (60 + 0.06 * formant)) ** 2) for formant in voice.formants)
    return (0.05 + peaks) * (frequency / 100) ** (-voice.fall / bright)


def _harmonics(voice: Voice, pitch: Wave, bright: float) -> Wave:
    """Partials up to 4.5 kHz, root mean square 1."""
    cycles = np.cumsum(voice.pitch * pitch / RATE)
    mean = voice.pitch * float(pitch.mean())
    numbers = np.arange(1, min(40, int(4500 / mean)) + 1)
    amplitudes = _spectrum(voice, numbers * mean, bright)
    turn = (2 * np.pi * (cycles % 1)).astype(np.float32)
    # sin(k x) from sin((k-1) x) and sin((k-2) x): two products for a partial
    double, before, now = 2 * np.cos(turn), np.zeros_like(turn), np.sin(turn)
    out = np.zeros_like(turn)
    for amplitude in amplitudes.astype(np.float32):
        out += amplitude * now
        before, now = now, double * now - before
    return out / out.std()


def _whisper(voice: Voice, count: int, rng: np.random.Generator) -> Wave:
    """Noise with the voice's spectrum, root mean square 1."""
    frequency = np.fft.rfftfreq(count, 1 / RATE) + 50
    noise = np.fft.irfft(np.fft.rfft(rng.standard_normal(count)) * _spectrum(voice, frequency, 1.5), count)
    return noise / noise.std()
