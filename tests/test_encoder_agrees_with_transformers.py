"""The encoder and data2vec's targets against an independent implementation with the same random weights."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from run_fixtures import tiny_config

from musicssl_jax.config import read
from musicssl_jax.models.encoder import hidden_states
from musicssl_jax.models.objective import make_objective

torch = pytest.importorskip("torch", reason="the oracle runs on torch")
transformers = pytest.importorskip("transformers", reason="the oracle is transformers' Data2VecAudioModel")

# Where transformers keeps each of our parameters; {} is a layer's number, our blocks' first axis.
BLOCK = "transformer/blocks"
NAMES = {
    "mask_embedding": "masked_spec_embed",
    "conv_encoder/layer{}": "feature_extractor.conv_layers.{}.conv",
    "conv_encoder/layer{}/norm": "feature_extractor.conv_layers.{}.layer_norm",
    "feature_norm": "feature_projection.layer_norm",
    "projection": "feature_projection.projection",
    "transformer/positional/layer{}": "encoder.pos_conv_embed.layers.{}.conv",
    "transformer/norm": "encoder.layer_norm",
    f"{BLOCK}/attention/query": "encoder.layers.{}.attention.q_proj",
    f"{BLOCK}/attention/key": "encoder.layers.{}.attention.k_proj",
    f"{BLOCK}/attention/value": "encoder.layers.{}.attention.v_proj",
    f"{BLOCK}/attention/out": "encoder.layers.{}.attention.out_proj",
    f"{BLOCK}/attention_norm": "encoder.layers.{}.layer_norm",
    f"{BLOCK}/feed_in": "encoder.layers.{}.feed_forward.intermediate_dense",
    f"{BLOCK}/feed_out": "encoder.layers.{}.feed_forward.output_dense",
    f"{BLOCK}/feed_norm": "encoder.layers.{}.final_layer_norm",
}


def oracle(model) -> torch.nn.Module:
    """transformers' model of the same sizes; its norms and biases are random too, or they would hide mistakes."""
    channels, kernels, strides = zip(*model.conv_layers, strict=True)
    config = transformers.Data2VecAudioConfig(
        hidden_size=model.width,
        intermediate_size=model.ffn,
        num_attention_heads=model.heads,
        num_hidden_layers=model.layers,
        conv_dim=channels,
        conv_kernel=kernels,
        conv_stride=strides,
        conv_bias=model.conv_bias,
        conv_pos_kernel_size=model.positional_kernel // model.positional_depth,
        num_conv_pos_embeddings=model.positional_depth,
        num_conv_pos_embedding_groups=model.positional_groups,
        attn_implementation="eager",
    )
    torch.manual_seed(0)
    module = transformers.Data2VecAudioModel(config).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return module


def ours(module: torch.nn.Module, shapes: dict) -> dict:
    """The oracle's parameters as our encoder's nested dict, whose names and shapes `shapes` gives."""
    theirs = {name: value.detach().numpy() for name, value in module.state_dict().items()}

    def take(name: str, leaf: str) -> np.ndarray:
        value = theirs[f"{name}.{'bias' if leaf == 'bias' else 'weight'}"]
        return value.transpose() if leaf == "kernel" else value  # (out, in, taps) and (out, in) turned round

    def parameter(path: tuple[str, ...], shape) -> np.ndarray:
        if path == ("mask_embedding",):
            return theirs[NAMES["mask_embedding"]]
        *owner, leaf = path
        number = "".join(re.findall(r"layer(\d+)", "/".join(owner)))
        name = NAMES[re.sub(r"layer\d+", "layer{}", "/".join(owner))]
        if path[:2] == ("transformer", "blocks"):
            return np.stack([take(name.format(i), leaf) for i in range(shape.shape[0])])
        return take(name.format(number), leaf)

    flat = traverse_util.flatten_dict(shapes)
    found = {path: parameter(path, shape) for path, shape in flat.items()}
    assert {path: value.shape for path, value in found.items()} == {path: s.shape for path, s in flat.items()}
    used = sum(value.size for value in found.values())
    assert used == sum(value.size for value in theirs.values()), "a parameter of the oracle was left out"
    return jax.tree.map(jnp.asarray, traverse_util.unflatten_dict(found))


def objective_of(config):
    """The objective of a config, in float32."""
    objective = make_objective(config)
    return dataclasses.replace(objective, model=dataclasses.replace(objective.model, dtype="float32"), normalize=False)


