"""`musicssl embed`: real audio files in, one .npz each out, bad files named and left out."""

import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from encoder_fixtures import tiny_config_file

from musicssl_jax.command import run_command
from musicssl_jax.embed import main
from musicssl_jax.encoder_io import load_encoder
from musicssl_jax.errors import UserError

RATE = 16000


def tone(seconds, seed=0, rate=RATE):
    t = np.arange(round(seconds * rate)) / rate
    return 0.3 * np.sin(2 * np.pi * 220 * (seed + 1) * t) + 0.01 * np.random.default_rng(seed).standard_normal(len(t))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The name of a tiny encoder with random parameters."""
    return f"random:{tiny_config_file(tmp_path_factory.mktemp('config'))}"


@pytest.fixture(scope="module")
def encode(tiny):
    return load_encoder(tiny)


@pytest.fixture(scope="module")
def run_embed(tiny):
    def run(*arguments):
        command = [sys.executable, "-m", "musicssl_jax.embed", f"--checkpoint={tiny}", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return run


@pytest.fixture(scope="module")
def music(tmp_path_factory):
    """Files of other lengths, formats, rates and channel counts, two that are damaged, and one of text."""
    folder = tmp_path_factory.mktemp("music")
    (folder / "album").mkdir()
    soundfile.write(folder / "a.wav", tone(7.3), RATE, subtype="PCM_16")
    soundfile.write(folder / "album" / "a.flac", np.stack([tone(2.2, 1, 44100)] * 2, axis=1), 44100)
    soundfile.write(folder / "album" / "short.ogg", tone(0.4), RATE)
    (folder / "empty.wav").touch()
    (folder / "noise.mp3").write_bytes(np.random.default_rng(0).bytes(5000))
    (folder / "notes.txt").write_text("not audio")
    return folder


@pytest.fixture(scope="module")
def embedded(music, run_embed, tmp_path_factory):
    output = tmp_path_factory.mktemp("features")
    flags = ("--layers=0,2", "--pool=none", "--dtype=float32", "--window_seconds=3")
    return output, run_embed(f"--input={music}", f"--output={output}", *flags)


def test_each_readable_file_gets_its_features(music, embedded, encode):
    output, run = embedded
    assert run.returncode == 0, run.stderr
    found = sorted(path.relative_to(output).as_posix() for path in output.rglob("*.npz"))
    assert found == ["a.wav.npz", "album/a.flac.npz", "album/short.ogg.npz"]
    with np.load(output / "a.wav.npz") as file:
        frames = (round(7.3 * RATE) - 400) // 320 + 1
        assert file["features"].shape == (2, frames, encode.width) and file["features"].dtype == np.float32
        np.testing.assert_allclose(file["times"], (np.arange(frames) * 320 + 200) / RATE)
        assert file["layers"].tolist() == [0, 2] and file["sample_rate"] == RATE
        pcm, _ = soundfile.read(music / "a.wav", dtype="int16")
        np.testing.assert_allclose(file["features"], encode(pcm, window_seconds=3.0)["hidden"][[0, 2]], atol=1e-4)


def test_bad_files_are_named_and_not_fatal(embedded):
    output, run = embedded
    rejects = [json.loads(line) for line in (output / "rejects.jsonl").read_text().splitlines()]
    assert sorted(row["file"].rpartition("/")[2] for row in rejects) == ["empty.wav", "noise.mp3"]
    assert all(row["reason"] and row["file"] in run.stderr for row in rejects)
    assert "rejected  2 files" in run.stdout and "features  3 files" in run.stdout


def test_pooled_features_are_means_over_the_frames(music, tiny, embedded, tmp_path):
    """Of whole files and of spans, also of spans that windows cut."""
    with np.load(embedded[0] / "a.wav.npz") as file:
        frames = file["features"][1]
    for pool, spans in (("mean", [(0, 364)]), ("window", [(0, 120), (120, 240), (240, 360), (360, 364)])):
        flags = ("--layers=last", f"--pool={pool}", "--pool_seconds=2.4", "--dtype=float16", "--window_seconds=3")
        files = (f"--checkpoint={tiny}", f"--input={music / 'a.wav'}", f"--output={tmp_path / pool}")
        assert run_command(main, [*files, *flags]) == 0
        with np.load(tmp_path / pool / "a.wav.npz") as file:
            assert file["features"].shape == (1, len(spans), 32) and file["features"].dtype == np.float16
            np.testing.assert_allclose(file["features"][0], [frames[a:b].mean(axis=0) for a, b in spans], atol=2e-3)
            np.testing.assert_allclose(file["start"], [a * 0.02 for a, _ in spans])
            np.testing.assert_allclose(file["end"], [(b - 1) * 0.02 + 0.025 for _, b in spans])
            np.testing.assert_allclose(file["times"], (file["start"] + file["end"]) / 2)


def test_existing_features_are_skipped_when_asked(music, tiny, tmp_path, capfd):
    (tmp_path / "a.wav.npz").write_bytes(b"mine")
    files = [music / "a.wav", music / "album" / "short.ogg"]
    arguments = [f"--checkpoint={tiny}", "--input", *map(str, files), f"--output={tmp_path}", "--skip-existing"]
    assert run_command(main, arguments) == 0
    assert "skipped   1 files" in capfd.readouterr().out
    assert (tmp_path / "a.wav.npz").read_bytes() == b"mine"
    assert (tmp_path / "album" / "short.ogg.npz").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--input={music}/empty.wav", "--output={out}"), "empty.wav: empty"),
        (("--input={music}/nothing", "--output={out}"), "nothing"),
        (("--input={music}/a.wav", "--output={out}", "--layers=0,5"), "--layers=0,5"),
        (("--input={music}/a.wav", "--output={music}/notes.txt/x"), "notes.txt"),
        (("--input={music}/a.wav", "--output={out}", "--window_seconds=4", "--context_seconds=2"), "--context_seconds"),
        (("--input={music}/a.wav", "--output={out}", "--batch=0"), "--batch"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(music, tiny, tmp_path, capfd, arguments, said):
    arguments = [argument.format(music=music, out=tmp_path / "out") for argument in arguments]
    assert run_command(main, [f"--checkpoint={tiny}", *arguments]) == 2
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert said in last and last.startswith("error: ")


def test_an_unknown_checkpoint_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="no checkpoint"):
        load_encoder(str(tmp_path))
