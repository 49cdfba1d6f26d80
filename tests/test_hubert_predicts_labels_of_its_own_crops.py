"""musicHuBERT end to end: codebooks, labels computed in the step, training, resuming, iterating."""

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from collection_fixtures import noise_tracks, write_collection
from run_fixtures import hubert_flags, noise

from musicssl_jax import iterate
from musicssl_jax.cluster import main as cluster
from musicssl_jax.command import run_command
from musicssl_jax.config import load
from musicssl_jax.encoder_io import load_encoder
from musicssl_jax.errors import PREEMPTED, UserError
from musicssl_jax.models.hubert import nearest_unmasked
from musicssl_jax.models.objective import make_objective
from musicssl_jax.parallel import make_mesh
from musicssl_jax.targets.codebook import codebook_id, load_codebook, read_codebooks
from musicssl_jax.targets.open_targets import front_ends_of, make_features, open_targets, warn_of_wide_windows
from musicssl_jax.targets.target_set import TargetSet
from musicssl_jax.train import main as train
from musicssl_jax.training.batches import BatchPlan
from musicssl_jax.training.data import open_data
from musicssl_jax.training.metrics import read_metrics
from musicssl_jax.training.optimizer import make_optimizer, make_schedule
from musicssl_jax.training.resumable import check_codebooks, check_resumable
from musicssl_jax.training.step import batch_sharding, make_valid_step, sharded_state

SETS = ("mfcc39", "cqt84")


@pytest.fixture(scope="module")
def run(music, tmp_path_factory):
    """A run of twelve steps that fitted its own codebooks."""
    folder = tmp_path_factory.mktemp("hubert") / "run"
    train([*hubert_flags(music), f"--workdir={folder}"])
    return folder


def codebooks_of(run: Path) -> str:
    return ",".join(str(run / "codebooks" / name) for name in ("mfcc39_k12", "cqt84_k6"))


def curves(run: Path) -> dict[str, np.ndarray]:
    return {
        name: values
        for name, (_, values) in read_metrics(run / "metrics.jsonl").items()
        if not name.startswith(("perf/", "time/"))
    }


def test_a_run_without_codebooks_fits_its_own(run):
    for name, clusters, width in (("mfcc39", 12, 39), ("cqt84", 6, 84)):
        codebook = load_codebook(run / "codebooks" / f"{name}_k{clusters}")
        assert codebook.centroids.shape == (clusters, width)
    assert not list((run / "codebooks").glob(".*"))
    config = json.loads((run / "config.json").read_text())
    assert config["targets"] == list(SETS)


def test_each_set_is_logged_beside_what_copying_gives(run):
    logged = curves(run)
    for name in SETS:
        for part in ("loss", "accuracy", "copy_accuracy", "accuracy_at_1", "accuracy_at_5", "used"):
            assert np.isfinite(logged[f"{name}/{part}"]).all(), part
            assert f"valid/{name}/{part}" in logged
        entropy, chance = logged[f"{name}/label_entropy_bits"], logged[f"{name}/chance_bits"]
        assert (entropy <= chance + 1e-5).all() and (entropy > 0.5).all()
        np.testing.assert_allclose(logged[f"{name}/loss_bits"], logged[f"{name}/loss"] / np.log(2), rtol=1e-6)
    total = sum(logged[f"{name}/loss"] for name in SETS) + 10 * logged["features/penalty"]
    np.testing.assert_allclose(logged["train/loss"], total, rtol=1e-4)
    assert (run / "clip_labels.png").exists() and "What it is asked for" in (run / "report.html").read_text()


