"""Labels from files are those that the train step computes, and are refused where they do not belong."""

import contextlib
import dataclasses
import json
import shutil
from itertools import islice
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from collection_fixtures import noise_tracks, write_collection
from run_fixtures import hubert_flags

from data_pipelines.crops import Crop, crop_batches, read_crops
from data_pipelines.records import open_collection
from musicssl_jax.command import run_command
from musicssl_jax.config import load
from musicssl_jax.encoder_io import load_encoder
from musicssl_jax.errors import UserError
from musicssl_jax.label import main as label
from musicssl_jax.parallel import make_mesh
from musicssl_jax.targets import precomputed
from musicssl_jax.targets.codebook import (
    Codebook,
    codebook_id,
    front_end_of,
    load_codebook,
    read_codebooks,
    save_codebook,
)
from musicssl_jax.targets.filter_bank import FrameGrid
from musicssl_jax.targets.front_ends import make_front_end
from musicssl_jax.targets.labelling import crop_labeller, overlap_agreement, track_labels, windows
from musicssl_jax.targets.open_targets import fingerprints, front_ends_of, make_features, open_targets
from musicssl_jax.targets.precomputed import LabelSet, SplitLabels, new_labels, write_shard
from musicssl_jax.targets.target_set import TargetSet
from musicssl_jax.train import main as train
from musicssl_jax.training.data import open_data
from musicssl_jax.training.metrics import read_metrics

GRID = FrameGrid(16000, 320, 400)
SECOND = 16_000
FRAMES = 49  # of a crop of a second
CLUSTERS = 12


def flags(music, **fields) -> list[str]:
    """A run of one label set that compiles faster still: few layers, on the base model's frames, and no dropout."""
    small = {"model__conv_layers": ((16, 20, 20), (16, 4, 4), (16, 5, 4)), "model__layers": 1, "model__layer_drop": 0}
    small |= {f"model__{name}dropout": 0 for name in ("", "attention_", "input_")}
    return hubert_flags(music, **{"targets": "mfcc39", "clusters": (CLUSTERS,)} | small | fields)


def write_random_codebook(folder: Path, features, music: Path, *, seed: int = 0) -> Path:
    """A codebook whose centroids are random frames of the collection's first crop of four seconds."""
    collection = open_collection(music)
    crop = read_crops([Crop(0, 0, 0)], [collection.splits["train"]], 4 * SECOND, features.margin)
    frames = np.asarray(jax.jit(features.apply)(features.kernels, crop))[0]
    chosen = frames[np.random.default_rng(seed).choice(len(frames), CLUSTERS, replace=False)]
    fitted = Codebook(
        centroids=chosen,
        front_end=front_end_of(features),
        data=fingerprints([collection]),
        settings={},
        inertia_curve=np.ones(3, np.float32),
        usage=np.ones(CLUSTERS, np.int32),
    )
    save_codebook(folder, fitted)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("labels")


@pytest.fixture(scope="module")
def codebook(music, folder):
    return write_random_codebook(folder / "codebook", make_front_end("mfcc39"), music)


@pytest.fixture(scope="module")
def labels(music, codebook, folder):
    """Made on two devices, three crops at a time on each: no track is a number of whole batches."""
    device = {"mesh__data": 2, "batch__per_device": 3}
    label([*flags(music, codebooks=codebook, **device), f"--output={folder / 'labels'}"])
    return folder / "labels"


@pytest.fixture(scope="module")
def run(music, codebook, folder):
    """A run that computed its labels in the step."""
    train([*flags(music, codebooks=codebook, steps=3, valid__every=3), f"--workdir={folder / 'run'}"])
    return folder / "run"


def opened(music, tmp_path, **fields):
    config = load(flags(music, **fields))[0]
    return open_targets(
        config, front_ends_of(config), tmp_path / "run", open_data(config), make_mesh(1, 1), lambda line: None
    )


def assert_same_but_for_near_ties(labels, expected, frames, centroids):
    """Labels are equal on 99.9% of frames at least, and elsewhere both centroids are equally near."""
    different = labels != expected
    assert different.mean() < 1e-3
    for frame, one, other in zip(frames[different], labels[different], expected[different], strict=True):
        near, far = (((frame - centroids[number]) ** 2).sum() for number in (one, other))
        np.testing.assert_allclose(near, far, rtol=1e-4)


