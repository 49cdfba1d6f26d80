"""Real fairseq files come with objects of classes that are not here: they are read, and nothing in them is run."""

import functools
import os
import pickle
import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conversion_fixtures import assert_same_tensors, convert, fails, random_model, small_config
from fairseq_fixtures import content_of, fairseq_installed, with_classes

from musicssl_jax.errors import UserError
from musicssl_jax.interop.reading import read_pretrained
from musicssl_jax.interop.torch_files import to_numpy

torch = pytest.importorskip("torch", reason="fairseq's files are read and written with torch")

FORMATS = {"zip": True, "legacy": False}
formats = pytest.mark.parametrize("zipped", FORMATS.values(), ids=FORMATS)


def save(content, path: Path, *, zipped: bool = True) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def numbers(clusters: int) -> list[str]:
    return [str(k) for k in range(clusters)]


def hubert(tmp_path, **fields):
    model = random_model(small_config("hubert", fields))
    return model, content_of(model, tmp_path / "plain.pt")


def tensors(state) -> dict[str, np.ndarray]:
    return {name: to_numpy(value) for name, value in state.items() if name != "_ema"}


def written_again(path: Path, folder: Path) -> dict:
    """The file after a round trip through a run of ours."""
    run = convert(path, "jax", folder / "run")
    return torch.load(convert(run, "fairseq", folder / "again.pt"), weights_only=True)


def assert_comes_back(path: Path, state, folder: Path) -> None:
    """Every tensor by its name in the file, with its type and bits."""
    again = written_again(path, folder)["model"]
    assert_same_tensors(tensors(again), tensors(state))
    assert_same_tensors(tensors(again.get("_ema", {})), tensors(state.get("_ema", {})))


@formats
@pytest.mark.parametrize("options", ["omegaconf", "args", "plain"])
def test_a_real_hubert_file_is_read(tmp_path, options, zipped):
    """504 rows of label embeddings are 500 clusters; the dictionary says so."""
    model, content = hubert(tmp_path, clusters=(500,))
    assert content["model"]["label_embs_concat"].shape[0] == 504
    with fairseq_installed():
        path = save(with_classes(content, options, [numbers(500)]), tmp_path / "hubert.pt", zipped=zipped)
    read = read_pretrained(str(path))
    assert_same_tensors(read.params, model.params)
    assert read.config.clusters == (500,)
    assert read.step == 7 and not read.notes
    # The file says nothing of what only we have.
    assert read.config.model.to_dict() == model.config.model.to_dict()
    assert_comes_back(path, content["model"], tmp_path)


@formats
@pytest.mark.parametrize("options", ["omegaconf", "args", "plain"])
def test_a_real_data2vec_file_is_read(tmp_path, options, zipped):
    model = random_model(small_config("data2vec", {"teacher.average": "transformer", "teacher.decay": 0.5}))
    content = content_of(model, tmp_path / "plain.pt")
    with fairseq_installed():
        path = save(with_classes(content, options, []), tmp_path / "data2vec.pt", zipped=zipped)
    read = read_pretrained(str(path))
    assert_same_tensors(read.params, model.params)
    assert_same_tensors(read.teacher, model.teacher)
    assert read.config.teacher.to_dict() == model.config.teacher.to_dict()
    assert_comes_back(path, content["model"], tmp_path)


def test_clusters_are_found_by_their_numbers(tmp_path):
    """A dictionary made by counting lists the commonest cluster first: row and number are then not the same."""
    model, content = hubert(tmp_path, clusters=(5, 3), targets=("mfcc39", "cqt84"))
    straight = content["model"]["label_embs_concat"]
    listed = [["3", "0", "4", "1", "2"], ["2", "0", "1"]]
    rows = [*range(4), *(4 + int(k) for k in listed[0]), *range(9, 13), *(13 + int(k) for k in listed[1])]
    content["model"]["label_embs_concat"] = straight[rows]
    with fairseq_installed():
        path = save(with_classes(content, "omegaconf", listed), tmp_path / "hubert.pt")
    read = read_pretrained(str(path))
    np.testing.assert_array_equal(read.params["label_embeddings"], model.params["label_embeddings"])
    assert read.config.clusters == (5, 3)
    assert_comes_back(path, content["model"], tmp_path)


