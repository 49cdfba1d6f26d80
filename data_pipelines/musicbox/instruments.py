"""How a note sounds: six instrument classes, each made in two ways that have nothing in common.

A maker takes (frequency in Hz, seconds, timbre, sample rate) and gives a waveform of any level, with its
release. `Timbre` varies a class from track to track.

Sources: FM brass, bell and reed from Chowning, "The synthesis of complex audio spectra by means of frequency
modulation" (1973); the string from Karplus and Strong (1983) with the fractional delay of Jaffe and Smith (1983).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.signal import lfilter

from musicssl_jax.shapes import Float

CLASSES = ("organ", "bowed", "brass", "flute", "plucked", "bell")
RELEASE = 0.06  # seconds that a note sounds on after its end

Wave = Float[np.ndarray, " n"]


class Timbre(NamedTuple):
    """Each from 0 to 1; `seed` draws what is random in the sound itself (breath, the pluck)."""

    brightness: float
    attack: float
    vibrato: float
    seed: int


def _times(seconds: float, rate: int) -> Wave:
    return np.arange(round((seconds + RELEASE) * rate), dtype=np.float32) / np.float32(rate)


def _envelope(t: Wave, seconds: float, attack: float) -> Wave:
    """Linear attack, sustain, linear release."""
    rise = np.minimum(t / min(attack, seconds / 2), 1)
    return rise * np.clip(1 - (t - seconds) / RELEASE, 0, 1)


def _cycles(t: Wave, frequency: float, vibrato: float) -> Wave:
    """Phase in cycles; vibrato swings by up to 20 cents, 5.5 times a second, and fades in."""
    depth = 20 / 1200 * np.log(2) * vibrato * np.minimum(t / 0.3, 1)
    swing = frequency * depth * np.sin(2 * np.pi * 5.5 * t) / (2 * np.pi * 5.5)
    return (t.astype(np.float64) * frequency + swing).astype(np.float32)


def _sine(cycles: Wave) -> Wave:
    return np.sin(np.float32(2 * np.pi) * (cycles % 1))


def _breath(t: Wave, timbre: Timbre, frequency: float) -> Wave:
    noise = np.random.default_rng([timbre.seed, round(frequency)]).standard_normal(len(t)).astype(np.float32)
    return np.diff(noise, prepend=noise[:1]) * np.float32(0.02)


def _partials(
    cycles: Wave, frequency: float, rate: int, amplitudes: Sequence[float], ratios: Sequence[float] | None = None
) -> list[Wave]:
    """A sine for each amplitude at its ratio (1, 2, 3 ... if not given), if it is under 0.45 of the rate."""
    return [
        np.float32(amplitude) * _sine(cycles * np.float32(ratio))
        for amplitude, ratio in zip(amplitudes, ratios or range(1, len(amplitudes) + 1), strict=True)
        if ratio * frequency < 0.45 * rate and amplitude
    ]


def _rolloff(timbre: Timbre, dull: float, bright: float, count: int = 12) -> list[float]:
    """Amplitudes 1 / k^p, p between `dull` and `bright`."""
    power = dull + (bright - dull) * timbre.brightness
    amplitudes = np.arange(1, count + 1) ** -power
    return list(amplitudes / amplitudes.sum())


def _additive_organ(frequency: float, seconds: float, timbre: Timbre, rate: int) -> Wave:
    t = _times(seconds, rate)
    drawbars = np.array([1, 0.8, 0.5, 0.4, 0, 0.3, 0, 0.25]) ** (1.6 - timbre.brightness)
    waves = _partials(_cycles(t, frequency, 0.0), frequency, rate, list(drawbars / drawbars.sum()))
    return np.sum(waves, 0) * _envelope(t, seconds, 0.008 + 0.01 * timbre.attack)


def _additive_bowed(frequency: float, seconds: float, timbre: Timbre, rate: int) -> Wave:
    t = _times(seconds, rate)
    cycles = _cycles(t, frequency, 0.4 + 0.6 * timbre.vibrato)
    waves = _partials(cycles, frequency, rate, _rolloff(timbre, 1.4, 0.9))
    return np.sum(waves, 0) * _envelope(t, seconds, 0.09 + 0.08 * timbre.attack)


def _additive_brass(frequency: float, seconds: float, timbre: Timbre, rate: int) -> Wave:
    """Higher partials enter later and swell."""
    t = _times(seconds, rate)
    cycles = _cycles(t, frequency, 0.2 * timbre.vibrato)
    waves = _partials(cycles, frequency, rate, _rolloff(timbre, 0.9, 0.5, 10))
    swelling = [wave * np.minimum(t / (0.03 + 0.025 * k), 1) ** 2 for k, wave in enumerate(waves)]
    return np.sum(swelling, 0) * _envelope(t, seconds, 0.03 + 0.02 * timbre.attack)


def _additive_flute(frequency: float, seconds: float, timbre: Timbre, rate: int) -> Wave:
    t = _times(seconds, rate)
    amplitudes = [0.85, 0.05 + 0.1 * timbre.brightness, 0.04, 0.01]
    wave = np.sum(_partials(_cycles(t, frequency, 0.5 * timbre.vibrato), frequency, rate, amplitudes), 0)
    return (wave + _breath(t, timbre, frequency)) * _envelope(t, seconds, 0.05 + 0.04 * timbre.attack)


def _additive_plucked(frequency: float, seconds: float, timbre: Timbre, rate: int) -> Wave:
    """Higher partials die sooner."""
    t = _times(seconds, rate)
    waves = _partials(_cycles(t, frequency, 0.0), frequency, rate, _rolloff(timbre, 1.3, 0.7))
    slowest = np.exp(-t * np.float32(2.5 + 1.5 * (1 - timbre.brightness)))
    decay = np.exp(-t * np.float32(1.5))
    out = np.zeros_like(t)
    for wave in reversed(waves):
        out = out * decay + wave
    return out * slowest * _envelope(t, seconds, 0.003)


def _additive_bell(frequency: float, seconds: float, timbre: Timbre, rate: int) -> Wave:
    """Inharmonic partials above a strong fundamental."""
    t = _times(seconds, rate)
    ratios = (1.0, 2.0, 2.76, 3.9, 5.4)
    amplitudes = np.array([1, 0.3, 0.5, 0.3, 0.2]) ** (1.3 - 0.6 * timbre.brightness)
    waves = _partials(_cycles(t, frequency, 0.0), frequency, rate, list(amplitudes / amplitudes.sum()), ratios)
    ringing = [wave * np.exp(-t * np.float32(1.2 + 1.3 * k)) for k, wave in enumerate(waves)]
    return np.sum(ringing, 0) * _envelope(t, seconds, 0.002)


def _fm(t: Wave, frequency: float, ratio: float, index: Wave | float, vibrato: float = 0.0) -> Wave:
    """Chowning's pair: a carrier at `frequency`, modulated at `ratio` times it with the given index."""
    cycles = _cycles(t, frequency, vibrato)
    return _sine(cycles + index * _sine(cycles * np.float32(ratio)) / np.float32(2 * np.pi))


