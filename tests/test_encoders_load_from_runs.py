"""`load_encoder`: a run's newest whole checkpoint, one of its checkpoints, or the parameters that a run begins with."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from encoder_fixtures import tiny_config_file
from run_fixtures import tiny_config

from musicssl_jax.config import to_json
from musicssl_jax.encoder_io import load_encoder
from musicssl_jax.errors import UserError
from musicssl_jax.models.objective import make_objective
from musicssl_jax.training.checkpointing import open_checkpoints
from musicssl_jax.training.state import init_state
from musicssl_jax.training.step import sharded_state

# 93 frames: as long as one of the windows that a short file is padded to, so that nothing is.
WAVEFORM = 0.1 * np.random.default_rng(0).standard_normal(92 * 320 + 400).astype(np.float32)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's folder with checkpoints 1 and 2, and the state of each."""
    folder = tmp_path_factory.mktemp("run")
    config = tiny_config()
    objective = make_objective(config)
    make = jax.jit(lambda key: init_state(objective, optax.adam(1e-3), key))
    states = {step: make(jax.random.key(100 + step)) for step in (1, 2)}
    # A teacher that differs from its student, as after some training.
    states = {step: s._replace(teacher=make(jax.random.key(step)).teacher) for step, s in states.items()}
    checkpoints = open_checkpoints(folder / "checkpoints", config.checkpoint)
    for step, state in states.items():
        checkpoints.save(step, state, {"config": json.loads(to_json(config)), "versions": {}, "data": []})
    checkpoints.close()
    return folder, states, config, objective


def last_layer(encoder):
    return encoder(WAVEFORM)["hidden"][-1]


def expected(objective, params):
    """The last layer without any of the code that loads."""
    audio = (WAVEFORM - WAVEFORM.mean()) / np.sqrt(WAVEFORM.var() + 1e-5)
    encoder = objective.encoder(params)
    frames = encoder.transformer.embed(encoder.project(encoder.features(jnp.asarray(audio[None]))))
    return np.asarray(encoder.transformer.encode(frames)[0][0])


def test_a_run_gives_its_newest_student(run):
    folder, states, _, objective = run
    encoder = load_encoder(str(folder))
    assert encoder.name.endswith("checkpoints/2") and (encoder.layers, encoder.width) == (2, 32)
    want = expected(objective, states[2].params)
    np.testing.assert_allclose(last_layer(encoder), want, atol=1e-4)
    assert np.abs(want - expected(objective, states[1].params)).max() > 0.5


def test_one_checkpoint_can_be_named(run, monkeypatch):
    folder, states, _, objective = run
    monkeypatch.chdir(folder)
    encoder = load_encoder("checkpoints/1")
    np.testing.assert_allclose(last_layer(encoder), expected(objective, states[1].params), atol=1e-4)


def test_the_teacher_can_be_asked_for(run):
    folder, states, _, objective = run
    state = states[2]
    params = {**state.params, "encoder": {**state.params["encoder"], **state.teacher}}
    teacher = last_layer(load_encoder(str(folder), weights="teacher"))
    np.testing.assert_allclose(teacher, expected(objective, params), atol=1e-4)
    assert np.abs(teacher - last_layer(load_encoder(str(folder)))).max() > 0.5


def test_random_is_what_a_run_begins_with(run, mesh, tmp_path):
    _, _, config, objective = run
    params = sharded_state(objective, optax.adam(1e-3), mesh, config.seed).params
    encoder = load_encoder(f"random:{tiny_config_file(tmp_path)}")
    np.testing.assert_allclose(last_layer(encoder), expected(objective, params), atol=1e-4)


def test_a_damaged_checkpoint_is_passed_over_and_left_as_it_is(run, tmp_path, capfd):
    folder = shutil.copytree(run[0], tmp_path / "run")
    data = max((folder / "checkpoints" / "2" / "state").rglob("d/*"), key=lambda path: path.stat().st_size)
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    assert load_encoder(str(folder)).name.endswith("checkpoints/1")
    assert "checkpoints/2 is damaged" in capfd.readouterr().err
    assert data.read_bytes() == content
    with pytest.raises(UserError, match="is whole"):
        load_encoder(str(folder / "checkpoints" / "2"))


def test_a_folder_without_checkpoints_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="no checkpoint in"):
        load_encoder(str(tmp_path))
