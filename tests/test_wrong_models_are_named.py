"""What is given as a model and is none ends in one line that says what it seems to be, and nothing is left behind."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from checkpoint_fixtures import same_imports
from conversion_fixtures import convert, fails, random_model, save_run, small_config
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from musicssl_jax.errors import UserError
from musicssl_jax.interop.reading import read_pretrained
from musicssl_jax.targets.codebook import save_codebook

torch = pytest.importorskip("torch", reason="fairseq's files are read and written with torch")

LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123456789abcdef\nsize 377000000\n"
WEB_PAGE = b"<!DOCTYPE html><html><head><title>Not found</title></head><body>404</body></html>\n"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run, and the same model in every other format."""
    folder = tmp_path_factory.mktemp("whole")
    run = save_run(folder / "run", random_model(small_config("hubert")))
    convert(run, "fairseq", folder / "model.pt")
    convert(run, "transformers", folder / "transformers")
    content = torch.load(folder / "model.pt", weights_only=True)
    del content["musicssl"]
    torch.save(content, folder / "legacy.pt", _use_new_zipfile_serialization=False)
    return folder


@pytest.fixture
def refused(tmp_path, capfd):
    """Converts in vain; what is said of it. Nothing is left where the output was wanted."""

    def refused(source: Path, *more: str, to: str = "jax") -> str:
        output = tmp_path / "outputs" / "out"
        said = fails(capfd, f"--input={source}", f"--to={to}", f"--output={output}", *more)
        assert not output.parent.exists() or not os.listdir(output.parent)
        return said

    return refused


def cut(path: Path, share: float, into: Path) -> Path:
    content = path.read_bytes()
    into.write_bytes(content[: int(share * len(content))])
    return into


@pytest.mark.parametrize("share", [0.0001, 0.02, 0.3, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("name", ["model.pt", "legacy.pt"])
def test_a_fairseq_file_that_is_cut_short(whole, tmp_path, refused, name, share):
    said = refused(cut(whole / name, share, tmp_path / "cut.pt"))
    assert "cut.pt" in said
    assert any(words in said for words in ("damaged or cut short", "empty", "no checkpoint that is known"))


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.02, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "musicssl.json", "musicssl.safetensors"])
def test_a_transformers_folder_with_a_file_that_is_cut_short(whole, tmp_path, refused, name, share):
    folder = shutil.copytree(whole / "transformers", tmp_path / "folder")
    cut(folder / name, share, folder / name)
    said = refused(folder)
    assert name in said and ("damaged" in said or "cannot be read" in said or "empty" in said)


def test_a_flipped_bit_among_the_parameters_is_noticed(whole, tmp_path, refused):
    """PyTorch itself would read it as another model."""
    parameter = read_pretrained(str(whole / "model.pt")).params["encoder/mask_embedding"].tobytes()
    content = bytearray((whole / "model.pt").read_bytes())
    content[content.index(parameter) + 3] ^= 1
    (tmp_path / "flipped.pt").write_bytes(content)
    assert "differs from its checksum" in refused(tmp_path / "flipped.pt")


def test_a_run_that_is_cut_short(whole, tmp_path, capfd):
    run = shutil.copytree(whole / "run", tmp_path / "run")
    data = max((run / "checkpoints" / "7" / "state").rglob("d/*"), key=lambda path: path.stat().st_size)
    cut(data, 0.5, data)
    output = tmp_path / "out"
    with pytest.raises(UserError, match="no checkpoint in .* is whole"):
        read_pretrained(str(run))
    assert "is damaged" in capfd.readouterr().err
    assert not output.exists()


