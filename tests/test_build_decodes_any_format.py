"""Whatever libsndfile reads, at any rate and channel count, becomes mono PCM16 at the rate asked for."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from audio_fixtures import build_ok, lines, read_tracks, sound, write_audio

from data_pipelines.audio_files import Rejected
from data_pipelines.decode import Decoded, Limits, decode_track

RATE = 16000


def decode(path: Path) -> tuple[Decoded | Rejected, np.ndarray]:
    pcm = path.with_suffix(".pcm")
    outcome = decode_track(str(path), pcm, RATE, Limits(), lambda seconds: None)
    return outcome, np.fromfile(pcm, "<i2") if pcm.exists() else np.zeros(0, np.int16)


@pytest.mark.parametrize(
    ("name", "rate", "channels", "options", "tolerance"),
    [
        ("a.wav", 44100, 2, {}, 0.01),
        ("a.wav", 8000, 1, {"subtype": "PCM_U8"}, 0.05),
        ("a.wav", 96000, 6, {"subtype": "PCM_24"}, 0.01),
        ("a.wav", 22050, 3, {"subtype": "FLOAT"}, 0.01),
        ("a.flac", 48000, 2, {}, 0.01),
        ("a.mp3", 44100, 2, {}, 0.1),
        ("a.ogg", 44100, 2, {}, 0.15),
        ("a.opus", 48000, 1, {"format": "OGG", "subtype": "OPUS"}, 0.15),
        ("a.aiff", 11025, 1, {}, 0.01),
        ("a.caf", 32000, 2, {}, 0.01),
        ("A.W64", 44100, 1, {}, 0.01),
    ],
)
def test_every_format_gives_the_same_music(tmp_path, name, rate, channels, options, tolerance):
    seconds = 3.0
    reference = sound(1, seconds, RATE).mean(axis=1)
    # The same phases in every channel and no noise above: only rate, channels and codec differ.
    source = np.repeat(sound(1, seconds, rate)[:, :1], channels, axis=1)
    if channels > 1:
        source = source * np.linspace(0.5, 1.5, channels, dtype=np.float32)
    outcome, pcm = decode(write_audio(tmp_path / name, source, rate, **options))
    assert isinstance(outcome, Decoded), outcome
    assert outcome.samples == len(pcm) == pytest.approx(seconds * RATE, abs=0.11 * RATE)
    assert (outcome.rate, outcome.channels) == (rate, channels)
    low, n = low_pass(reference), min(len(pcm), len(reference))
    error = low_pass(pcm[:n] / 32768) - low[:n]
    assert np.std(error) < (tolerance + 0.06) * np.std(low)  # .06: the noise differs from rate to rate


def low_pass(waveform: np.ndarray) -> np.ndarray:
    spectrum = np.fft.rfft(waveform, 65536)
    spectrum[int(2200 / RATE * 65536) :] = 0
    return np.fft.irfft(spectrum)[: len(waveform)]


def test_pcm16_at_the_target_rate_comes_back_bit_for_bit_with_its_statistics(tmp_path):
    pcm16 = np.random.default_rng(0).integers(-20000, 20000, (50001, 1), np.int16)
    pcm16[:2, 0] = -32768, 32767
    soundfile.write(tmp_path / "a.wav", pcm16, RATE)
    outcome, pcm = decode(tmp_path / "a.wav")
    np.testing.assert_array_equal(pcm, pcm16[:, 0])
    waveform = pcm16[:, 0] / 32768
    assert outcome.mean == pytest.approx(waveform.mean(), rel=1e-12)
    assert outcome.std == pytest.approx(waveform.std(), rel=1e-12)
    assert outcome.peak == 1.0


def test_resampling_in_blocks_equals_resampling_at_once(tmp_path):
    soxr = pytest.importorskip("soxr")
    source = sound(3, 10.0, 44100)
    write_audio(tmp_path / "a.wav", source, 44100, subtype="FLOAT")
    _, pcm = decode(tmp_path / "a.wav")
    whole = soxr.resample(source[:, 0], 44100, RATE, quality="HQ")
    assert np.abs(pcm - whole * 32768).max() < 1.1


def test_an_mp3_without_length_header_is_read_to_its_end(tmp_path):
    """Variable bit rate and no Xing header: libsndfile's own guess of the length is far off."""
    quiet = np.concatenate([sound(1, 5.0, 44100), 0.02 * sound(2, 25.0, 44100)])
    write_audio(tmp_path / "whole.mp3", quiet, 44100, bitrate_mode="VARIABLE")
    data = (tmp_path / "whole.mp3").read_bytes()
    assert b"Xing" in data[:200]
    bare = tmp_path / "bare.mp3"
    bare.write_bytes(data[data.index(b"\xff\xfb", 4) :])
    assert not 29 < soundfile.info(bare).duration < 31, "libsndfile guesses right: choose another sound"
    outcome, pcm = decode(bare)
    assert isinstance(outcome, Decoded), outcome
    assert len(pcm) == pytest.approx(30 * RATE, abs=0.1 * RATE)


