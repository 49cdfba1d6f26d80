"""transformers' own models come in and ours go out: the same hidden states, and nothing that transformers warns of."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conversion_fixtures import assert_same_tensors, convert, random_model, save_run, small_config

from musicssl_jax.config import read
from musicssl_jax.encoder_io import load_encoder
from musicssl_jax.interop.reading import read_pretrained
from musicssl_jax.interop.verify import LARGEST_DIFFERENCE, differences

torch = pytest.importorskip("torch", reason="the models are transformers' on torch")
transformers = pytest.importorskip("transformers", reason="the models are transformers' own classes")

SIZES = {
    "hidden_size": 24,
    "intermediate_size": 20,
    "num_attention_heads": 3,
    "num_hidden_layers": 3,
    "conv_dim": (5, 7, 6, 9),
    "conv_kernel": (10, 3, 3, 2),
    "conv_stride": (5, 2, 4, 8),
    "num_conv_pos_embedding_groups": 4,
    "attn_implementation": "eager",
}
LARGE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
MODELS = {
    "data2vec": ("Data2VecAudio", {"num_conv_pos_embeddings": 3, "conv_pos_kernel_size": 5}),
    "hubert": ("Hubert", {"num_conv_pos_embeddings": 8}),
    "hubert, large": ("Hubert", {"num_conv_pos_embeddings": 8, **LARGE}),
}
LONG = {
    "data2vec with biases": ("Data2VecAudio", SIZES | {"num_conv_pos_embeddings": 5, "conv_bias": True}),
    "hubert, odd kernel": ("Hubert", SIZES | {"num_conv_pos_embeddings": 7, "conv_bias": True}),
    "data2vec base": ("Data2VecAudio", {}),
    "hubert base": ("Hubert", {}),
    "hubert base, with the options of large": ("Hubert", LARGE),
}
# 93 frames: as long as one of the windows that a short file is padded to, so that nothing is.
WAVEFORM = np.random.default_rng(0).normal(0.1, 0.2, 92 * 320 + 80).astype(np.float32)


def random_torch_model(kind: str, fields: dict, head: str = "Model") -> "torch.nn.Module":
    """transformers' class; norms and biases are random too, or they would hide mistakes."""
    config = getattr(transformers, f"{kind}Config")(**fields)
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}{head}")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def saved(model, folder: Path, *, normalize: bool = True, **options) -> Path:
    model.save_pretrained(folder, **options)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=normalize).save_pretrained(folder)
    return folder


def assert_hidden_states_agree(folder: Path) -> None:
    """Ours, read from the folder, and those of transformers' class, which reads it too."""
    model = read_pretrained(str(folder))
    compared = differences(model, folder, WAVEFORM)
    assert len(compared) == 2 + model.config.model.layers  # conv features, the blocks' input, every block
    for name, difference in compared:
        assert difference < LARGEST_DIFFERENCE, name


@pytest.mark.parametrize(("kind", "fields"), MODELS.values(), ids=MODELS)
def test_models_of_transformers_give_the_same_hidden_states(tmp_path, kind, fields):
    assert_hidden_states_agree(saved(random_torch_model(kind, SIZES | fields), tmp_path / "model"))


@pytest.mark.long
@pytest.mark.parametrize(("kind", "fields"), LONG.values(), ids=LONG)
def test_base_models_of_transformers_give_the_same_hidden_states(tmp_path, kind, fields):
    assert_hidden_states_agree(saved(random_torch_model(kind, fields), tmp_path / "model"))


@pytest.mark.parametrize("normalize", [True, False])
def test_load_encoder_hears_what_the_feature_extractor_makes(tmp_path, normalize):
    """Three lines, without any of the code that converts."""
    module = small_model("data2vec")
    folder = saved(module, tmp_path / "model", normalize=normalize)
    hidden = load_encoder(str(folder))(WAVEFORM)["hidden"]
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    inputs = extractor(WAVEFORM, sampling_rate=16000, return_tensors="pt")["input_values"]
    with torch.no_grad():
        theirs = module(inputs, output_hidden_states=True).hidden_states
    assert len(hidden) == len(theirs) == 4
    for ours, state in zip(hidden, theirs, strict=True):
        assert np.abs(ours - state[0].numpy()).max() < 3e-4 * np.abs(state.numpy()).max()


def small_model(name: str = "hubert", head: str = "Model"):
    kind, fields = MODELS[name]
    return random_torch_model(kind, SIZES | fields, head)