SEEMINGLY = {
    "empty": (b"", "is empty"),
    "web page": (WEB_PAGE, "web page"),
    "web page after a blank line": (b"\n" + WEB_PAGE, "web page"),
    "Git LFS pointer": (LFS_POINTER, "git lfs pull"),
    "JSON": (b'{\n  "model_type": "hubert"}', "JSON"),
    "gzip": (b"\x1f\x8b\x08\x00rest", "gzip"),
    "text": (b"a list of things\n", "no checkpoint that is known"),
    "NumPy": (b"\x93NUMPY\x01\x00v\x00{'descr'", "NumPy"),
    "torn zip": (b"PK\x03\x04\x00\x00rest", "damaged or cut short"),
}


@pytest.mark.parametrize(("content", "seems"), SEEMINGLY.values(), ids=SEEMINGLY)
@pytest.mark.parametrize("name", ["model.pt", "model.pth", "model"])
def test_other_files(tmp_path, refused, content, seems, name):
    (tmp_path / name).write_bytes(content)
    said = refused(tmp_path / name)
    assert seems in said and f"{tmp_path / name}" in said


def test_music_as_a_model(tmp_path, refused):
    for extension, seems in (("wav", "WAV"), ("flac", "FLAC"), ("ogg", "Ogg")):
        soundfile.write(tmp_path / f"song.{extension}", np.zeros(4000, np.float32), 16000)
        renamed = (tmp_path / f"song.{extension}").rename(tmp_path / "song.pt")
        assert f"a {seems} file" in refused(renamed).replace("an Ogg", "a Ogg")


def test_renamed_files(whole, tmp_path, refused):
    shutil.copy(whole / "transformers" / "model.safetensors", tmp_path / "model.pt")
    assert "safetensors" in refused(tmp_path / "model.pt")
    assert "give its folder" in refused(whole / "transformers" / "model.safetensors")
    assert "JSON" in refused(whole / "transformers" / "config.json")
    with zipfile.ZipFile(tmp_path / "some.pt", "w") as archive:
        archive.writestr("folder/config.json", "{}")
    assert "zip archive" in refused(tmp_path / "some.pt")


@pytest.mark.parametrize("content", [WEB_PAGE, LFS_POINTER, b""], ids=["web page", "Git LFS pointer", "empty"])
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_parameters_of_a_folder_that_are_something_else(whole, tmp_path, refused, content, name):
    """What is left of a folder that was cloned without Git LFS, or saved from a browser."""
    folder = tmp_path / "folder"
    folder.mkdir()
    shutil.copy(whole / "transformers" / "config.json", folder)
    (folder / name).write_bytes(content)
    said = refused(folder)
    words = {WEB_PAGE: "web page", LFS_POINTER: "git lfs pull", b"": "is empty"}[content]
    assert words in said and name in said