@pytest.mark.parametrize("name", ["mfcc39", "logmel229", "chroma24", "cqt84"])
def test_labels_of_a_crop_are_those_of_the_whole_track(name):
    """Whatever the crop, a frame has one label."""
    config = load(hubert_flags("unused"))[0]
    features = make_features(name, config)
    track = np.random.default_rng(0).integers(-9000, 9000, 16_000 * 3, dtype=np.int16)
    track[16_000:24_000] //= 50
    kernels = jax.tree.map(jnp.asarray, features.kernels)
    frames = np.asarray(jax.jit(features.apply)(kernels, whole_track(track, features.margin)))[0]
    centroids = frames[np.random.default_rng(1).choice(len(frames), 20, replace=False)]
    target = TargetSet(kernels, jnp.asarray(centroids), features.apply)
    labels = jax.jit(target.labels)
    whole = np.asarray(labels(whole_track(track, features.margin)))[0]
    for start in (0, 320, 6400, 320 * 77, len(track) - 16_000):
        crop = np.asarray(labels(crop_of(track, start, 16_000, features.margin)))[0]
        np.testing.assert_array_equal(crop, whole[start // 320 :][: len(crop)])


def whole_track(track, margin):
    return crop_of(track, 0, len(track), margin)


def crop_of(track, start, samples, margin):
    padded = np.pad(track, margin)
    around = padded[start : start + samples + 2 * margin]
    return {
        "audio": jnp.asarray(around[None, margin : margin + samples]),
        "before": jnp.asarray(around[None, :margin]),
        "after": jnp.asarray(around[None, margin + samples :]),
        "real_before": jnp.asarray([min(start, margin)], jnp.int32),
        "real_after": jnp.asarray([min(len(track) - start - samples, margin)], jnp.int32),
    }


def test_a_resumed_run_ends_like_an_uninterrupted_one(music, run, tmp_path, capsys):
    """Its codebooks are lost and its last checkpoint is damaged: the one before has both."""
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/codebooks")
    flip_a_bit(tmp_path / "run/checkpoints/12/codebooks/0_mfcc39/centroids.safetensors")
    train([*hubert_flags(music), f"--workdir={tmp_path / 'run'}"])
    said = capsys.readouterr()
    assert "codebooks/0_mfcc39/centroids.safetensors does not match its SHA-256" in said.err
    assert "going on from checkpoint 10" in said.err
    assert said.out.count("put back as it came with the parameters") == 2 and "fitted" not in said.out
    assert_same_run(run, tmp_path / "run")


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)


def assert_same_run(run: Path, other: Path) -> None:
    whole, again = curves(run), curves(other)
    for name, values in whole.items():
        np.testing.assert_array_equal(values, again[name], err_msg=name)
    texts = [(folder / "checkpoints/12/meta/metadata").read_text() for folder in (run, other)]
    first, second = (json.loads(text) for text in texts)
    assert first["leaves"] == second["leaves"] and first["meta"]["codebooks"] == second["meta"]["codebooks"]


@pytest.mark.long
def test_a_checkpoint_without_codebooks_goes_on_with_new_ones(music, run, tmp_path, capsys):
    """As versions wrote it that did not keep them there: fitting gives the same again."""
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/codebooks")
    shutil.rmtree(tmp_path / "run/checkpoints/12")
    forget_codebooks(tmp_path / "run/checkpoints/10")
    assert read_codebooks(tmp_path / "run/checkpoints/10") == []
    train([*hubert_flags(music), f"--workdir={tmp_path / 'run'}"])
    assert capsys.readouterr().out.count("fitted to random frames") == 2
    assert_same_run(run, tmp_path / "run")


def forget_codebooks(checkpoint: Path) -> None:
    shutil.rmtree(checkpoint / "codebooks")
    sums = checkpoint / "SHA256SUMS"
    lines = sums.read_text().splitlines(keepends=True)
    sums.write_text("".join(line for line in lines if "  codebooks/" not in line))


def test_a_checkpoint_alone_holds_the_codebooks(run, tmp_path):
    for step in ("10", "12"):
        shutil.copytree(run / "checkpoints" / step, tmp_path / step)
        books = read_codebooks(tmp_path / step)
        own = [load_codebook(folder) for folder in codebooks_of(run).split(",")]
        assert [codebook_id(book) for book in books] == [codebook_id(book) for book in own]
        for book, expected in zip(books, own, strict=True):
            assert (book.data, book.settings) == (expected.data, expected.settings)
            np.testing.assert_array_equal(book.inertia_curve, expected.inertia_curve)
            np.testing.assert_array_equal(book.usage, expected.usage)
        assert "codebooks/1_cqt84/centroids.safetensors" in (tmp_path / step / "SHA256SUMS").read_text()


@pytest.mark.long
def test_codebooks_fitted_beforehand_give_the_same_run(music, run, tmp_path):
    cluster([*hubert_flags(music), f"--output={tmp_path / 'books'}"])
    for name, own in zip(SETS, codebooks_of(run).split(","), strict=True):
        np.testing.assert_array_equal(load_codebook(tmp_path / "books" / name).centroids, load_codebook(own).centroids)
    cluster([*hubert_flags(music), f"--output={tmp_path / 'books'}"])  # again: there is nothing left to do
    books = f"{tmp_path / 'books' / 'mfcc39'},{tmp_path / 'books' / 'cqt84'}"
    train([*hubert_flags(music, codebooks=books, steps=3), f"--workdir={tmp_path / 'run'}"])
    assert curves(tmp_path / "run")["train/loss"][0] == curves(run)["train/loss"][0]


@pytest.mark.parametrize(("data", "fsdp", "per_device"), [(8, 1, 1), (2, 4, 1), (1, 1, 3)])
def test_meshes_and_micro_batches_agree(data, fsdp, per_device, whole_loss):
    loss, accuracy = evaluated(make_mesh(data, fsdp), per_device)
    np.testing.assert_allclose(loss, whole_loss[0], rtol=1e-5)
    np.testing.assert_allclose(accuracy, whole_loss[1], atol=1e-6)


@pytest.fixture(scope="module")
def whole_loss():
    return evaluated(make_mesh(1, 1), 8)


def evaluated(mesh, per_device):
    config = load(hubert_flags("unused", batch__per_device=per_device))[0]
    objective = make_objective(config)
    plan = BatchPlan(8, per_device, batch_sharding(mesh))
    with jax.set_mesh(mesh):
        optimizer = make_optimizer(config.optimizer, make_schedule(config.schedule, 10))
        state = sharded_state(objective, optimizer, mesh, 0)
        labels = np.random.default_rng(0).integers(0, 6, (len(plan.rows), 49, 2), dtype=np.int32)
        batch = plan.arrays(noise(plan.rows, 16_000, 0) | {"labels": labels})
        row = make_valid_step(objective, mesh, 0)(state, (), batch, 0)
    return float(row["loss"]), float(row["mfcc39/accuracy"])


def iterate_command(music: Path, workdir: Path, **fields) -> list[str]:
    """Of two iterations of three steps."""
    flags = hubert_flags(music, **{"steps": 3, "clusters": (6,)} | fields)
    return [
        "--first=configs/musichubert.py:k500_mfcc60",
        "--second=configs/musichubert.py:k2000_iter2",
        "--layer=1",
        f"--workdir={workdir}",
        *(flag for flag in flags if not flag.startswith(("--config=", "--config.targets"))),
    ]


@pytest.fixture(scope="module")
def iterated(music, tmp_path_factory):
    """The folder of two iterations, and what the command said."""
    folder = tmp_path_factory.mktemp("iterated")
    with contextlib.redirect_stdout(io.StringIO()) as said:
        iterate.main(iterate_command(music, folder))
    return folder, said.getvalue()


@pytest.mark.long
def test_the_second_iteration_predicts_a_layer_of_the_first(music, iterated, capsys):
    folder, said = iterated
    assert "layer1/loss" in curves(folder / "iteration2") and "mfcc60/loss" in curves(folder / "iteration1")
    agreement = load_codebook(folder / "iteration2/codebooks/layer1_k6").agreement
    assert 0.2 < agreement <= 1
    assert said.count("where two crops overlap by half") == 1  # of the layer alone
    assert f"labels agree on {agreement:.1%} of frames where two crops overlap by half" in said
    command = iterate_command(music, folder)
    iterate.main(command)
    assert capsys.readouterr().out.count("all 3 steps are done") == 2
    for flag, said in (("--layer=9", "has layers 1 to 2"), ("--second=configs/musichubert.py:none", "no such variant")):
        with pytest.raises(UserError, match=said):
            iterate.main([*command, flag])


@pytest.mark.long
def test_iterations_that_are_stopped_in_the_middle_go_on(music, tmp_path):
    """By SIGTERM while the second one's codebook is fitted: the same command ends as if it had not been, to the bit."""
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1"}

    def start(workdir: Path) -> subprocess.Popen:
        command = [sys.executable, "-m", "musicssl_jax.iterate", *iterate_command(music, workdir)]
        return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)

    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    uninterrupted = start(whole)
    process = start(stopped)
    deadline = time.monotonic() + 240
    while not (stopped / "iteration2/codebooks").exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == PREEMPTED and "the same command goes on" in said, said
    assert not (stopped / "iteration2/metrics.jsonl").exists()
    for process in (start(stopped), uninterrupted):
        said = process.communicate(timeout=240)[1]
        assert process.returncode == 0, said
    for iteration in ("iteration1", "iteration2"):
        losses = [curves(folder / iteration)["train/loss"] for folder in (whole, stopped)]
        np.testing.assert_array_equal(*losses)


