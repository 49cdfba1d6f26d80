"""`config.init_from`: the encoder of any kind of model, or all that fits; what was taken is said."""

import shutil

import jax
import numpy as np
import pytest
from run_fixtures import HUBERT, TINY, hubert_flags, tiny_config

from musicssl_jax.config import load
from musicssl_jax.convert import main as convert
from musicssl_jax.errors import UserError
from musicssl_jax.interop.reading import read_pretrained
from musicssl_jax.models.objective import make_objective
from musicssl_jax.parallel import path_name
from musicssl_jax.targets.open_targets import front_ends_of
from musicssl_jax.train import train
from musicssl_jax.training.optimizer import make_optimizer, make_schedule
from musicssl_jax.training.step import sharded_state
from musicssl_jax.training.warm_start import warm_start

ONE_STEP = {"steps": 1, "valid__every": 100, "data__threads": 0}


@pytest.fixture(scope="module")
def run(music, tmp_path_factory):
    """A run of music2vec after one step: its teacher is no longer its student."""
    folder = tmp_path_factory.mktemp("begun") / "run"
    train(tiny_config(music, **ONE_STEP), folder)
    return folder


@pytest.fixture(scope="module")
def hubert_run(music, tmp_path_factory):
    folder = tmp_path_factory.mktemp("begun_hubert") / "run"
    train(load(hubert_flags(music, **ONE_STEP))[0], folder)
    return folder


def begun(config, found):
    """(parameters, teacher, codebooks, what was said) of a run that begins with `found`."""
    objective = make_objective(config)
    optimizer = make_optimizer(config.optimizer, make_schedule(config.schedule, config.steps))
    mesh = jax.make_mesh((1, 1), ("data", "fsdp"), devices=jax.devices()[:1])
    with jax.set_mesh(mesh):
        state = sharded_state(objective, optimizer, mesh, config.seed)
        start = warm_start(state, objective, config, found, front_ends_of(config))
    return named(start.state.params), named(start.state.teacher), start.codebooks, start.said


def named(tree) -> dict[str, np.ndarray]:
    return {path_name(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def assert_taken(params, found, prefix: str) -> None:
    names = [name for name in found if name.startswith(prefix)]
    assert names
    for name in names:
        np.testing.assert_array_equal(params[name], found[name], err_msg=name)


@pytest.mark.parametrize("kind", ["run", "jax", "transformers", "fairseq"])
def test_all_of_a_model_is_taken_whatever_it_lies_in(run, tmp_path, kind):
    source = run
    if kind != "run":
        if kind == "fairseq":
            pytest.importorskip("torch", reason="fairseq's files are written with torch")
        source = tmp_path / "model.pt" if kind == "fairseq" else tmp_path / "model"
        convert([f"--input={run}", f"--to={kind}", f"--output={source}"])
    found = read_pretrained(str(run))
    config = tiny_config(init_from=str(source), init_parts="all", seed=5)
    params, teacher, _, said = begun(config, read_pretrained(str(source)))
    assert_taken(params, found.params, "")
    assert_taken(teacher, found.teacher, "")
    assert any(np.any(teacher[name] != params[f"encoder/{name}"]) for name in teacher)
    assert "taken encoder, head, the teacher; new nothing; ignored nothing" in said


def test_the_trunk_leaves_heads_and_teacher_new(run):
    found = read_pretrained(str(run))
    params, teacher, _, said = begun(tiny_config(init_from=str(run), seed=5), found)
    assert_taken(params, found.params, "encoder/")
    assert np.any(params["head/kernel"] != found.params["head/kernel"])
    for name, value in teacher.items():
        np.testing.assert_array_equal(value, params[f"encoder/{name}"], err_msg=name)
    assert "taken encoder; new head, the teacher, as the student; ignored head, the teacher" in said


@pytest.mark.long
def test_label_embeddings_come_with_their_codebooks(hubert_run, music, tmp_path, capsys):
    found = read_pretrained(str(hubert_run))
    assert [len(codebook.centroids) for codebook in found.codebooks] == [12, 6]
    folder = tmp_path / "transformers"
    convert([f"--input={hubert_run}", "--to=transformers", f"--output={folder}", "--license=mit"])
    shutil.rmtree(folder / "codebooks")  # for people; what a run begins with lies beside the model
    flags = hubert_flags(music, init_from=folder, init_parts="all", seed=5, **ONE_STEP)
    train(load(flags)[0], tmp_path / "again")
    said = capsys.readouterr().out
    assert "taken encoder, head, label_embeddings; new nothing; ignored nothing" in said
    assert "fitted to random frames" not in said
    again = read_pretrained(str(tmp_path / "again"))
    for one, other in zip(found.codebooks, again.codebooks, strict=True):
        np.testing.assert_array_equal(one.centroids, other.centroids)


def test_label_embeddings_of_other_clusters_are_new(hubert_run):
    found = read_pretrained(str(hubert_run))
    config = load(hubert_flags("unused", init_from=hubert_run, init_parts="all", clusters=(12, 7)))[0]
    params, _, codebooks, said = begun(config, found)
    assert_taken(params, found.params, "head/")
    assert params["label_embeddings"].shape == (19, HUBERT["prediction.width"])
    assert codebooks == ()
    assert "taken encoder, head; new label_embeddings; ignored label_embeddings" in said


def test_label_embeddings_of_another_front_end_are_new(hubert_run):
    """Clusters of the same number, of something else."""
    found = read_pretrained(str(hubert_run))
    config = load(hubert_flags("unused", init_from=hubert_run, init_parts="all", targets="mfcc39,chroma12"))[0]
    _, _, codebooks, said = begun(config, found)
    assert codebooks == ()
    assert "taken encoder, head; new label_embeddings" in said


def test_another_encoder_is_refused_by_its_fields(run):
    found = read_pretrained(str(run))
    config = tiny_config(init_from=str(run), model__width=48)
    with pytest.raises(UserError, match=f"width {TINY['model.width']} there, 48 here"):
        begun(config, found)


def test_a_converted_model_is_not_resumed(run, music, tmp_path):
    convert([f"--input={run}", "--to=jax", f"--output={tmp_path / 'converted'}"])
    with pytest.raises(UserError, match="begin a run with it, --config.init_from"):
        train(tiny_config(music, **ONE_STEP | {"steps": 2}), tmp_path / "converted")