def test_state_dicts_without_a_config(whole, tmp_path, refused):
    names = ("feature_projection.layer_norm.weight", "encoder.layers.0.layer_norm.bias")
    transformers = {name: torch.ones(3) for name in names}
    torch.save(transformers, tmp_path / "transformers.pt")
    assert "transformers model; give its folder" in refused(tmp_path / "transformers.pt")
    content = torch.load(whole / "model.pt", weights_only=True)
    torch.save(content["model"], tmp_path / "bare.pt")
    assert "without its options (cfg)" in refused(tmp_path / "bare.pt")
    torch.save({"model": content["model"]}, tmp_path / "nameless.pt")
    assert "neither cfg nor args" in refused(tmp_path / "nameless.pt")
    torch.save({"state_dict": content["model"], "epoch": 3}, tmp_path / "other.pt")
    assert "a dict of epoch; state_dict" in refused(tmp_path / "other.pt")
    torch.save(torch.ones(3), tmp_path / "tensor.pt")
    assert "a Tensor" in refused(tmp_path / "tensor.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    assert "a list" in refused(tmp_path / "list.pt")


def changed(whole: Path, into: Path, *, tensors=lambda state: state, **options) -> Path:
    """fairseq's file with other options of the model, or with other tensors."""
    content = torch.load(whole / "legacy.pt", weights_only=True)
    content["cfg"]["model"] |= options
    content["model"] = tensors(content["model"])
    torch.save(content, into)
    return into


def test_other_models_of_fairseq(whole, tmp_path, refused):
    path = tmp_path / "other.pt"
    assert "'wav2vec2'; known: data2vec_audio, hubert" in refused(changed(whole, path, _name="wav2vec2"))
    assert "'hubert_ctc'" in refused(changed(whole, path, _name="hubert_ctc"))
    fine_tuned = changed(whole, path, tensors=lambda m: {f"w2v_encoder.w2v_model.{n}": t for n, t in m.items()})
    assert "fine-tuned" in refused(fine_tuned)


WRONG_OPTIONS = {
    "encoder_embed_dim": (48, "instead of"),
    "encoder_layers": (3, "encoder.layers.2.self_attn.q_proj.weight is missing"),
    "encoder_attention_heads": (7, "does not divide"),
    "conv_feature_layers": ("__import__('os').system('true')", "conv_feature_layers"),
    "activation_fn": ("relu", "activation_fn='relu'"),
    "layer_type": ("conformer", "layer_type='conformer'"),
}


@pytest.mark.parametrize(("field", "value", "words"), [(name, *wrong) for name, wrong in WRONG_OPTIONS.items()])
def test_options_of_fairseq_that_do_not_fit(whole, tmp_path, refused, field, value, words):
    said = refused(changed(whole, tmp_path / "wrong.pt", **{field: value}))
    assert words in said and "wrong.pt" in said


def test_a_missing_tensor_is_named(whole, tmp_path, refused):
    def without(state):
        return {name: tensor for name, tensor in state.items() if name != "encoder.layers.1.fc1.weight"}

    said = refused(changed(whole, tmp_path / "less.pt", tensors=without))
    assert "encoder.layers.1.fc1.weight is missing" in said and "less.pt" in said
    from safetensors.numpy import load_file, save_file

    folder = shutil.copytree(whole / "transformers", tmp_path / "folder")
    tensors = load_file(folder / "model.safetensors")
    del tensors["encoder.layers.0.final_layer_norm.bias"]
    save_file(tensors, folder / "model.safetensors")
    assert "encoder.layers.0.final_layer_norm.bias is missing" in refused(folder)


WRONG_CONFIGS = {
    "another model": ({"model_type": "wav2vec2"}, "'wav2vec2'; known: data2vec-audio, hubert"),
    "no model": ({"model_type": None}, "None"),
    "a list of models": ({"model_type": ["hubert"]}, "['hubert']"),
    "wrong width": ({"hidden_size": 36}, "instead of"),
    "no width": ({"hidden_size": 0}, "at least 1"),
    "negative blocks": ({"num_hidden_layers": -2}, "at least 1"),
    "too many blocks": ({"num_hidden_layers": 3}, "is missing"),
    "text": ({"intermediate_size": "large"}, "makes no sense"),
    "infinite": ({"intermediate_size": float("inf")}, "makes no sense"),
    "uneven lists": ({"conv_dim": [5, 6]}, "makes no sense"),
    "no convolutions": ({"conv_dim": [], "conv_kernel": [], "conv_stride": []}, "conv_layers"),
    "another activation": ({"hidden_act": "relu"}, "hidden_act='relu'"),
    "another norm": ({"feat_extract_norm": "batch"}, "conv_norm"),
    "heads": ({"num_attention_heads": 7}, "does not divide"),
}


@pytest.mark.parametrize(("fields", "words"), WRONG_CONFIGS.values(), ids=WRONG_CONFIGS)
def test_a_config_that_does_not_fit(whole, tmp_path, refused, fields, words):
    folder = shutil.copytree(whole / "transformers", tmp_path / "folder")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | fields))
    said = refused(folder)
    assert words in said and str(folder) in said