def refused(arguments, workdir, capsys) -> str:
    assert run_command(train, [*arguments, f"--workdir={workdir}"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_codebooks_that_do_not_fit_are_refused(music, run, tmp_path, capsys):
    books = codebooks_of(run)
    swapped = ",".join(reversed(books.split(",")))
    said = refused(hubert_flags(music, codebooks=swapped), tmp_path, capsys)
    assert "cqt84_k6" in said and "has 84 dimensions and mfcc39 has 39" in said
    said = refused(hubert_flags(music, codebooks=books, clusters=(13, 6)), tmp_path, capsys)
    assert "has 12 clusters and 13 are asked for" in said
    noises = write_collection(
        tmp_path / "noise", {"train": noise_tracks([10 * 16_000])}, record_samples=8000, shard_bytes=10**9
    )
    said = refused(hubert_flags(noises, codebooks=books), tmp_path, capsys)
    assert f"was fitted on other data than {noises}" in said
    assert not (tmp_path / "config.json").exists()


def test_a_damaged_codebook_stops_a_resumed_run(music, run, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "run")
    centroids = tmp_path / "run/codebooks/mfcc39_k12/centroids.safetensors"
    flip_a_bit(centroids)
    assert "centroids.safetensors is damaged" in refused(hubert_flags(music, steps=20), tmp_path / "run", capsys)
    shutil.rmtree(centroids.parent)
    said = refused(hubert_flags(music, steps=20, seed=1), tmp_path / "run", capsys)
    assert "this run began with another config" in said and "seed 0 -> 1" in said
    assert not centroids.parent.exists()  # refused before another one was fitted


def test_more_clusters_than_frames_is_refused(music, tmp_path, capsys):
    said = refused(hubert_flags(music, clusters=(500, 6)), tmp_path, capsys)
    assert "config.clusters=500" in said and "initial_frames=400" in said


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"targets": "mfcc39,loudness"}, "config.targets="),
        ({"targets": "mfcc39"}, "config.clusters has 2 numbers for the 1 sets"),
        ({"targets": "mfcc39,mfcc39"}, "two sets have the same name"),
        ({"targets": "mfcc39,layer:6@"}, "name the run of the first iteration"),
        ({"targets": "mfcc39,layer:6@nowhere"}, "no checkpoint in nowhere"),
        ({"prediction__temperature": 0.0}, "config.prediction.temperature=0.0"),
        ({"codebooks": "one"}, "config.codebooks has 1 folders for the 2 sets"),
    ],
)
def test_targets_that_make_no_sense_are_refused(music, tmp_path, capsys, fields, said):
    assert said in refused(hubert_flags(music, **fields), tmp_path / "run", capsys)
    assert not (tmp_path / "run").exists()


