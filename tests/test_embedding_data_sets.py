"""`musicssl embed --format=parquet|array_record`: one data set of all files, the same features as the .npz files."""

import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import tensorflow_datasets as tfds
from checkpoint_fixtures import same_imports
from encoder_fixtures import tiny_config_file

from musicssl_jax.command import run_command
from musicssl_jax.embed import main
from musicssl_jax.embedding import parts, spool

RATE = 16000
SECONDS = {"a.wav": 7.3, "album/b.flac": 2.2, "c.wav": 0.6}


@pytest.fixture(scope="module")
def music(tmp_path_factory):
    folder = tmp_path_factory.mktemp("music")
    (folder / "album").mkdir()
    for number, (name, seconds) in enumerate(SECONDS.items()):
        audio = np.random.default_rng(number).normal(0, 0.1, round(seconds * RATE))
        soundfile.write(folder / name, audio, RATE, subtype="PCM_16")
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return f"--checkpoint=random:{tiny_config_file(tmp_path_factory.mktemp('config'))}"


@pytest.fixture(scope="module")
def embed(tiny, music):
    def run(output, *flags):
        return run_command(main, [tiny, f"--input={music}", f"--output={output}", "--window_seconds=3", *flags])

    return run


@pytest.fixture(scope="module", params=[pytest.param("mean", marks=pytest.mark.long), "none"])
def npz(request, embed, tmp_path_factory):
    """(pool, file -> its arrays): what the data sets have to agree with."""
    output = tmp_path_factory.mktemp("npz")
    assert embed(output, "--layers=0,2", f"--pool={request.param}") == 0
    return request.param, {name: dict(np.load(output / f"{name}.npz")) for name in SECONDS}


def test_parquet_has_a_row_for_each_file_time_and_layer(npz, embed, tmp_path, monkeypatch):
    monkeypatch.setattr(spool, "CHUNK_BYTES", 20_000)  # tracks of several blocks
    pool, files = npz
    assert embed(tmp_path, "--layers=0,2", f"--pool={pool}", "--format=parquet") == 0
    table = pq.read_table(tmp_path / "data")
    assert table.schema.names == ["file", "start", "end", "layer", "features"]
    assert sorted(set(table["file"].to_pylist())) == sorted(SECONDS)
    for name, arrays in files.items():
        rows = table.filter(np.array(table["file"].to_pylist()) == name)
        features = rows["features"].combine_chunks().flatten().to_numpy().reshape(-1, 2, 32)
        assert features.dtype == np.float16
        np.testing.assert_array_equal(features.swapaxes(0, 1), arrays["features"])
        assert rows["layer"].to_pylist() == [0, 2] * len(features)
        for side in ("start", "end"):
            np.testing.assert_array_equal(rows[side].to_numpy(), np.repeat(arrays[side], 2))


def test_array_records_form_a_tfds_data_set(npz, embed, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "PART_BYTES", 1)  # a shard for every track
    pool, files = npz
    assert embed(tmp_path, "--layers=0,2", f"--pool={pool}", "--format=array_record") == 0
    assert len(list((tmp_path / "data").glob("*.array_record"))) == len(SECONDS)
    records = list(tfds.builder_from_directory(tmp_path / "data").as_data_source("music"))
    assert sorted(record["file"].decode() for record in records) == sorted(SECONDS)
    for record in records:
        arrays = files[record["file"].decode()]
        np.testing.assert_array_equal(record["features"].swapaxes(0, 1), arrays["features"])
        np.testing.assert_array_equal(record["start"], arrays["start"])
        np.testing.assert_array_equal(record["end"], arrays["end"])


def test_a_data_set_is_added_to_when_asked_and_never_twice(embed, tmp_path, capfd):
    assert embed(tmp_path, "--format=parquet", "--layers=last") == 0
    before = pq.read_table(tmp_path / "data")
    assert embed(tmp_path, "--format=parquet", "--layers=last") == 2
    assert "--skip_existing" in capfd.readouterr().err
    assert embed(tmp_path, "--format=parquet", "--layers=last", "--skip_existing") == 0
    assert "skipped   3 files" in capfd.readouterr().out
    assert pq.read_table(tmp_path / "data").equals(before)


def test_features_of_other_settings_are_not_mixed(embed, tmp_path, capfd):
    assert embed(tmp_path, "--layers=0") == 0
    for flags in (["--skip_existing"], []):
        assert embed(tmp_path, "--layers=0,1", *flags) == 2
        assert "layers=[0]" in capfd.readouterr().err


def test_without_pyarrow_one_line_says_what_to_install(tiny, music, tmp_path):
    program = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from musicssl_jax.command import run_command\n"
        "from musicssl_jax.embed import main\n"
        "sys.exit(run_command(main))\n"
    )
    arguments = [tiny, f"--input={music}", f"--output={tmp_path}", "--format=parquet"]
    ended = subprocess.run(
        [sys.executable, "-c", program, *arguments], env=same_imports(), capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2 and "musicssl_jax[parquet]" in ended.stderr.splitlines()[-1]