def paired(config):
    """(objective, parameters, oracle) with equal encoders."""
    objective = objective_of(config)
    params = objective.init(jax.random.key(0))
    module = oracle(objective.model)
    return objective, params | {"encoder": ours(module, params["encoder"])}, module


def states_of(objective, params, *inputs):
    return jax.jit(lambda params, *inputs: hidden_states(objective.encoder(params), *inputs))(params, *inputs)


def assert_layers_agree(got, want, relative=1e-4):
    assert len(got) == len(want)
    for layer, (mine, theirs) in enumerate(zip(got, want, strict=True)):
        theirs = theirs.detach().numpy()
        worst = np.abs(np.asarray(mine) - theirs).max()
        assert worst < relative * np.abs(theirs).max(), f"layer {layer} is off by {worst}"


def noise(clips: int, seconds: float) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(clips, int(seconds * 16000))).astype(np.float32)


@pytest.fixture(scope="module")
def small():
    config = tiny_config(model__layers=3, model__width=48, model__heads=6, model__positional_depth=5)
    with config.unlocked():
        config.model.positional_kernel = 35  # 7 taps a layer
    return paired(config)


def test_all_hidden_states_agree(small):
    objective, params, module = small
    audio = noise(2, 1.3)
    states = states_of(objective, params, audio)
    with torch.no_grad():
        theirs = module(torch.from_numpy(audio), output_hidden_states=True)
    assert_layers_agree([states["conv"]], [conv_output(module, audio)])
    assert_layers_agree(states["hidden"], theirs.hidden_states)
    assert_layers_agree([states["last"]], [theirs.last_hidden_state])


def conv_output(module, audio) -> torch.Tensor:
    with torch.no_grad():
        return module.feature_extractor(torch.from_numpy(audio)).transpose(1, 2)


def test_padded_clips_agree(small):
    objective, params, module = small
    audio, lengths = noise(3, 1.0), np.array([16000, 9000, 5000])
    inside = np.arange(16000) < lengths[:, None]
    audio *= inside
    states = states_of(objective, params, audio, lengths.astype(np.int32))
    with torch.no_grad():
        theirs = module(torch.from_numpy(audio), attention_mask=torch.from_numpy(inside.astype(np.int64)))
    valid = ~np.asarray(states["padding"])
    assert valid.sum(1).tolist() == [49, 27, 15]
    assert_layers_agree([np.asarray(states["last"])[valid]], [theirs.last_hidden_state[torch.from_numpy(valid)]])


def ffn_outputs(module, audio) -> list[torch.Tensor]:
    """Each block's FFN output, before dropout and residual, seen from outside."""
    seen: list[torch.Tensor] = []
    hooks = [
        block.feed_forward.output_dense.register_forward_hook(lambda *call: seen.append(call[2]))
        for block in module.encoder.layers
    ]
    with torch.no_grad():
        module(torch.from_numpy(audio))
    for hook in hooks:
        hook.remove()
    return seen


def test_targets_are_the_mean_of_instance_normed_ffn_outputs(small):
    """Of one clip the sums over clips, from which the metrics are made, are its targets."""
    objective, params, module = small
    assert objective.target.top_k == 2 < objective.model.layers
    audio = noise(1, 1.0)
    normed = [
        torch.nn.functional.instance_norm(ffn.transpose(1, 2), eps=1e-5).transpose(1, 2)
        for ffn in ffn_outputs(module, audio)[-2:]
    ]
    zero = np.zeros(1, np.float32)
    batch = {"audio": audio, "mean": zero, "std": zero + 1, "weight": zero + 1, "row": np.zeros(1, np.int32)}
    teacher = objective.init_teacher(params)
    _, (_, sums) = jax.jit(objective.loss)(params, teacher, (), batch, jax.random.key(0))
    assert_layers_agree([sums["targets_per_frame"]], [(sum(normed) / 2)[0]], relative=5e-4)  # norms amplify rounding


@pytest.mark.long
def test_the_base_model_agrees():
    objective, params, module = paired(read("configs/music2vec.py:base"))
    audio = noise(1, 2.0)
    states = states_of(objective, params, audio)
    with torch.no_grad():
        theirs = module(torch.from_numpy(audio), output_hidden_states=True)
    assert_layers_agree(states["hidden"], theirs.hidden_states)