FILES = {
    "sharded": {"max_shard_size": "10KB"},
    "bin": {"safe_serialization": False},
    "sharded bin": {"safe_serialization": False, "max_shard_size": "10KB"},
}


@pytest.mark.parametrize("options", FILES.values(), ids=FILES)
def test_parameters_in_other_files(tmp_path, options):
    model = small_model()
    folder = saved(model, tmp_path / "model", **options)
    names = os.listdir(folder)
    assert "model.safetensors" not in names
    assert ("max_shard_size" in options) == any(name.endswith(".index.json") for name in names)
    whole = read_pretrained(str(saved(model, tmp_path / "whole")))
    assert_same_tensors(read_pretrained(str(folder)).params, whole.params)


@pytest.mark.parametrize("name", ["data2vec", "hubert"])
def test_a_model_with_a_head_of_fine_tuning(tmp_path, name):
    """Its parameters have a prefix; the head is left aside and said to be."""
    model = small_model(name, "ForCTC")
    folder = saved(model, tmp_path / "model")
    read = read_pretrained(str(folder))
    assert "lm_head.weight" in " ".join(read.notes)
    base = model.data2vec_audio if name == "data2vec" else model.hubert
    assert_same_tensors(read.params, read_pretrained(str(saved(base, tmp_path / "base"))).params)
    np.testing.assert_array_equal(read.origin.foreign["lm_head.weight"], model.lm_head.weight.detach().numpy())


def rewritten(folder: Path, change) -> Path:
    """The folder with other tensors in its file."""
    from safetensors.torch import load_file, save_file

    tensors = change(load_file(folder / "model.safetensors"))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_names_of_older_versions(tmp_path):
    old = {"original0": "weight_g", "original1": "weight_v"}

    def renamed(tensors):
        return {
            name.replace("parametrizations.weight.original0", "weight_g").replace(
                "parametrizations.weight.original1", "weight_v"
            ): tensor
            for name, tensor in tensors.items()
        }

    folder = saved(small_model(), tmp_path / "model")
    before = read_pretrained(str(folder))
    rewritten(folder, renamed)
    from safetensors.numpy import load_file

    assert {f"encoder.pos_conv_embed.conv.{name}" for name in old.values()} <= load_file(
        folder / "model.safetensors"
    ).keys()
    assert_same_tensors(read_pretrained(str(folder)).params, before.params)


def test_a_model_without_a_mask_embedding(tmp_path):
    """transformers leaves it out where nothing is masked in fine-tuning; only training wants it."""
    kind, fields = MODELS["hubert"]
    folder = saved(random_torch_model(kind, SIZES | fields | {"mask_time_prob": 0.0}), tmp_path / "model")
    read = read_pretrained(str(folder))
    assert "mask embedding" in " ".join(read.notes)
    assert read.params["encoder/mask_embedding"].std() > 0
    assert_hidden_states_agree(folder)
    again = convert(folder, "transformers", tmp_path / "again")
    assert_loads_without_a_word(again)