def test_aac_is_decoded_with_pyav_and_asks_for_it_without(tmp_path):
    path = tmp_path / "a.m4a"
    try:
        av = pytest.importorskip("av")
    except pytest.skip.Exception:
        path.write_bytes(b"anything")
        outcome, _ = decode(path)
        assert outcome == Rejected("decoder missing", "this format needs PyAV: pip install 'musicssl_jax[av]'")
        return
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100, layout="stereo")
        waveform = np.ascontiguousarray(sound(1, 3.0, 44100, 2).T)
        for start in range(0, waveform.shape[1], 1024):
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(waveform[:, start : start + 1024]), format="fltp", layout="stereo"
            )
            frame.rate = 44100
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    outcome, pcm = decode(path)
    assert isinstance(outcome, Decoded), outcome
    assert (outcome.rate, outcome.channels, outcome.codec) == (44100, 2, "aac")
    assert len(pcm) == pytest.approx(3 * RATE, abs=0.1 * RATE)
    assert outcome.std == pytest.approx(sound(1, 3.0, 44100, 2).mean(axis=1).std(), rel=0.05)


def test_half_an_hour_takes_no_more_memory_than_a_minute(tmp_path):
    program = (
        "import resource, sys; from pathlib import Path; from data_pipelines.decode import *\n"
        "out = decode_track(sys.argv[1], Path(sys.argv[1] + '.pcm'), 16000, Limits(), lambda s: None)\n"
        "print(out.samples, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    peaks = []
    block = sound(0, 60.0, 8000, 2)
    for minutes in (1, 30):
        path = tmp_path / f"{minutes}.flac"
        with soundfile.SoundFile(path, "w", 8000, 2) as file:
            for _ in range(minutes):
                file.write(block)
        done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
        samples, peak = map(int, done.stdout.split())
        assert samples == minutes * 60 * 16000
        peaks.append(peak)
    assert peaks[1] < peaks[0] + 20_000  # kB; half an hour's PCM alone is 58 MB


def test_names_that_are_no_text_and_folders_behind_links_are_found(tmp_path):
    music = tmp_path / "music"
    write_audio(music / "real" / "ok.wav", sound(1))
    write_audio(music / "real" / ".hidden.wav", sound(2))
    (tmp_path / "elsewhere").mkdir()
    write_audio(tmp_path / "elsewhere" / "linked.flac", sound(3))
    (music / "link").symlink_to(tmp_path / "elsewhere")
    (music / "real" / "loop").symlink_to(music)
    odd = write_audio(tmp_path / "odd.wav", sound(4))
    odd.rename(str(music / "odd").encode().decode() + "\udcff.wav")
    build_ok(f"--input={music}", f"--output={tmp_path / 'out'}")
    found = read_tracks(tmp_path / "out", "train") | read_tracks(tmp_path / "out", "valid")
    assert sorted(found) == ["link/linked.flac", "odd\\xff.wav", "real/ok.wav"]
    assert lines(tmp_path / "out/rejects.jsonl") == []
