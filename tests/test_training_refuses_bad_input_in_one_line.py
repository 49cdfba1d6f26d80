"""What is wrong with the data, the devices or the run's folder: one line that names it, exit code 2, no new files."""

import shutil
import subprocess
from pathlib import Path

import pytest
from collection_fixtures import noise_tracks, write_collection
from run_fixtures import flags

from musicssl_jax.command import run_command
from musicssl_jax.errors import USER_ERROR
from musicssl_jax.train import main
from musicssl_jax.training.metrics import read_metrics


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MUSICSSL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def collection(tmp_path):
    """Three tracks of noise of 1 to 3 s in records of half a second, several of them in a shard."""
    tracks = noise_tracks([16_000, 48_000, 32_000])
    return write_collection(tmp_path / "data", {"train": tracks}, record_samples=8000, shard_bytes=50_000)


def refused(arguments, workdir: Path, capsys) -> str:
    """The one line with which training ended."""
    code = run_command(main, [*arguments, f"--workdir={workdir}"])
    lines = capsys.readouterr().err.strip().splitlines()
    assert code == USER_ERROR
    assert lines[-1].startswith("error: ")
    assert sum(line.startswith("error: ") for line in lines) == 1
    return lines[-1]


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()] if folder.exists() else []


def test_a_path_that_is_not_there(tmp_path, capsys):
    line = refused(flags(tmp_path / "nowhere"), tmp_path / "run", capsys)
    assert f"{tmp_path / 'nowhere'} is not a folder" in line
    assert not files_in(tmp_path / "run")


def test_a_folder_without_audio(tmp_path, capsys):
    empty, texts = tmp_path / "empty", tmp_path / "texts"
    empty.mkdir()
    texts.mkdir()
    (texts / "notes.txt").write_text("la la la")
    assert f"{empty} is empty" in refused(flags(empty), tmp_path / "run", capsys)
    assert f"{texts} holds no audio file" in refused(flags(texts), tmp_path / "run", capsys)
    assert not files_in(tmp_path / "run") and not list((tmp_path / "cache").glob("*/*"))


def test_a_folder_of_files_that_are_no_audio(tmp_path, capsys):
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "a.wav").write_text("no audio")
    (bad / "b.mp3").touch()
    line = refused(flags(bad), tmp_path / "run", capsys)
    assert "none of the 2 audio files can be used" in line and "1 empty" in line and "1 undecodable" in line
    assert not files_in(tmp_path / "run")


def test_a_variant_without_data(tmp_path, capsys):
    line = refused(["--config=configs/music2vec.py:base"], tmp_path / "run", capsys)
    assert "data.path is empty" in line and "--config.data.path=" in line
    assert not files_in(tmp_path / "run")


def test_one_of_several_paths_that_will_not_do(collection, tmp_path, capsys):
    line = refused(flags(f"{collection},{tmp_path / 'nowhere'}"), tmp_path / "run", capsys)
    assert str(tmp_path / "nowhere") in line
    assert not (tmp_path / "run").exists()


def test_a_collection_of_another_sample_rate(collection, tmp_path, capsys):
    line = refused(flags(collection, data__sample_rate=24_000), tmp_path / "run", capsys)
    assert f"{collection} is sampled at 16000 Hz, not at 24000" in line
    assert not files_in(tmp_path / "run")


def test_a_crop_longer_than_any_track(collection, tmp_path, capsys):
    line = refused(flags(collection, data__crop_seconds=3.5), tmp_path / "run", capsys)
    assert "a crop of 3.5 s is longer than every track" in line
    assert str(collection) in line and "the longest has 3 s" in line
    assert not (tmp_path / "run").exists()


def test_a_mesh_larger_than_the_devices(collection, tmp_path, capsys):
    line = refused(flags(collection, mesh__data=4, mesh__fsdp=4), tmp_path / "run", capsys)
    assert "4 x 4 = 16 devices, but there are 8" in line
    assert not (tmp_path / "run").exists()


def test_a_mesh_that_does_not_divide_the_model(collection, tmp_path, capsys):
    line = refused(flags(collection, mesh__fsdp=3, mesh__data=1), tmp_path / "run", capsys)
    assert "mesh.fsdp" in line and "does not divide" in line


def test_a_run_folder_that_cannot_be(collection, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    for workdir in (tmp_path / "file", tmp_path / "file" / "run", Path("/proc/run")):  # not even root can write there
        assert str(workdir) in refused(flags(collection), workdir, capsys)
    assert (tmp_path / "file").read_text() == "mine"


def test_shards_that_are_missing_or_truncated(collection, tmp_path, capsys):
    shard = sorted(collection.glob("music-train*"))[1]
    content = shard.read_bytes()
    shard.write_bytes(content[:-1000])
    line = refused(flags(collection), tmp_path / "run", capsys)
    assert f"shard {shard} has {len(content) - 1000} bytes instead of {len(content)}" in line
    shard.unlink()
    assert f"shard {shard} is missing" in refused(flags(collection), tmp_path / "run", capsys)
    assert not files_in(tmp_path / "run")


def flip_a_bit(shard: Path, position: int) -> None:
    content = bytearray(shard.read_bytes())
    content[position] ^= 4
    shard.write_bytes(content)


def test_a_flipped_bit_in_the_first_batch(collection, tmp_path, capsys):
    shard = sorted(collection.glob("music-train*"))[0]
    flip_a_bit(shard, 5000)
    line = refused(flags(collection, data__threads=2), tmp_path / "run", capsys)
    assert f"record 0 of shard {shard} cannot be read" in line and "rebuild" in line


def test_a_flipped_bit_met_while_training(tmp_path, capsys):
    """With this seed in the seventh step: metrics and checkpoints of those before it stay."""
    folder = write_collection(
        tmp_path / "data", {"train": noise_tracks([10 * 16_000])}, record_samples=8000, shard_bytes=10**9
    )
    (shard,) = folder.glob("music-train*")
    flip_a_bit(shard, 5000)
    small = {"data__crop_seconds": 0.5, "batch__clips": 1, "batch__per_device": 1, "model__layers": 1}
    arguments = flags(folder, steps=20, seed=1, checkpoint__every=2, target__top_k=1, **small)
    line = refused(arguments, tmp_path / "run", capsys)
    assert f"record 0 of shard {shard} cannot be read" in line and "rebuild" in line
    steps = read_metrics(tmp_path / "run" / "metrics.jsonl")["train/loss"][0]
    assert steps.tolist() == [1, 2, 3, 4, 5, 6]
    saved = [int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir()]
    assert sorted(saved) == [4, 6]


@pytest.fixture
def full_disk(tmp_path):
    """A file system of 40 kB; mounting one takes a privilege."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40k", "none", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_run_folder_on_a_full_disk(collection, full_disk, capsys):
    """Room for the config and not for the first picture's data."""
    line = refused(flags(collection), full_disk / "run", capsys)
    assert f"cannot write to the run's folder {full_disk / 'run'} (No space left on device)" in line
    assert "make room" in line
    assert not list((full_disk / "run").glob("*example*"))


def test_no_room_for_the_config(collection, full_disk, capsys):
    (full_disk / "ballast").write_bytes(bytes(40 * 1024))
    line = refused(flags(collection), full_disk / "run", capsys)
    assert f"cannot write to the run's folder {full_disk / 'run'} (No space left on device)" in line
    assert not (full_disk / "run" / "config.json").exists()
