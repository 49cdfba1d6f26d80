"""Models for conversion: small ones of random parameters and odd sizes, in memory and as a run's folder."""

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from ml_collections import ConfigDict

from musicssl_jax import config as configs
from musicssl_jax.command import run_command
from musicssl_jax.config_checks import check
from musicssl_jax.convert import main
from musicssl_jax.interop.pretrained import Origin, Pretrained, Tensors, shapes_of, teacher_shapes_of
from musicssl_jax.interop.runs import ONE_CHECKPOINT
from musicssl_jax.targets.codebook import Codebook, files_within
from musicssl_jax.targets.names import set_name, width_of
from musicssl_jax.training.checkpointing import open_checkpoints

FAMILIES = {"data2vec": "configs/music2vec.py:base", "hubert": "configs/musichubert.py:k500"}

# No two sizes are equal, so that nothing fits where it does not belong; two seconds hold some frames.
SMALL: dict[str, dict[str, Any]] = {
    "data2vec": {
        "model.conv_layers": ((5, 10, 5), (7, 3, 2), (6, 3, 4), (9, 2, 8)),
        "model.width": 24,
        "model.ffn": 20,
        "model.layers": 2,
        "model.heads": 3,
        "model.positional_kernel": 15,
        "model.positional_depth": 3,
        "model.positional_groups": 4,
        "target.top_k": 2,
    },
    "hubert": {
        "model.conv_layers": ((5, 10, 5), (7, 3, 2), (6, 3, 4), (9, 2, 8)),
        "model.width": 24,
        "model.ffn": 20,
        "model.layers": 2,
        "model.heads": 3,
        "model.positional_kernel": 8,
        "model.positional_groups": 4,
        "prediction.width": 10,
        "clusters": (11,),
    },
}


def small_config(objective: str, fields: dict[str, Any] | None = None) -> ConfigDict:
    """The config of a small model; `fields`: what is changed in it, by dotted names."""
    config = configs.read(FAMILIES[objective]).copy_and_resolve_references().unlock()
    config.update_from_flattened_dict({**SMALL[objective], "data.path": "somewhere", **(fields or {})})
    check(config)
    return config.lock()


def random_model(config: ConfigDict, *, step: int = 7, seed: int = 0) -> Pretrained:
    """As a run would leave it: random parameters of all kinds, a teacher of its own, a codebook for each label set."""
    rng = np.random.default_rng(seed)

    def draw(shapes: dict[str, tuple[int, ...]]) -> Tensors:
        return {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}

    data = {"fingerprints": [{"build_id": "b123", "splits": {"train": {"shards": 2}}}], "hours": [12.5]}
    params, teacher = draw(shapes_of(config)), draw(teacher_shapes_of(config))
    return Pretrained(config, params, teacher, _codebooks(config, rng), step, data, Origin("run", "somewhere"))


def _codebooks(config: ConfigDict, rng: np.random.Generator) -> tuple[Codebook, ...]:
    return tuple(
        Codebook(
            centroids=rng.normal(size=(clusters, width_of(set_name(target)))).astype(np.float32),
            front_end={"front_end": set_name(target), "sample_rate": 16000, "hop": 320},
            data=[{"build_id": "b123"}],
            settings={"clusters": clusters, "seed": 1},
            inertia_curve=rng.uniform(1, 9, 4).astype(np.float32),
            usage=rng.integers(0, 50, clusters).astype(np.int32),
            agreement=0.93,
        )
        for target, clusters in zip(config.get("targets", ()), config.get("clusters", ()), strict=True)
    )


def save_run(folder: Path, model: Pretrained) -> Path:
    """The folder of a run whose newest checkpoint is the model, as training writes it."""
    state = {
        "step": jnp.int32(model.step),
        "params": _nested(model.params),
        "teacher": _nested(model.teacher),
        "opt_state": {"count": jnp.int32(model.step)},
    }
    meta = {"config": model.config.to_dict(), "versions": {}, "data": model.data["fingerprints"]}
    checkpoints = open_checkpoints(folder / "checkpoints", ONE_CHECKPOINT)
    meta |= {"hours": model.data["hours"]}
    checkpoints.save_and_wait(model.step, state, meta, files_within(model.codebooks))
    checkpoints.close()
    return folder


def _nested(tensors: Tensors) -> dict[str, Any]:
    return traverse_util.unflatten_dict({name: jnp.asarray(value) for name, value in tensors.items()}, sep="/")


def convert(source: Path, to: str, output: Path, *more: str) -> Path:
    """`musicssl convert` in this process; it has to succeed."""
    assert main([f"--input={source}", f"--to={to}", f"--output={output}", *more]) == 0
    return output


def fails(capfd, *arguments: str) -> str:
    """What `musicssl convert` says when it ends as it does for the user's mistakes: the one line on stderr."""
    capfd.readouterr()
    code = run_command(main, arguments)
    said = capfd.readouterr().err
    assert code == 2, said
    assert said.startswith("error: ") and said.count("\n") == 1 and "Traceback" not in said, said
    return said


def assert_same_model(got: Pretrained, want: Pretrained) -> None:
    """Every parameter, tensor of the teacher and codebook bit for bit, and what is known of the training."""
    for part in ("params", "teacher"):
        assert_same_tensors(getattr(got, part), getattr(want, part))
    assert len(got.codebooks) == len(want.codebooks)
    for one, other in zip(got.codebooks, want.codebooks, strict=True):
        for name in ("centroids", "usage", "inertia_curve"):
            assert_same_tensors({name: getattr(one, name)}, {name: getattr(other, name)})
        assert all(
            getattr(one, name) == getattr(other, name) for name in ("front_end", "data", "settings", "agreement")
        )
    assert got.step == want.step
    assert json.loads(json.dumps(got.data)) == json.loads(json.dumps(want.data))


def assert_same_tensors(got: Tensors, want: Tensors) -> None:
    """Names, types, shapes and bits."""
    assert got.keys() == want.keys()
    for name, value in want.items():
        assert (got[name].dtype, got[name].shape) == (value.dtype, value.shape), name
        assert got[name].tobytes() == value.tobytes(), name
