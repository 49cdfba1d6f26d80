"""Each front end is what its docstring defines, written here in float64, and agrees with librosa."""

import jax.numpy as jnp
import librosa
import numpy as np
import pytest
from front_end_fixtures import CENTRE, HOP, frames_of, front_end, track

from musicssl_jax.targets.front_ends import make_front_end
from musicssl_jax.targets.kaldi import deltas

RATE = 16000
SAMPLES = 32145
# (sample rate, hop, receptive field): the base conv stack's, and one that divides by nothing.
GRIDS = [(16000, 320, 400), (24000, 300, 365)]


def grid_id(grid):
    return "-".join(map(str, grid))


def windows(audio, grid, size, frames):
    """(frames, 2 half + 1) samples around the centres of the given encoder frames, zeros beyond the track."""
    _, hop, field = grid
    half = size // 2 + 1
    padded = np.pad(audio / 32768, half)
    return np.stack([padded[i * hop + field // 2 :][: 2 * half + 1] for i in frames]), np.arange(-half, half + 1)


def spectrum(audio, grid, size, frames, frequencies):
    """|sum w x exp|^2, w the periodic Hann window of `size` samples (any real number), a sine's power being 1."""
    samples, n = windows(audio, grid, int(np.ceil(size)), frames)
    hann = np.where(abs(n) < size / 2, 0.5 + 0.5 * np.cos(2 * np.pi * n / size), 0.0)
    waves = np.exp(-2j * np.pi * np.outer(n, frequencies) / grid[0])
    return abs((samples * hann) @ waves * 2 / hann.sum()) ** 2


def cosine(a, b):
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


def ours(name, grid, frames, audio):
    rate, hop, field = grid
    features = make_front_end(name, sample_rate=rate, hop=hop, receptive_field=field)
    got = frames_of(features, audio)
    assert got.dtype == np.float32
    assert got.shape == ((len(audio) - field) // hop + 1, features.width)
    return got[frames]


def some_frames(grid):
    last = (SAMPLES - grid[2]) // grid[1]
    return [0, 1, 7, last // 2, last - 1, last]


@pytest.mark.parametrize("grid", GRIDS, ids=grid_id)
def test_log_mel_follows_its_definition(grid):
    audio, frames = track(SAMPLES, "plucked", grid[0]), some_frames(grid)
    size = round(0.128 * grid[0])
    frequencies = np.arange(size // 2 + 1) * grid[0] / size
    bands = librosa.filters.mel(
        sr=grid[0], n_fft=size, n_mels=229, fmin=30, fmax=8000, htk=True, norm="slaney", dtype=np.float64
    )
    expected = np.log(spectrum(audio, grid, size, frames, frequencies) @ bands.T + 1e-10)
    np.testing.assert_allclose(ours("logmel229", grid, frames, audio), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("grid", GRIDS, ids=grid_id)
@pytest.mark.parametrize("bins", [12, 24])
def test_chroma_follows_its_definition(bins, grid):
    audio, frames = track(SAMPLES, "additive", grid[0]), some_frames(grid)
    size = round(0.256 * grid[0])
    frequencies = np.arange(size // 2 + 1) * grid[0] / size
    frequencies = frequencies[(frequencies >= 65.406) & (frequencies <= 4186.009)]
    weights = np.empty((len(frequencies), bins))
    for row, frequency in enumerate(frequencies):
        c4 = 440 * 2 ** (-9 / 12)
        spread = max(1.0, bins * np.log2((frequency + grid[0] / size) / frequency)) / 2
        for k in range(bins):
            distance = bins * np.log2(frequency / c4) - k
            distance -= bins * round(distance / bins)
            weights[row, k] = np.exp(-0.5 * (distance / spread) ** 2)
        weights[row] /= np.sqrt(np.sum(weights[row] ** 2))
    classes = spectrum(audio, grid, size, frames, frequencies) @ weights
    expected = classes / np.maximum(np.sqrt(np.sum(classes**2, axis=1, keepdims=True)), 1e-8)
    np.testing.assert_allclose(ours(f"chroma{bins}", grid, frames, audio), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("grid", GRIDS, ids=grid_id)
@pytest.mark.parametrize(("name", "bins"), [("cqt84", 12), ("cqt336", 48)])
def test_constant_q_follows_its_definition(name, bins, grid):
    audio, frames = track(SAMPLES, "additive", grid[0]), some_frames(grid)
    ratio = 2 ** (1 / bins)
    q = (ratio**2 + 1) / (ratio**2 - 1)
    frequencies = 32.703 * ratio ** np.arange(7 * bins)
    powers = [spectrum(audio, grid, q * grid[0] / f, frames, [f])[:, 0] for f in frequencies]
    expected = np.log1p(1000 * np.sqrt(np.stack(powers, axis=1)))
    np.testing.assert_allclose(ours(name, grid, frames, audio), expected, rtol=0, atol=1e-3)


def librosa_spectrum(audio, size):
    """librosa's frames on the encoder's centres, a sine's power being 1."""
    padded = np.pad(audio / 32768, (size // 2 - CENTRE, size))
    stft = librosa.stft(padded, n_fft=size, hop_length=HOP, center=False)
    return abs(stft * 2 / librosa.filters.get_window("hann", size).sum()) ** 2


def test_log_mel_agrees_with_librosa():
    audio = track(SAMPLES, "plucked")
    got = frames_of(front_end("logmel229"), audio)
    mel = librosa.feature.melspectrogram(
        S=librosa_spectrum(audio, 2048), sr=RATE, n_mels=229, fmin=30, fmax=8000, htk=True
    )
    expected = mel.T[: len(got)]
    np.testing.assert_allclose(got, np.log(expected + 1e-10), rtol=0, atol=1e-3)
    assert cosine(np.exp(got), expected).min() > 0.99


@pytest.mark.parametrize("bins", [12, 24])
def test_chroma_agrees_with_librosa(bins):
    """librosa's filters on the bins of our range: there without its weights of octaves, which are ours to leave out."""
    audio = track(SAMPLES)
    got = frames_of(front_end(f"chroma{bins}"), audio)
    power = librosa_spectrum(audio, 4096)
    frequencies = np.arange(2049) * RATE / 4096
    power[(frequencies < 65.406) | (frequencies > 4186.009)] = 0
    chroma = librosa.feature.chroma_stft(S=power, sr=RATE, n_chroma=bins, tuning=0.0, norm=2, octwidth=None)
    assert cosine(got, chroma.T[: len(got)]).min() > 0.9999


@pytest.mark.parametrize(("name", "bins"), [("cqt84", 12), ("cqt336", 48)])
@pytest.mark.parametrize("family", ["additive", "plucked"])
@pytest.mark.filterwarnings("ignore:n_fft=1024 is too large")  # after librosa has resampled for its lowest octaves
def test_constant_q_agrees_with_librosa(name, bins, family):
    """librosa's frame t is centred on sample 320 t; it resamples for low octaves, and would leave out
    small filter coefficients. Its unscaled magnitude is that of sums, ours that of averages."""
    audio = track(64000, family)
    got = frames_of(front_end(name), audio)
    moved = np.pad(audio / 32768, (HOP - CENTRE, 0))
    settings = dict(fmin=32.703, n_bins=7 * bins, bins_per_octave=bins)
    lengths, _ = librosa.filters.wavelet_lengths(freqs=librosa.cqt_frequencies(**settings), sr=RATE)
    cqt = librosa.cqt(moved, sr=RATE, hop_length=HOP, tuning=0.0, sparsity=0.0, scale=False, **settings)
    expected = abs(cqt.T[1 : len(got) + 1]) * 2 / lengths
    assert cosine(np.expm1(got), expected).min() > 0.99
    assert cosine(got, np.log1p(1000 * expected)).min() > 0.99


def test_a_sine_is_where_it_should_be():
    """A4 of half the full scale: |X| = 1/2 at bin 45 of 84, class A of the chroma, the band around 440 Hz."""
    sine = np.round(16384 * np.sin(2 * np.pi * 440 * np.arange(SAMPLES) / RATE)).astype(np.int16)
    middle = 40
    cqt = frames_of(front_end("cqt84"), sine)[middle]
    assert cqt.argmax() == 45
    np.testing.assert_allclose(np.expm1(cqt[45]) / 1000, 0.5, rtol=1e-3)
    assert frames_of(front_end("cqt336"), sine)[middle].argmax() == 180
    assert frames_of(front_end("chroma12"), sine)[middle].argmax() == 9
    assert frames_of(front_end("chroma24"), sine)[middle].argmax() == 18
    mels = librosa.mel_frequencies(n_mels=231, fmin=30, fmax=8000, htk=True)[1:-1]
    assert abs(mels[frames_of(front_end("logmel229"), sine)[middle].argmax()] - 440) < 8


def reference_deltas(frames):
    """torchaudio's compute_deltas of (J, W) frames, win_length 5, mode replicate."""
    padded = np.pad(frames.astype(np.float64), ((2, 2), (0, 0)), mode="edge")
    return np.stack([np.arange(-2, 3) @ padded[j : j + 5] / 10 for j in range(len(frames))])


def test_deltas_are_regressions_over_five_frames_with_replicated_ends():
    frames = np.random.default_rng(0).normal(size=(3, 12, 4)).astype(np.float32)
    first, last = np.array([0, 3, 5]), np.array([11, 9, 5])
    got = np.asarray(deltas(*map(jnp.asarray, (frames, first, last))))
    for row, (a, b) in enumerate(zip(first, last, strict=True)):
        np.testing.assert_allclose(got[row, a : b + 1], reference_deltas(frames[row, a : b + 1]), atol=1e-6)


@pytest.mark.parametrize(("name", "cepstra"), [("mfcc39", 13), ("mfcc60", 20)])
def test_mfcc_frames_are_every_second_of_the_tracks_statics_deltas_and_double_deltas(name, cepstra):
    """At both ends of the track too, where its own first and last frames are replicated."""
    audio = track(SAMPLES)
    statics = kaldi_mfcc(audio / 32768, cepstra)
    speed = reference_deltas(statics)
    expected = np.concatenate([statics, speed, reference_deltas(speed)], axis=1)[::2]
    got = frames_of(front_end(name), audio)
    np.testing.assert_allclose(got, expected[: len(got)], rtol=0, atol=1e-2)
    np.testing.assert_allclose(got[:, cepstra:], expected[: len(got), cepstra:], rtol=0, atol=3e-3)


def kaldi_mfcc(waveform, cepstra):
    """Kaldi's steps one by one, in float64."""
    count = (len(waveform) - 400) // 160 + 1
    frames = np.stack([waveform[160 * j : 160 * j + 400] for j in range(count)])
    frames = frames - frames.mean(1, keepdims=True)
    frames = frames - 0.97 * np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    power = abs(np.fft.rfft(frames * np.hanning(400) ** 0.85, 512)) ** 2

    def mel(f):
        return 1127 * np.log(1 + f / 700)

    corners = np.linspace(mel(20), mel(8000), 25)
    bins = mel(np.arange(257) * 16000 / 512)
    energies = np.stack([power @ np.interp(bins, corners[b : b + 3], [0, 1, 0]) for b in range(23)], axis=1)
    logs = np.log(np.maximum(energies, np.finfo(np.float32).eps))
    index = np.arange(cepstra)
    scale = np.where(index == 0, np.sqrt(1 / 23), np.sqrt(2 / 23))
    dct = scale * np.cos(np.pi / 23 * np.outer(np.arange(23) + 0.5, index))
    return logs @ dct * (1 + 11 * np.sin(np.pi * index / 22))