def _room_for(frequency: float, ratio: float, index: float, rate: int) -> float:
    """The index, lowered where its sidebands (Carson's rule) would fold at the Nyquist frequency."""
    return max(0.0, min(index, (0.45 * rate / frequency - 1) / ratio - 1))


def _fm_organ(frequency: float, seconds: float, timbre: Timbre, rate: int) -> Wave:
    t = _times(seconds, rate)
    index = _room_for(frequency, 2.0, 0.6 + 0.5 * timbre.brightness, rate)
    wave = 0.7 * _fm(t, frequency, 2.0, index) + 0.3 * _fm(t, 2 * frequency, 1.0, index / 2)
    return wave * _envelope(t, seconds, 0.008 + 0.01 * timbre.attack)


def _fm_bowed(frequency: float, seconds: float, timbre: Timbre, rate: int) -> Wave:
    t = _times(seconds, rate)
    index = _room_for(frequency, 1.0, 1.2 + 0.8 * timbre.brightness, rate)
    wave = _fm(t, frequency, 1.0, index, 0.4 + 0.6 * timbre.vibrato)
    return wave * _envelope(t, seconds, 0.09 + 0.08 * timbre.attack)


def _fm_brass(frequency: float, seconds: float, timbre: Timbre, rate: int) -> Wave:
    """The index follows the loudness: brighter when louder."""
    t = _times(seconds, rate)
    index = _room_for(frequency, 1.0, 2.5 + 2 * timbre.brightness, rate)
    swell = np.minimum(t / (0.12 + 0.1 * timbre.attack), 1)
    wave = _fm(t, frequency, 1.0, np.float32(index) * swell, 0.2 * timbre.vibrato)
    return wave * _envelope(t, seconds, 0.03 + 0.02 * timbre.attack)