def test_a_preprocessor_that_makes_no_sense(whole, tmp_path, refused):
    folder = shutil.copytree(whole / "transformers", tmp_path / "folder")
    (folder / "preprocessor_config.json").write_text('{"sampling_rate": "high"}')
    assert "preprocessor_config.json" in refused(folder)


def test_what_was_kept_beside_another_model_is_not_used(whole, tmp_path):
    """Somebody put the parameters of another size into the folder."""
    folder = shutil.copytree(whole / "transformers", tmp_path / "folder")
    other = random_model(small_config("hubert", {"model.width": 36}))
    run = save_run(tmp_path / "run", other)
    convert(run, "transformers", tmp_path / "other")
    for name in ("config.json", "model.safetensors"):
        shutil.copy(tmp_path / "other" / name, folder / name)
    read = read_pretrained(str(folder))
    assert "belongs to another model" in read.notes[0]
    assert read.config.model.width == 36 and read.params["encoder/projection/bias"].shape == (36,)


def test_what_was_kept_and_is_damaged_is_named(whole, tmp_path, refused):
    folder = shutil.copytree(whole / "transformers", tmp_path / "folder")
    for content in ('{"format": 1}', '{"format": 99}', '{"format": 1, "config": 3}', '{"format": 1, "config": {}}'):
        (folder / "musicssl.json").write_text(content)
        assert "musicssl.json" in refused(folder)


def test_other_folders(whole, tmp_path, refused, music):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "want a run's folder" in refused(empty)
    assert "no checkpoint in" in refused(tmp_path / "nowhere")
    save_codebook(tmp_path / "codes", read_pretrained(str(whole / "run")).codebooks[0])
    assert "codebook" in refused(tmp_path / "codes")
    assert "built music" in refused(Path(music))
    young = tmp_path / "young"
    (young / "checkpoints").mkdir(parents=True)
    assert "no checkpoint in" in refused(young)
    (tmp_path / "younger").mkdir()
    (tmp_path / "younger" / "config.json").write_text('{"objective": "hubert"}')
    assert "no checkpoint yet" in refused(tmp_path / "younger")
    (tmp_path / "empty" / "config.json").write_text("{}")
    assert "no model_type" in refused(empty)
    (tmp_path / "files").mkdir()
    shutil.copy(whole / "model.pt", tmp_path / "files" / "model.pt")
    assert "give that file" in refused(tmp_path / "files")
    (tmp_path / "bare").mkdir()
    shutil.copy(whole / "transformers" / "model.safetensors", tmp_path / "bare")
    assert "no config.json" in refused(tmp_path / "bare")
    shutil.copy(whole / "transformers" / "config.json", tmp_path / "bare")
    (tmp_path / "bare" / "model.safetensors").unlink()
    assert "neither model.safetensors nor" in refused(tmp_path / "bare")