@pytest.mark.parametrize("split", ["train", "valid"])
def test_labels_of_random_crops_are_those_of_the_step(music, labels, codebook, tmp_path, split):
    online, offline = (opened(music, tmp_path, codebooks=codebook, labels=given) for given in ("", labels))
    assert (offline.sets, offline.margin) == ((), 0)
    assert offline.ids == online.ids == tuple(map(codebook_id, offline.codebooks))
    crops = crop_batches(
        [open_collection(music)],
        split=split,
        crop_samples=SECOND,
        seed=3,
        clips=32,
        rows=range(32),
        margin=online.margin,
        annotate=offline.read_labels,
    )
    [target] = online.sets
    with contextlib.closing(crops):
        for batch in islice(crops, 3):
            from_files = batch.pop("labels")
            assert from_files.dtype == np.uint16 and from_files.shape == (32, FRAMES, 1)
            assert len(np.unique(from_files)) > CLUSTERS / 2
            frames, expected = (np.asarray(jax.jit(x)(batch)) for x in (target.features, target.labels))
            assert_same_but_for_near_ties(from_files[..., 0], expected, frames, load_codebook(codebook).centroids)


def test_labels_of_a_track_do_not_show_where_it_was_cut(mesh, tmp_path):
    """Tracks of whole crops and a half, of a whole number of them, shorter than a crop, than the margin, a frame."""
    tracks = noise_tracks([56_123, 3 * FRAMES * 320 + 80, 9000, 500, 399])
    split = open_collection(write_collection(tmp_path, {"train": tracks})).splits["train"]
    features = make_front_end("mfcc39")
    centroids = np.random.default_rng(0).normal(0, 9, (20, 39)).astype(np.float32)
    target = TargetSet(jax.tree.map(jnp.asarray, features.kernels), jnp.asarray(centroids), features.apply)
    of_crops = crop_labeller([target], mesh, crop_samples=SECOND, margin=features.margin, per_device=4, threads=1)
    found = track_labels(of_crops, split, range(5), sets=1, crop_samples=SECOND, grid=GRID)
    assert [len(labels) for labels in found] == [175, 147, 27, 1, 0]
    for track, samples in enumerate((56_123, 3 * FRAMES * 320 + 80, 9000, 500)):
        whole = read_crops([Crop(0, track, 0)], [split], samples, features.margin)
        frames, expected = (np.asarray(jax.jit(x)(whole))[0] for x in (target.features, target.labels))
        assert_same_but_for_near_ties(found[track][:, 0], expected, frames, centroids)