def test_a_layer_that_the_run_lacks_is_refused(music, run, tmp_path, capsys):
    said = refused(hubert_flags(music, targets=f"mfcc39,layer:9@{run}"), tmp_path / "run", capsys)
    assert re.search("has layers 1 to 2, not 9", said)


def test_layer_targets_are_the_hidden_states_of_that_run(music, run, tmp_path):
    config = load(hubert_flags(music, targets=f"layer:1@{run}", clusters=(6,)))[0]
    features = make_features(f"layer:1@{run}", config)
    audio = np.random.default_rng(0).integers(-9000, 9000, 16_000, dtype=np.int16)
    batch = {"audio": audio[None], "mean": np.zeros(1, np.float32), "std": np.ones(1, np.float32)}
    got = jax.jit(features.apply)(features.kernels, batch)
    want = load_encoder(str(run))(audio, mean=0.0, std=1.0)["hidden"][1]
    np.testing.assert_allclose(got[0], want, atol=2e-5)


def test_a_run_without_a_teacher_has_no_teachers_weights(run):
    with pytest.raises(UserError, match="without a teacher"):
        load_encoder(str(run), weights="teacher")


def test_windows_wider_than_a_masked_span_are_mentioned(music, run):
    said = []
    config = load(hubert_flags(music, codebooks=codebooks_of(run)))[0]
    config_of_layer = load(hubert_flags(music, targets=f"mfcc39,layer:1@{run}"))[0]
    warn_of_wide_windows(config_of_layer, front_ends_of(config_of_layer), said.append)
    assert not said
    open_targets(config, front_ends_of(config), run, open_data(config), make_mesh(1, 1), said.append)
    [note] = said
    assert "cqt84 looks at 0.53 s, more than the 0.205 s of a masked span" in note


