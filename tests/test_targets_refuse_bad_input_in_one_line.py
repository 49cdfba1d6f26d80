"""What labels cannot be made of ends each command in one line that names it, exit code 2, and no new files."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from collection_fixtures import write_collection
from run_fixtures import hubert_flags

from data_pipelines.records import open_collection
from musicssl_jax.cluster import main as cluster
from musicssl_jax.command import run_command
from musicssl_jax.config import load, to_json
from musicssl_jax.label import main as label
from musicssl_jax.models.objective import make_objective
from musicssl_jax.targets.codebook import Codebook, front_end_of, save_codebook
from musicssl_jax.targets.filter_bank import FrameGrid
from musicssl_jax.targets.front_ends import make_front_end
from musicssl_jax.targets.new_codebook import fingerprints
from musicssl_jax.targets.precomputed import open_labels, write_shard
from musicssl_jax.train import main as train
from musicssl_jax.training.checkpointing import open_checkpoints
from musicssl_jax.training.state import init_state

REPOSITORY = Path(__file__).parent.parent
ONE = {"targets": "mfcc39", "clusters": (12,)}


def refused(command, arguments, capsys) -> str:
    assert run_command(command, arguments) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


def random_codebook(folder: Path, music: Path, name: str = "mfcc39", clusters: int = 12, **grid) -> Path:
    features = make_front_end(name, **grid)
    codebook = Codebook(
        centroids=np.random.default_rng(0).normal(size=(clusters, features.width)).astype(np.float32),
        front_end=front_end_of(features),
        data=fingerprints([open_collection(music)]),
        settings={},
        inertia_curve=np.ones(3, np.float32),
        usage=np.ones(clusters, np.int32),
    )
    save_codebook(folder, codebook)
    return folder


def collection_of(folder: Path, audio: np.ndarray) -> Path:
    return write_collection(folder, {"train": {"one": audio, "two": audio}}, record_samples=8000, shard_bytes=10**9)


@pytest.mark.parametrize(
    ("audio", "different", "sounding"),
    [
        (np.zeros(40_000, np.int16), 0, 0),
        (np.full(40_000, 1234, np.int16), 1, 400),
        (np.tile(np.arange(320, dtype=np.int16), 125), 1, 400),  # the same in every frame
    ],
    ids=["silent", "constant", "periodic"],
)
def test_audio_that_does_not_change(tmp_path, capsys, audio, different, sounding):
    data = collection_of(tmp_path / "data", audio)
    for command, output in ((cluster, "--output"), (train, "--workdir")):
        line = refused(command, [*hubert_flags(data, **ONE), f"{output}={tmp_path / 'out'}"], capsys)
        found = re.search(r"12 clusters are more than the (\d+) different frames of mfcc39 .* \((\d+) of 400", line)
        assert int(found[1]) <= different + 8 and int(found[2]) == sounding  # edges of a track differ
        assert "take more music" in line
        assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_more_clusters_than_frames(music, tmp_path):
    """As a user meets it: a process, its exit code, one line and no traceback."""
    command = [sys.executable, "-m", "musicssl_jax.cluster", *hubert_flags(music, targets="mfcc39", clusters=(401,))]
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1", "PYTHONPATH": str(REPOSITORY)}
    ended = subprocess.run(
        [*command, f"--output={tmp_path / 'books'}"], cwd=REPOSITORY, env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 2
    assert re.fullmatch("error: .*config.clusters=401.*initial_frames=400.*\n", ended.stderr), ended.stderr
    assert not (tmp_path / "books").exists()


OTHER_RATE = ((16, 10, 5), *((16, 3, 2),) * 4, (16, 2, 2), (16, 1, 1))
OTHER_FIELD = ((16, 10, 5), *((16, 3, 2),) * 6)


@pytest.mark.parametrize(
    ("codebook", "fields", "said"),
    [
        ({"name": "mfcc60"}, {}, "has 60 dimensions and mfcc39 has 39"),
        ({}, {"model__conv_layers": OTHER_RATE}, "another frame rate .*hop of 320 and 16000 Hz with a hop of 160"),
        ({}, {"model__conv_layers": OTHER_FIELD}, "another front end than mfcc39: receptive_field 400 instead of 640"),
        ({"name": "chroma12"}, {"targets": "chroma24"}, "has 12 dimensions and chroma24 has 24"),
        ({"clusters": 11}, {}, "has 11 clusters and 12 are asked for"),
    ],
    ids=["dimension", "rate", "front end", "chroma", "clusters"],
)
def test_a_codebook_of_another_kind(music, tmp_path, capsys, codebook, fields, said):
    folder = random_codebook(tmp_path / "book", music, **codebook)
    flags = hubert_flags(music, **ONE | fields)
    given = [*flags, f"--config.codebooks={folder}"]
    for command, arguments in (
        (train, [*given, f"--workdir={tmp_path / 'run'}"]),
        (label, [*given, f"--output={tmp_path / 'labels'}"]),
        (cluster, [*flags, f"--output={folder}"]),
    ):
        line = refused(command, arguments, capsys)
        assert re.search(f"codebook {folder} .*{said}", line) and "fit a new one" in line
    assert not (tmp_path / "labels").exists() and not (tmp_path / "run/config.json").exists()


@pytest.fixture
def broken_run(tmp_path):
    """A first iteration that ended with NaN in a block, which its own checks would not have saved."""
    config = load(hubert_flags("unused", **ONE))[0]
    objective = make_objective(config)
    state = init_state(objective, optax.adam(1e-3), jax.random.key(0))
    kernel = ("encoder", "transformer", "blocks", "feed_in", "kernel")
    place = state.params
    for name in kernel[:-1]:
        place = place[name]
    place[kernel[-1]] = place[kernel[-1]] * jnp.nan
    checkpoints = open_checkpoints(tmp_path / "broken/checkpoints", config.checkpoint)
    checkpoints.save_and_wait(1, state, {"config": json.loads(to_json(config)), "versions": {}, "data": []})
    checkpoints.close()
    return tmp_path / "broken"


def test_features_of_nan(music, broken_run, tmp_path, capsys):
    of_layer = hubert_flags(music, targets=f"layer:1@{broken_run}", clusters=(12,))
    for command, output in ((cluster, "--output"), (train, "--workdir")):
        line = refused(command, [*of_layer, f"{output}={tmp_path / 'out'}"], capsys)
        assert "layer1 gives NaN or infinite values for a crop of batch 0" in line
        assert "the run that the features come from" in line
        assert not (tmp_path / "out/config.json").exists()


def test_labels_shorter_than_the_frames(music, tmp_path, capsys):
    """A shard whose second record lost its end, in a folder that is whole otherwise."""
    book = random_codebook(tmp_path / "book", music)
    label([*hubert_flags(music, **ONE), f"--config.codebooks={book}", f"--output={tmp_path / 'labels'}"])
    collection = open_collection(music)
    labels = open_labels(tmp_path / "labels", collection, [(make_front_end("mfcc39"), 12)], FrameGrid(16000, 320, 400))
    split = labels.splits["train"]
    [(file, records)] = split.shards
    before = (tmp_path / "labels" / file).stat().st_size
    short = [split.read(track)[: -30 if track == 1 else None] for track in range(records)]
    write_shard(labels, "train", file, range(records), short)
    description = tmp_path / "labels/labels.json"
    after = (tmp_path / "labels" / file).stat().st_size
    description.write_text(description.read_text().replace(f'"bytes": {before}', f'"bytes": {after}'))
    capsys.readouterr()
    flags = hubert_flags(music, **ONE, labels=tmp_path / "labels")
    line = refused(train, [*flags, f"--workdir={tmp_path / 'run'}"], capsys)
    assert re.search(rf"record 1 of \S*{file}, the labels of track .* bytes of labels", line)
    assert "musicssl label" in line


@pytest.mark.parametrize("command", [cluster, train, label])
def test_a_first_iteration_that_is_missing(music, tmp_path, capsys, command):
    nowhere = tmp_path / "nowhere"
    flags = [*hubert_flags(music, targets=f"layer:1@{nowhere}", clusters=(12,)), f"--config.codebooks={tmp_path}"]
    output = f"{'--workdir' if command is train else '--output'}={tmp_path / 'out'}"
    assert f"no checkpoint in {nowhere}: want a run's folder" in refused(command, [*flags, output], capsys)
    assert not (tmp_path / "out").exists()