def test_the_last_window_of_a_track_reaches_back():
    assert windows(SECOND, SECOND, GRID) == [0]
    assert windows(3 * SECOND, SECOND, GRID) == [0, 49, 98, 149 - FRAMES]
    assert windows(SECOND // 2, SECOND, GRID) == [0]
    assert windows(100, SECOND, GRID) == []


def test_a_run_with_labels_from_files_is_the_run_that_computes_them(music, labels, run, tmp_path):
    train([*flags(music, labels=labels, steps=3, valid__every=3), f"--workdir={tmp_path / 'run'}"])
    online, offline = (read_metrics(folder / "metrics.jsonl") for folder in (run, tmp_path / "run"))
    names = [name for name in online if not name.startswith(("perf/", "time/"))]
    assert {"train/loss", "valid/loss", "mfcc39/accuracy"} <= set(names)
    for name in names:
        np.testing.assert_allclose(offline[name][1], online[name][1], rtol=1e-5, atol=1e-6, err_msg=name)
    [first], [second] = (read_codebooks(folder / "checkpoints/3") for folder in (run, tmp_path / "run"))
    assert codebook_id(first) == codebook_id(second)


def test_labels_of_a_layer_are_those_of_the_same_window_computed_offline(music, run, tmp_path, capsys):
    target = f"layer:1@{run}"
    features = make_features(target, load(flags(music, targets=target))[0])
    codebook = write_random_codebook(tmp_path / "codebook", features, music)
    of_layer = {"targets": target, "codebooks": codebook}
    label([*flags(music, **of_layer), f"--output={tmp_path / 'labels'}"])

    encode = load_encoder(str(run))
    [offline] = [opened(music, tmp_path, **of_layer, labels=tmp_path / "labels")]
    centroids = load_codebook(codebook).centroids
    collection = open_collection(music)
    split = collection.splits["train"]
    for track in range(2):
        length = int(split.tracks.lengths[track])
        pcm = np.empty(length, np.int16)
        split.read(track, 0, pcm)
        starts = [*range(0, length - SECOND, FRAMES * 320), GRID.count(length) * 320 - FRAMES * 320]
        for number, start in enumerate(starts[-3:]):
            audio = pcm[start : start + SECOND]
            hidden = encode(np.pad(audio, (0, SECOND - len(audio))), mean=0.0, std=1.0, window_seconds=1.0)["hidden"][1]
            place = precomputed.Place(collection.build_id, "train", track, start)
            found = offline.read_labels([place])["labels"][0, :, 0]
            if number == 1:  # its end was labelled in the last window
                found, hidden = found[:10], hidden[:10]
            expected = ((hidden[:, None] - centroids) ** 2).sum(-1).argmin(-1)
            assert_same_but_for_near_ties(found, expected, hidden, centroids)

    description = json.loads((tmp_path / "labels/labels.json").read_text())
    agreement = description["agreement"]["layer1"]
    assert 1 / CLUSTERS < agreement < 1
    assert f"layer1 {agreement:.2%}" in capsys.readouterr().out


def test_agreement_is_of_the_frames_that_two_crops_share(tmp_path):
    """Labels by the frame's place in the track agree, by its place in the crop never do; the third, where even."""
    split = open_collection(write_collection(tmp_path, {"train": noise_tracks([SECOND, 40_000, 30_000])})).splits
    seen = []

    def of_crops(_, crops):
        for track, start in crops:
            seen.append((track, start))
            in_crop = np.arange(FRAMES)
            in_track = in_crop + start // 320
            mixed = np.where(in_track % 2, in_crop, in_track)
            yield np.stack([in_track, in_crop, mixed], axis=1).astype(np.uint16)

    options = {"crop_samples": SECOND, "grid": GRID, "pairs": 40, "seed": 0}
    agreement = overlap_agreement(of_crops, split["train"], **options)
    np.testing.assert_allclose(agreement, [1, 0, 0.5], atol=0.03)
    assert {track for track, _ in seen} == {1, 2}  # in a second there is no second crop
    assert len({start for _, start in seen}) > 20 and all(start % 320 == 0 for _, start in seen)
    short = write_collection(tmp_path / "short", {"train": noise_tracks([SECOND])})
    assert overlap_agreement(of_crops, open_collection(short).splits["train"], **options) is None


def test_what_was_interrupted_goes_on_at_the_shard(music, labels, codebook, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(precomputed, "SHARD_BYTES", 500)
    command = [*flags(music, codebooks=codebook), f"--output={tmp_path / 'labels'}"]
    label(command)
    whole = contents(tmp_path / "labels")
    assert len(whole) == 1 + 2 + 4  # a shard for each track
    one = tmp_path / "labels/labels-train.array_record-00001-of-00003"
    one.rename(one.with_name(f".{one.name}.unfinished"))
    (tmp_path / "labels/labels.json").unlink()
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "labels").glob("labels-*")}
    label(command)
    assert contents(tmp_path / "labels") == whole
    assert all((tmp_path / "labels" / name).stat().st_mtime_ns == time for name, time in kept.items())
    capsys.readouterr()
    label(command)
    assert "all labels are there" in capsys.readouterr().out
    one.unlink()  # of a finished folder, as a damaged one would be
    label(command)
    assert one.read_bytes() == whole[one.name]
    few, many = (opened(music, tmp_path, labels=folder) for folder in (labels, tmp_path / "labels"))
    place = precomputed.Place(open_collection(music).build_id, "train", 2, SECOND)
    np.testing.assert_array_equal(*(targets.read_labels([place])["labels"] for targets in (few, many)))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(command, arguments, capsys) -> str:
    assert run_command(command, arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_labels_of_other_music_are_refused(labels, tmp_path):
    tracks = noise_tracks([40_000, 60_000])
    other = write_collection(tmp_path / "other", {"train": tracks}, record_samples=8000)
    with pytest.raises(UserError, match=rf"labels {labels} are of other music than {other}: .*musicssl label"):
        opened(other, tmp_path, labels=labels)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"clusters": (11,)}, "has 12 clusters and 11 are asked for"),
        ({"targets": "mfcc60"}, "are of mfcc39 and config.targets are mfcc60"),
        ({"targets": "mfcc39,chroma12", "clusters": (12, 6)}, "are of mfcc39 and config.targets are mfcc39, chroma12"),
        (
            {"model__conv_layers": ((16, 10, 5), *((16, 3, 2),) * 4, (16, 2, 2), (16, 1, 1))},
            "another frame rate than this run .16000 Hz with a hop of 320 and 16000 Hz with a hop of 160",
        ),
        ({"model__conv_layers": ((16, 10, 5), *((16, 3, 2),) * 6)}, "another front end than mfcc39: receptive_field"),
    ],
)
def test_labels_of_another_target_are_refused(music, labels, tmp_path, fields, reason):
    with pytest.raises(UserError, match=rf"labels {labels} .*{reason}"):
        opened(music, tmp_path, labels=labels, **fields)