def test_without_dictionaries_the_user_says_which_rows_are_clusters(tmp_path, capfd):
    model, content = hubert(tmp_path, clusters=(12, 9), targets=("mfcc39", "cqt84"))
    path = save(content, tmp_path / "hubert.pt")
    for said in ({"clusters": (12, 9)}, {"clusters": (12, 9), "dictionary_rows": 4}):
        read = read_pretrained(str(path), **said)
        np.testing.assert_array_equal(read.params["label_embeddings"], model.params["label_embeddings"])
    guessed = read_pretrained(str(path))
    assert sum(guessed.config.clusters) == 12 + 9 + 8 and "--clusters" in guessed.notes[0]
    common = (f"--input={path}", "--to=jax", f"--output={tmp_path / 'out'}")
    assert "--clusters=12,8" in fails(capfd, *common, "--clusters=12,8")
    assert "--dictionary_rows=40" in fails(capfd, *common, "--dictionary_rows=40")
    assert "--clusters" in fails(capfd, *common, "--clusters=many")


@pytest.mark.parametrize("objective", ["hubert", "data2vec"])
def test_names_of_other_versions_come_back(tmp_path, objective):
    """The released data2vec has `final_proj.0`, old HuBERT files `label_embs`, new PyTorch its parametrizations."""
    other = {
        "final_proj.weight": "final_proj.0.weight",
        "final_proj.bias": "final_proj.0.bias",
        "label_embs_concat": "label_embs",
        "encoder.pos_conv.0.weight_g": "encoder.pos_conv.0.parametrizations.weight.original0",
        "encoder.pos_conv.0.weight_v": "encoder.pos_conv.0.parametrizations.weight.original1",
    }
    model = random_model(small_config(objective))
    content = content_of(model, tmp_path / "plain.pt")
    state = {other.get(name, name): tensor for name, tensor in content["model"].items()}
    assert state.keys() != content["model"].keys()
    with fairseq_installed():
        path = save(with_classes(content | {"model": state}, "omegaconf", [numbers(11)]), tmp_path / "old.pt")
    assert_same_tensors(read_pretrained(str(path)).params, model.params)
    assert_comes_back(path, state, tmp_path)


def half(state):
    return {name: tensor.half() for name, tensor in state.items() if name != "_ema"}


def test_half_precision_comes_back_beside_a_teacher_in_full(tmp_path):
    """fairseq trains in float16 and averages in float32."""
    model = random_model(small_config("data2vec"))
    content = content_of(model, tmp_path / "plain.pt")
    state = {**half(content["model"]), "_ema": content["model"]["_ema"]}
    path = save(content | {"model": state}, tmp_path / "half.pt")
    assert read_pretrained(str(path)).params["encoder/mask_embedding"].dtype == np.float32
    assert_comes_back(path, state, tmp_path)


@pytest.mark.parametrize("to", ["fairseq", "transformers", "jax"])
def test_the_teacher_of_a_half_precision_file_is_written_whole(tmp_path, to):
    """Its float32 values do not fit into the student's float16."""
    model = random_model(small_config("data2vec"))
    content = content_of(model, tmp_path / "plain.pt")
    state = {**half(content["model"]), "_ema": content["model"]["_ema"]}
    path = save(content | {"model": state}, tmp_path / "half.pt")
    read = read_pretrained(str(convert(path, to, tmp_path / "out", "--weights=teacher")))
    for name, value in model.teacher.items():
        np.testing.assert_array_equal(read.params[f"encoder/{name}"], value)


@formats
def test_bfloat16_comes_back(tmp_path, zipped):
    _, content = hubert(tmp_path)
    state = {name: tensor.bfloat16() for name, tensor in content["model"].items()}
    path = save(content | {"model": state}, tmp_path / "bfloat16.pt", zipped=zipped)
    assert_comes_back(path, state, tmp_path)


def test_tensors_that_have_no_place_here_come_back(tmp_path):
    model = random_model(small_config("data2vec"))
    content = content_of(model, tmp_path / "plain.pt")
    content["model"]["quantizer.vars"] = torch.arange(6.0).reshape(1, 2, 3)
    content["model"]["_ema"]["version"] = torch.tensor([3.0])
    path = save(content, tmp_path / "more.pt")
    assert "quantizer.vars" in read_pretrained(str(path)).notes[0]
    assert_comes_back(path, content["model"], tmp_path)