def test_the_path_in_music2vecs_vocabulary_is_survived(tmp_path):
    """m-a-p/music2vec-v1 has one in its config.json, where a number belongs."""
    folder = saved(small_model("data2vec"), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": "/home/someone/vocab.json"}))
    again = convert(folder, "transformers", tmp_path / "again")
    assert json.loads((again / "config.json").read_text())["vocab_size"] == 32
    assert_loads_without_a_word(again)
    assert_same_tensors(read_pretrained(str(again)).params, read_pretrained(str(folder)).params)


@pytest.mark.parametrize(("name", "normalize"), [("data2vec", True), ("hubert", False)])
def test_a_folder_without_a_preprocessor_is_taken_as_its_family_is_trained(tmp_path, name, normalize):
    folder = saved(small_model(name), tmp_path / "model")
    (folder / "preprocessor_config.json").unlink()
    read = read_pretrained(str(folder))
    assert read.config.data.normalize is normalize
    assert "preprocessor_config.json" in " ".join(read.notes)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_comes_back_as_it_was(tmp_path, dtype):
    from safetensors.torch import load_file

    folder = saved(small_model().to(getattr(torch, dtype)), tmp_path / "model")
    assert read_pretrained(str(folder)).params["encoder/projection/bias"].dtype == np.float32
    run = convert(folder, "jax", tmp_path / "run")
    again = convert(run, "transformers", tmp_path / "again")
    before, after = (load_file(path / "model.safetensors") for path in (folder, again))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert after[name].dtype == tensor.dtype == getattr(torch, dtype)
        assert torch.equal(after[name], tensor), name
    model = transformers.AutoModel.from_pretrained(again, dtype="auto")
    assert model.dtype == getattr(torch, dtype)


def test_a_transformers_folder_comes_back(tmp_path):
    """Every tensor of the class, and all that config.json said."""
    from safetensors.torch import load_file

    folder = saved(small_model("hubert, large"), tmp_path / "model", normalize=False)
    fairseq = convert(folder, "fairseq", tmp_path / "model.pt")
    run = convert(fairseq, "jax", tmp_path / "run")
    again = convert(run, "transformers", tmp_path / "again")
    before, after = (load_file(path / "model.safetensors") for path in (folder, again))
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    one, other = (json.loads((path / "config.json").read_text()) for path in (folder, again))
    assert {name: other.get(name) for name in one if name not in ("dtype", "torch_dtype")} == {
        name: value for name, value in one.items() if name not in ("dtype", "torch_dtype")
    }
    assert json.loads((again / "preprocessor_config.json").read_text())["do_normalize"] is False


class Complaints(logging.Handler):
    """What transformers logs of a warning's weight or more."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record):
        self.said.append(record.getMessage())


def assert_loads_without_a_word(folder: Path):
    """With AutoModel and AutoFeatureExtractor: no key missing, none unexpected, no warning; the two."""
    complaints = Complaints()
    logger = transformers.utils.logging.get_logger("transformers")
    logger.addHandler(complaints)
    try:
        model, info = transformers.AutoModel.from_pretrained(folder, output_loading_info=True)
        extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    finally:
        logger.removeHandler(complaints)
    assert not complaints.said
    assert not any(info.values()), info
    return model, extractor


EXPORTS = {
    "music2vec": ("data2vec", {}),
    "music2vec, raw": ("data2vec", {"data.normalize": False, "model.conv_bias": True}),
    "musichubert": ("hubert", {}),
    "musichubert, odd kernel": ("hubert", {"model.positional_kernel": 7}),
    "musichubert, large": (
        "hubert",
        {"model.conv_norm": "layer", "model.norm_first": True, "model.conv_bias": True, "data.normalize": True},
    ),
}


@pytest.mark.parametrize(("objective", "fields"), EXPORTS.values(), ids=EXPORTS)
def test_our_models_load_in_transformers(tmp_path, objective, fields):
    ours = random_model(small_config(objective, fields))
    folder = convert(save_run(tmp_path / "run", ours), "transformers", tmp_path / "model")
    model, extractor = assert_loads_without_a_word(folder)
    assert type(model).__name__ == {"data2vec": "Data2VecAudioModel", "hubert": "HubertModel"}[objective]
    assert extractor.do_normalize is ours.config.data.normalize
    assert (folder / "model.safetensors").is_file() and not list(folder.glob("*.bin"))


@pytest.mark.parametrize("name", ["music2vec", "musichubert, large"])
def test_our_models_give_the_same_hidden_states_there(tmp_path, name):
    ours = random_model(small_config(*EXPORTS[name]))
    assert_hidden_states_agree(convert(save_run(tmp_path / "run", ours), "transformers", tmp_path / "model"))


@pytest.mark.long
@pytest.mark.parametrize(
    ("config", "classes"),
    [("configs/music2vec.py:base", "Data2VecAudioModel"), ("configs/musichubert.py:k500", "HubertModel")],
)
def test_our_base_models_load_in_transformers(tmp_path, config, classes):
    folder = convert(save_run(tmp_path / "run", random_model(read(config))), "transformers", tmp_path / "model")
    model, _ = assert_loads_without_a_word(folder)
    assert type(model).__name__ == classes
    assert len(model(torch.from_numpy(WAVEFORM[None]), output_hidden_states=True).hidden_states) == 13
    assert_hidden_states_agree(folder)


def test_the_config_has_the_values_of_training(tmp_path):
    """transformers' own defaults are others."""
    fields = {
        "model.dropout": 0.11,
        "model.attention_dropout": 0.12,
        "model.activation_dropout": 0.0,
        "model.input_dropout": 0.13,
        "model.layer_drop": 0.05,
        "data.normalize": False,
        "data.sample_rate": 24000,
    }
    run = save_run(tmp_path / "run", random_model(small_config("hubert", fields)))
    folder = convert(run, "transformers", tmp_path / "model")
    config = transformers.AutoConfig.from_pretrained(folder)
    assert config.hidden_dropout == 0.11 and config.attention_dropout == 0.12
    assert config.activation_dropout == 0.0 and config.feat_proj_dropout == 0.13 and config.layerdrop == 0.05
    assert config.mask_time_prob > 0  # or the class would have no mask embedding
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    assert (extractor.do_normalize, extractor.sampling_rate) == (False, 24000)


def test_the_model_card_says_what_is_known(tmp_path):
    run = save_run(tmp_path / "run", random_model(small_config("data2vec"), step=40))
    (tmp_path / "scores.json").write_text('{"genre": 0.75}')
    more = (f"--scores={tmp_path / 'scores.json'}", "--license=cc-by-4.0")
    card = (convert(run, "transformers", tmp_path / "model", *more) / "README.md").read_text()
    front, _, body = card.removeprefix("---\n").partition("\n---\n")
    assert 'license: "cc-by-4.0"' in front.splitlines()
    config = small_config("data2vec")
    heard = 40 * config.batch.clips * config.data.crop_seconds / 3600
    assert "12.50 hours of training music" in body and f"{heard:,.1f} hours of audio heard" in body
    assert "| genre | 0.75 |" in body and '"positional_kernel": 15' in body


def test_a_licence_is_never_guessed(tmp_path):
    run = save_run(tmp_path / "run", random_model(small_config("data2vec")))
    card = (convert(run, "transformers", tmp_path / "model") / "README.md").read_text()
    assert "license:" not in card and "Not stated" in card and "Not evaluated" in card


def test_verify_prints_every_hidden_state(tmp_path, capsys):
    folder = saved(small_model("data2vec"), tmp_path / "model")
    run = convert(folder, "jax", tmp_path / "run", "--verify")
    printed = capsys.readouterr().out
    assert all(f"hidden state {i}" in printed for i in range(4)) and "verify    equal" in printed
    convert(run, "fairseq", tmp_path / "model.pt", "--verify")
    assert "verify    equal" in capsys.readouterr().out


# Run with another version of transformers: says what AutoModel and AutoFeatureExtractor say, as JSON.
LOAD = """
import json, logging, sys
import numpy as np, torch, transformers

said = []
handler = logging.Handler(logging.WARNING)
handler.emit = lambda record: said.append(record.getMessage())
transformers.utils.logging.get_logger("transformers").addHandler(handler)
model, info = transformers.AutoModel.from_pretrained(sys.argv[1], output_loading_info=True)
extractor = transformers.AutoFeatureExtractor.from_pretrained(sys.argv[1])
with torch.no_grad():
    output = model(torch.from_numpy(np.load(sys.argv[2])), output_hidden_states=True)
states = [*output.hidden_states[:-1], output.last_hidden_state]
np.save(sys.argv[3], np.stack([state[0].numpy() for state in states]))
wrong = {name: sorted(map(str, found)) for name, found in info.items() if found}
print(json.dumps([transformers.__version__, said, wrong, extractor.do_normalize]))
"""


@pytest.fixture(scope="module")
def next_transformers(tmp_path_factory):
    """Environment of a process that imports transformers 5, installed for it alone, beside the PyTorch of ours."""
    folder = tmp_path_factory.mktemp("transformers5")
    install = [sys.executable, "-m", "pip", "install", "--quiet", f"--target={folder}", "transformers>=5,<6"]
    done = subprocess.run(install, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"transformers 5 cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
    return os.environ | {"PYTHONPATH": str(folder)}


@pytest.mark.long
@pytest.mark.parametrize("name", ["music2vec", "musichubert", "musichubert, large"])
def test_our_models_load_in_the_next_transformers(tmp_path, next_transformers, name):
    ours = random_model(small_config(*EXPORTS[name]))
    folder = convert(save_run(tmp_path / "run", ours), "transformers", tmp_path / "model")
    theirs, here = tmp_path / "theirs.npy", transformers.AutoModel.from_pretrained(folder)
    np.save(tmp_path / "audio.npy", WAVEFORM[None])
    command = [sys.executable, "-c", LOAD, folder, tmp_path / "audio.npy", theirs]
    done = subprocess.run(command, capture_output=True, text=True, env=next_transformers)
    assert done.returncode == 0, done.stderr
    version, said, wrong, normalize = json.loads(done.stdout.splitlines()[-1])
    assert version.startswith("5.") and not said and not wrong
    assert normalize is ours.config.data.normalize
    with torch.no_grad():
        states = here(torch.from_numpy(WAVEFORM[None]), output_hidden_states=True).hidden_states
    for state, other in zip(states, np.load(theirs), strict=True):
        assert np.abs(state[0].numpy() - other).max() < LARGEST_DIFFERENCE * np.abs(other).max()