@pytest.mark.long
def test_a_regressed_front_end_joins_the_loss(music, run, tmp_path):
    train([*hubert_flags(music, codebooks=codebooks_of(run), regression="mfcc60", steps=2), f"--workdir={tmp_path}"])
    logged = curves(tmp_path)
    total = sum(logged[f"{name}/loss"] for name in SETS) + 10 * logged["features/penalty"]
    np.testing.assert_allclose(logged["train/loss"], total + logged["regression/loss"], rtol=1e-4)


def test_the_nearest_seen_frame_and_its_distance():
    mask = np.array([[False, True, True, True, False, True, True], [True, True, False, True, True, True, True]])
    nearest, distance = nearest_unmasked(jnp.asarray(mask))
    np.testing.assert_array_equal(nearest, [[0, 0, 0, 4, 4, 4, 4], [2, 2, 2, 2, 2, 2, 2]])
    np.testing.assert_array_equal(distance, [[0, 1, 2, 1, 0, 1, 2], [2, 1, 0, 1, 2, 3, 4]])


def test_accuracy_is_told_apart_by_distance(music):
    """A model that copies is right near the edge of a span and wrong inside: the sums say which is which."""
    config = load(hubert_flags(music, targets="mfcc39", clusters=(2,)))[0]
    objective = make_objective(config)
    mask = np.zeros((1, 12), bool)
    mask[0, 3:9] = True
    labels = np.zeros((1, 12, 1), np.int32)
    labels[0, 5:7] = 1
    where = np.array([[3, 4, 5, 6, 7, 8]])
    correct = np.array([1, 1, 0, 0, 1, 1], np.float32)[None, :, None]
    sums = objective._masked_sums(*map(jnp.asarray, (mask, labels, where, np.ones((1, 6), np.float32), correct)))
    np.testing.assert_array_equal(sums["at_distance"], [2, 2, 2, 0, 0])
    np.testing.assert_array_equal(sums["correct_at_distance"], [[2, 2, 0, 0, 0]])
    np.testing.assert_array_equal(sums["copied"], [4])


def test_runs_of_other_codebooks_do_not_mix():
    check_codebooks({"codebooks": ["a"]}, {"codebooks": ["a"]})
    with pytest.raises(UserError, match="other codebooks"):
        check_codebooks({"codebooks": ["a"]}, {"codebooks": ["b"]})