def test_hubert_without_a_projection_comes_back_without(tmp_path):
    """fairseq's HuBERT leaves it out where convolutions and transformer are equally wide."""
    model = random_model(small_config("hubert", {"model.conv_layers": ((5, 10, 5), (24, 3, 2))}))
    content = content_of(model, tmp_path / "plain.pt")
    state = {name: t for name, t in content["model"].items() if not name.startswith("post_extract_proj")}
    with fairseq_installed():
        path = save(with_classes(content | {"model": state}, "omegaconf", [numbers(11)]), tmp_path / "narrow.pt")
    np.testing.assert_array_equal(read_pretrained(str(path)).params["encoder/projection/kernel"], np.eye(24))
    assert_comes_back(path, state, tmp_path)


class Unknown:
    """Of a package that nobody here knows."""


class Calls:
    """Unpickled by the pickle module, it calls the function."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


SENTINEL = "sentinel"
TOUCH = f"touch {SENTINEL}"
PYTHON = f"open({SENTINEL!r}, 'w').close()"
HOSTILE = {
    "os.system": lambda: Calls(os.system, TOUCH),
    "eval": lambda: Calls(eval, PYTHON),
    "exec": lambda: Calls(exec, PYTHON),
    "subprocess": lambda: Calls(subprocess.check_call, ["touch", SENTINEL]),
    "getattr": lambda: Calls(functools.reduce, getattr, [Unknown, "__class__"]),
    "getattr of an allowed class": lambda: Calls(getattr, torch.Tensor, "__class__"),
    "import": lambda: Calls(__import__, "this"),
    "open": lambda: Calls(open, SENTINEL, "w"),
    "shutil": lambda: Calls(shutil.copy, __file__, SENTINEL),
    "nested": lambda: {"cfg": [(1, {"x": Calls(os.system, TOUCH)})]},
    "unknown class": Unknown,
    "torch.load": lambda: Calls(torch.load, SENTINEL),
}


@formats
@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_a_file_that_would_run_code_is_refused(tmp_path, capfd, monkeypatch, hostile, zipped):
    monkeypatch.chdir(tmp_path)
    _, content = hubert(tmp_path)
    path = save({**content, "extra_state": hostile()}, tmp_path / "hostile.pt", zipped=zipped)
    said = fails(capfd, f"--input={path}", "--to=jax", "--output=out")
    assert "refused" in said and "run any program" in said
    assert not Path(SENTINEL).exists() and not Path("out").exists()


def test_the_hostile_files_would_have_run(tmp_path, monkeypatch):
    """What is refused above does its harm where a file is opened without care."""
    monkeypatch.chdir(tmp_path)
    for name in ("os.system", "eval", "exec", "subprocess", "open", "shutil"):
        pickle.loads(pickle.dumps(HOSTILE[name]()))
        assert Path(SENTINEL).exists(), name
        Path(SENTINEL).unlink()


def test_a_class_of_an_allowed_name_is_not_the_real_one(tmp_path):
    """Nothing of a package of that name is ever called, were it installed."""
    with fairseq_installed():
        import fairseq.data.dictionary as module

        def harm(self, state):
            raise AssertionError("the real class was built")

        module.Dictionary.__setstate__ = harm
        _, content = hubert(tmp_path)
        path = save(with_classes(content, "omegaconf", [numbers(11)]), tmp_path / "hubert.pt")
        assert read_pretrained(str(path)).config.clusters == (11,)


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_of_another_program_is_not_opened(tmp_path, monkeypatch, protocol):
    monkeypatch.chdir(tmp_path)
    Path("model.pt").write_bytes(pickle.dumps({"model": Calls(os.system, TOUCH)}, protocol=protocol))
    with pytest.raises(UserError, match="pickle that PyTorch did not write"):
        read_pretrained("model.pt")
    assert not Path(SENTINEL).exists()


@pytest.mark.parametrize(
    "entry", ["../evil.txt", "model/../../evil.txt", "/tmp/evil.txt", "..\\evil.txt", "C:\\evil.txt"]
)
def test_an_archive_whose_names_lead_out_of_it_is_refused(tmp_path, capfd, entry):
    _, content = hubert(tmp_path)
    path = save(content, tmp_path / "model.pt")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(zipfile.ZipInfo(entry), b"evil")
    said = fails(capfd, f"--input={path}", "--to=jax", f"--output={tmp_path / 'out'}")
    assert "leads out of it" in said and not (tmp_path / "out").exists()
    assert not list(tmp_path.parent.glob("evil*"))