def _fm_flute(frequency: float, seconds: float, timbre: Timbre, rate: int) -> Wave:
    t = _times(seconds, rate)
    index = _room_for(frequency, 3.0, 0.1 + 0.15 * timbre.brightness, rate)
    return _fm(t, frequency, 3.0, index, 0.5 * timbre.vibrato) * _envelope(t, seconds, 0.05 + 0.04 * timbre.attack)


def _fm_bell(frequency: float, seconds: float, timbre: Timbre, rate: int) -> Wave:
    t = _times(seconds, rate)
    index = _room_for(frequency, 3.5, 0.8 + 0.7 * timbre.brightness, rate)
    wave = _fm(t, frequency, 3.5, np.float32(index) * np.exp(-t * np.float32(2.5)))
    return wave * np.exp(-t * np.float32(1.5)) * _envelope(t, seconds, 0.002)


def _string(frequency: float, seconds: float, timbre: Timbre, rate: int) -> Wave:
    """A ramp with noise (noise alone may lack the fundamental) runs round a delay of one period, damped."""
    t = _times(seconds, rate)
    numerator, denominator, period = _string_loop(frequency, 2.5 + timbre.brightness, rate)
    burst = np.zeros(len(t))
    rng = np.random.default_rng([timbre.seed, round(frequency)])
    burst[:period] = (np.linspace(1, -1, period) + rng.uniform(-0.7, 0.7, period))[: len(t)]
    burst[:period] -= burst[:period].mean()
    soft = 0.3 + 0.5 * timbre.brightness  # a duller pluck
    burst = lfilter([soft], [1, soft - 1], burst)
    wave = lfilter(numerator, denominator, burst).astype(np.float32)
    return wave / np.abs(wave).max() * _envelope(t, seconds, 0.001)


def _string_loop(frequency: float, ring: float, rate: int) -> tuple[list[float], Wave, int]:
    """Filter 1 / (1 - z^-N g L(z) A(z)): delay of N samples, loss (60 dB in `ring` seconds), damping and tuning.

    L weights two neighbours by 1 - s and s, which delays by about s; half and half would silence a high string
    within a tenth of a second, so s falls with the frequency: the fundamental loses 1.5 nepers a second by it.
    A is the all-pass that delays by what is left of the period.
    """
    turn = 2 * np.pi * frequency / rate
    product = min(0.25, 3 / (frequency * turn**2))
    s = (1 - np.sqrt(1 - 4 * product)) / 2
    period = rate / frequency
    whole = int(period - s - 0.1)
    rest = period - s - whole
    c = (1 - rest) / (1 + rest)
    loss = 0.001 ** (1 / (frequency * ring))
    denominator = np.zeros(whole + 3)
    denominator[:2] = 1, c
    denominator[whole:] -= loss * np.convolve([1 - s, s], [c, 1])
    return [1.0, c], denominator, whole


Maker = Callable[[float, float, Timbre, int], Wave]

MAKERS: dict[str, dict[str, Maker]] = {
    "additive": {
        "organ": _additive_organ,
        "bowed": _additive_bowed,
        "brass": _additive_brass,
        "flute": _additive_flute,
        "plucked": _additive_plucked,
        "bell": _additive_bell,
    },
    "plucked": {
        "organ": _fm_organ,
        "bowed": _fm_bowed,
        "brass": _fm_brass,
        "flute": _fm_flute,
        "plucked": _string,
        "bell": _fm_bell,
    },
}


def drum(name: str, family: str, rng: np.random.Generator, rate: int) -> Wave:
    """One kick, snare or hat. The families differ in what they are made of: filtered noise, or FM."""
    seconds, decay = {"kick": (0.25, 18), "snare": (0.2, 22), "hat": (0.06, 70)}[name]
    t = np.arange(round(seconds * rate), dtype=np.float32) / np.float32(rate)
    fall = np.exp(-t * np.float32(decay))
    if name == "kick":
        sweep = 50 * t + 90 / 30 * (1 - np.exp(-30 * t))  # from 140 to 50 Hz
        wave = _sine(sweep) if family == "additive" else _sine(sweep + 0.3 * _sine(1.5 * sweep))
    elif family == "additive":
        noise = rng.standard_normal(len(t)).astype(np.float32)
        wave = np.diff(noise, prepend=0) if name == "hat" else 0.7 * noise + 0.5 * _sine(190 * t)
        wave = wave * np.float32(0.4)
    else:
        carrier, index = (5200.0, 6.0) if name == "hat" else (230.0, 25.0)
        wave = _fm(t, carrier, float(rng.uniform(1.3, 1.45)), index * fall)
    return (wave * fall).astype(np.float32)