def test_labels_of_another_codebook_are_refused(music, labels, tmp_path):
    other = write_random_codebook(tmp_path / "other", make_front_end("mfcc39"), music, seed=1)
    with pytest.raises(UserError, match=rf"{labels} are of other codebooks than config.codebooks={other}"):
        opened(music, tmp_path, labels=labels, codebooks=other)
    label([*flags(music, codebooks=other), f"--output={tmp_path / 'labels'}"])
    with pytest.raises(UserError, match="different codebooks: make both anew"):
        opened(f"{music},{music}", tmp_path, labels=f"{labels},{tmp_path / 'labels'}")
    opened(f"{music},{music}", tmp_path, labels=f"{labels},{labels}")


def test_a_layer_of_another_checkpoint_is_refused(music, labels, run, tmp_path):
    """Labels that say that they are of a checkpoint, and another one under the same name."""
    features = make_features(f"layer:1@{run}", load(flags(music))[0])
    other = {**front_end_of(features), "encoder_sha256": "0" * 64}
    content = json.loads((labels / "labels.json").read_text())
    content["sets"] = [{**content["sets"][0], "name": "layer1", "front_end": other}]
    shutil.copytree(labels, tmp_path / "labels")
    (tmp_path / "labels/labels.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="another front end than layer1: encoder_sha256 "):
        opened(music, tmp_path, labels=tmp_path / "labels", targets=f"layer:1@{run}")


def damage(labels: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A copy of the labels' folder, and its shard of train."""
    shutil.copytree(labels, tmp_path / "labels")
    return tmp_path / "labels", tmp_path / "labels/labels-train.array_record-00000-of-00001"


def test_a_missing_or_truncated_shard_is_refused(music, labels, tmp_path):
    folder, shard = damage(labels, tmp_path)
    shard.write_bytes(shard.read_bytes()[:-5])
    with pytest.raises(UserError, match=rf"shard {shard} has \d+ bytes instead of \d+.*musicssl label"):
        opened(music, tmp_path, labels=folder)
    shard.unlink()
    with pytest.raises(UserError, match=rf"shard {shard} is missing: .*musicssl label"):
        opened(music, tmp_path, labels=folder)


def test_a_folder_without_whole_labels_is_refused(music, labels, tmp_path):
    folder, _ = damage(labels, tmp_path)
    description = folder / "labels.json"
    whole = description.read_text()
    for damaged, reason in [
        (whole[:100], "is damaged"),
        (whole.replace('"format": 1', '"format": 2'), "has format 2, and this version reads 1"),
        (whole.replace('"records": 3', '"records": 2'), "is damaged .not every track of train has labels"),
        (whole.replace('"id": "', '"id": "0'), "is damaged .other id"),
    ]:
        description.write_text(damaged)
        with pytest.raises(UserError, match=f"{description} {reason}"):
            opened(music, tmp_path, labels=folder)
    description.unlink()
    with pytest.raises(UserError, match=rf"cannot read {description}: No such file.*interrupted"):
        opened(music, tmp_path, labels=folder)


def test_codebooks_beside_labels_are_those_of_the_labels(music, labels, tmp_path):
    """Folders of versions that did not keep them there will do."""
    folder, _ = damage(labels, tmp_path)
    [book] = read_codebooks(folder)
    shutil.rmtree(folder / "codebooks/0_mfcc39")
    assert opened(music, tmp_path, labels=folder).codebooks == ()
    save_codebook(folder / "codebooks/0_mfcc39", dataclasses.replace(book, centroids=book.centroids + 1))
    with pytest.raises(UserError, match=f"codebooks in {folder} are not those of its labels: copy it again"):
        opened(music, tmp_path, labels=folder)


def test_a_damaged_record_ends_training_with_its_name(music, labels, tmp_path, capsys):
    folder, shard = damage(labels, tmp_path)
    stored = bytearray(shard.read_bytes())
    at = stored.find(b'"track"')
    stored[at + 400] ^= 1
    shard.write_bytes(stored)
    said = refused(train, [*flags(music, labels=folder), f"--workdir={tmp_path / 'run'}"], capsys)
    assert f"record 0 of {shard}, the labels of track " in said and "cannot be used" in said


def test_a_record_of_another_track_or_with_fewer_labels_than_frames_is_refused(music, tmp_path):
    sets = [LabelSet("mfcc39", 5, "a codebook", {"front_end": "mfcc39"})]
    collection = open_collection(music)
    labels = new_labels(tmp_path, sets, collection, GRID)
    split = labels.splits["train"]
    [(file, _)] = split.shards
    of_tracks = [np.ones((count, 1), np.uint16) for count in split.frames]

    def reading(**changes) -> SplitLabels:
        return dataclasses.replace(split, **changes)

    write_shard(labels, "train", file, range(3), of_tracks)
    np.testing.assert_array_equal(reading().read(2), of_tracks[2])
    with pytest.raises(UserError, match=r'record 0 of .*\(track ".*" instead of ".*"\): copy it again'):
        reading(tracks=split.tracks[::-1]).read(0)
    with pytest.raises(UserError, match=r"record 1 of .*\(frames 399 instead of 400\)"):
        reading(frames=split.frames + 1).read(1)
    with pytest.raises(UserError, match=r'\(labels ".*" instead of "other"'):
        reading(labels="other").read(1)
    (tmp_path / file).unlink()
    write_shard(labels, "train", file, range(3), [of_tracks[0], of_tracks[1][:-3], of_tracks[2]])
    with pytest.raises(UserError, match=r"record 1 of .*\(it has 792 bytes of labels\)"):
        reading().read(1)
    with pytest.raises(UserError, match="mfcc39 gives NaN or infinite values for track "):
        write_shard(labels, "train", file, range(3), [5 * track for track in of_tracks])
    with pytest.raises(UserError, match="mfcc39 has 65536 clusters, and labels of 16 bits tell 65535 apart"):
        new_labels(tmp_path, [sets[0]._replace(clusters=65_536)], collection, GRID)


def test_the_command_refuses_what_it_cannot_label(music, labels, codebook, tmp_path, capsys):
    output = f"--output={tmp_path / 'labels'}"
    assert "config.codebooks is empty" in refused(label, [*flags(music), output], capsys)
    both = flags(f"{music},{music}", codebooks=codebook)
    assert "--output has 1 folders for 2 paths" in refused(label, [*both, output], capsys)
    assert "has no labels" in refused(label, ["--config=configs/music2vec.py:demo", output], capsys)
    assert not (tmp_path / "labels").exists()
    other = write_random_codebook(tmp_path / "other", make_front_end("mfcc39"), music, seed=1)
    of_other = [*flags(music, codebooks=other), f"--output={labels}"]
    assert f"{labels} holds other labels: choose another --output" in refused(label, of_other, capsys)
    folder, shard = damage(labels, tmp_path)
    (folder / "labels.json").unlink()
    said = refused(label, [*of_other[:-1], f"--output={folder}"], capsys)
    assert f"{shard} is not of these labels: choose another --output" in said


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"labels": "one,two"}, "config.labels has 2 folders for 1 paths in config.data.path"),
        ({"labels": "one", "data__crop_grid": 160}, "config.data.crop_grid=160: .* multiples of 320 samples"),
    ],
)
def test_configs_that_do_not_suit_labels_are_refused(fields, reason):
    with pytest.raises(UserError, match=reason):
        load(flags("music", **fields))