def test_the_run_of_a_layer_may_have_moved():
    there, here = ({"config": {"targets": [f"layer:6@{path}"]}, "data": []} for path in ("there", "here"))
    check_resumable(there, here, ())
    with pytest.raises(UserError, match="targets"):
        check_resumable(there, {"config": {"targets": ["layer:5@there"]}, "data": []}, ())


@pytest.mark.long
def test_a_run_can_begin_with_the_encoder_of_another(music, run, tmp_path, capsys):
    books = codebooks_of(run)
    slow = {"schedule__peak": 1e-9, "optimizer__weight_decay": 0.0, "steps": 1}
    train([*hubert_flags(music, codebooks=books, init_from=run, **slow), f"--workdir={tmp_path / 'run'}"])
    assert f"begins with {run}: taken encoder; new head, label_embeddings" in capsys.readouterr().out
    audio = np.random.default_rng(0).integers(-9000, 9000, 16_000, dtype=np.int16)
    first, second = (load_encoder(str(folder))(audio)["hidden"] for folder in (run, tmp_path / "run"))
    np.testing.assert_allclose(first, second, atol=1e-4)
    said = refused(hubert_flags(music, codebooks=books, init_from=run, model__width=48), tmp_path / "wide", capsys)
    assert "has another encoder than this config" in said and "width 32 there, 48 here" in said


@pytest.mark.parametrize("untied", [True, False])
def test_logits_are_torchs_cosines(untied):
    torch = pytest.importorskip("torch")
    config = load(hubert_flags("unused", prediction__untied=untied))[0]
    objective = make_objective(config)
    params = objective.init(jax.random.key(0))
    assert params["head"]["kernel"].shape == (32, 16 * (2 if untied else 1))
    x = np.random.default_rng(0).normal(size=(2, 5, 32)).astype(np.float32)
    labels = np.random.default_rng(1).integers(0, 6, (2, 5, 2))
    crosses, correct = objective._classify(objective.student(params), jnp.asarray(x), jnp.asarray(labels))
    projected = torch.tensor(x) @ torch.tensor(np.array(params["head"]["kernel"])) + torch.tensor(
        np.array(params["head"]["bias"])
    )
    embeddings = torch.tensor(np.array(params["label_embeddings"])).split([12, 6])
    for i, codes in enumerate(embeddings):
        own = projected[..., 16 * i : 16 * (i + 1)] if untied else projected
        logits = torch.cosine_similarity(own[:, :, None], codes, dim=-1) / 0.1
        want = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), torch.tensor(labels[..., i]).flatten(), reduction="none"
        )
        np.testing.assert_allclose(np.asarray(crosses[..., i]).ravel(), want, rtol=1e-4)
        np.testing.assert_array_equal(np.asarray(correct[..., i]), logits.argmax(-1).numpy() == labels[..., i])


def test_seen_frames_join_the_loss_when_they_are_weighed():
    """With both weights 1 the loss is the mean over all frames; labels and masks are given."""
    losses = {}
    for weights in ((1.0, 0.0), (0.0, 1.0), (1.0, 1.0)):
        config = load(
            hubert_flags("unused", prediction__masked_weight=weights[0], prediction__unmasked_weight=weights[1])
        )[0]
        objective = make_objective(config)
        params = objective.init(jax.random.key(0))
        mask = np.zeros((2, 49), bool)
        mask[:, 10:30] = True
        batch = {name: jnp.asarray(rows) for name, rows in noise([0, 1], 16_000, 0).items()}
        labels = np.random.default_rng(0).integers(0, 6, (2, 49, 2))
        batch |= {"mask": jnp.asarray(mask), "labels": jnp.asarray(labels)}
        batch |= {"weight": jnp.ones(2), "row": jnp.arange(2)}
        loss, (weight, _) = jax.jit(lambda p, b, o=objective: o.loss(p, {}, (), b, jax.random.key(0), train=False))(
            params, batch
        )
        assert weight == (40 if weights[0] else 0) + (58 if weights[1] else 0)
        losses[weights] = float(loss)
    np.testing.assert_allclose(losses[1.0, 1.0], losses[1.0, 0.0] + losses[0.0, 1.0], rtol=1e-5)