@pytest.mark.parametrize(
    "name", ["../model.safetensors", "/etc/passwd", "..", ".", "", "sub/model.safetensors", "..\\x"]
)
def test_an_index_that_names_files_elsewhere_is_refused(whole, tmp_path, refused, name):
    folder = tmp_path / "inside" / "folder"
    shutil.copytree(whole / "transformers", folder)
    (folder / "model.safetensors").rename(folder.parent / "model.safetensors")
    index = {"weight_map": {"masked_spec_embed": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    said = refused(folder)
    assert "refused" in said and repr(name) in said


@pytest.mark.parametrize(
    "index", ["[]", "{}", '{"weight_map": []}', '{"weight_map": {}}', '{"weight_map": {"a": "b.safetensors"}}']
)
def test_an_index_that_makes_no_sense(whole, tmp_path, refused, index):
    folder = shutil.copytree(whole / "transformers", tmp_path / "folder")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(index)
    assert "folder" in refused(folder)


@pytest.mark.parametrize("to", ["jax", "transformers", "fairseq"])
def test_an_output_that_is_there_is_left_alone(whole, tmp_path, capfd, to):
    folder, file = tmp_path / "folder", tmp_path / "file"
    folder.mkdir()
    (folder / "mine").write_text("mine")
    file.write_text("mine")
    for output in (folder, file):
        said = fails(capfd, f"--input={whole / 'run'}", f"--to={to}", f"--output={output}")
        assert "is there already" in said and str(output) in said
    assert file.read_text() == "mine" and os.listdir(folder) == ["mine"]


@pytest.mark.parametrize("to", ["jax", "transformers", "fairseq"])
def test_an_output_that_cannot_be_written(whole, tmp_path, capfd, to):
    (tmp_path / "file").write_text("")
    said = fails(capfd, f"--input={whole / 'run'}", f"--to={to}", f"--output={tmp_path / 'file' / 'out'}")
    assert str(tmp_path / "file") in said
    assert os.listdir(tmp_path) == ["file"]


# The import is what takes long: the limit must not be in force by then.
FULL_DISK = """
import resource, signal, sys
import jax, matplotlib.pyplot, torch
from musicssl_jax.command import run_command
from musicssl_jax.convert import main

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (12000, 12000))
sys.exit(run_command(main))
"""


@pytest.mark.long
@pytest.mark.parametrize("to", ["jax", "transformers", "fairseq"])
def test_nothing_half_written_is_left_on_a_full_disk(whole, tmp_path, to):
    """No file may be longer than what a part of the parameters takes, as if the disk were full."""
    outputs = tmp_path / "outputs"
    arguments = [f"--input={whole / 'run'}", f"--to={to}", f"--output={outputs / 'out'}"]
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, *arguments],
        capture_output=True,
        text=True,
        env=same_imports() | {"JAX_COMPILATION_CACHE_DIR": ""},
    )
    assert done.returncode == 2, done.stderr
    # Threads of Orbax whose writes fail after the first say so, before our line or behind it.
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and errors[0].startswith("error: cannot write"), done.stderr
    assert not outputs.exists() or not os.listdir(outputs)


def test_flags_that_make_no_sense(whole, tmp_path, capfd):
    common = (f"--input={whole / 'run'}", f"--output={tmp_path / 'out'}")
    assert "--to" in fails(capfd, *common)
    assert "invalid choice" in fails(capfd, *common, "--to=onnx")
    (tmp_path / "scores.json").write_text("[1, 2]")
    for scores in ("scores.json", "none.json"):
        said = fails(capfd, *common, "--to=transformers", f"--scores={tmp_path / scores}")
        assert scores in said
    said = fails(capfd, *common, "--to=transformers", "--verify", f"--audio={whole / 'model.pt'}")
    assert "model.pt" in said
    assert not (tmp_path / "out").exists()


FUZZ = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
damage = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=8)), min_size=1, max_size=4
)


def damaged(content: bytes, places) -> bytes:
    content = bytearray(content)
    for share, put in places:
        start = int(share * len(content))
        content[start : start + len(put)] = put
    return bytes(content)


@FUZZ
@given(damage, st.sampled_from(["model.pt", "legacy.pt"]))
def test_damaged_fairseq_files_are_read_or_refused(whole, tmp_path, places, name):
    content = (whole / name).read_bytes()
    (tmp_path / name).write_bytes(damaged(content, places))
    read_or_refused(tmp_path / name)


@FUZZ
@given(damage, st.sampled_from(["model.safetensors", "config.json", "musicssl.json", "musicssl.safetensors"]))
def test_damaged_transformers_folders_are_read_or_refused(whole, tmp_path, places, name):
    folder = tmp_path / "folder"
    shutil.copytree(whole / "transformers", folder, dirs_exist_ok=True)
    (folder / name).write_bytes(damaged((folder / name).read_bytes(), places))
    read_or_refused(folder)


def read_or_refused(path: Path) -> None:
    """What escapes otherwise is a bug."""
    with contextlib.suppress(UserError):
        read_pretrained(str(path))
