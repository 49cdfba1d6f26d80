import pytest
from checkpoint_fixtures import abstract, restore, save_steps, tiny_state

from musicssl_jax.errors import UserError
from musicssl_jax.training.resumable import check_resumable

CONFIG = {
    "name": "music2vec_demo",
    "steps": 100,
    "seed": 0,
    "log_every": 50,
    "batch": {"clips": 112, "per_device": 7},
    "mesh": {"data": -1, "fsdp": 1},
    "model": {"conv_layers": ((512, 10, 5), (512, 3, 2)), "width": 768},
    "data": {"path": "/a", "threads": 2, "crop_seconds": 30.0},
    "checkpoint": {"every": 5000},
    "valid": {"every": 5},
    "collapse": {"stop": True},
    "wandb": False,
}
SAVED = {"config": CONFIG, "versions": {"jax": "1"}, "data": {"build": "b1", "shards": ("x", "y")}}


def changed(**fields) -> dict:
    config = {name: dict(value) if isinstance(value, dict) else value for name, value in CONFIG.items()}
    for name, value in fields.items():
        section, _, field = name.partition("__")
        if field:
            config[section][field] = value
        else:
            config[section] = value
    return SAVED | {"config": config, "versions": {"jax": "2"}}


def test_machine_logging_and_paths_may_change_and_steps_may_grow():
    free = changed(
        name="other", steps=200, log_every=1, wandb=True, batch__per_device=1, mesh__fsdp=4, data__path="/b",
        data__threads=9, checkpoint__every=1, valid__every=1, collapse__stop=False,
    )  # fmt: skip
    check_resumable(SAVED, free, ())


def test_tuples_equal_the_lists_that_json_made_of_them():
    model = {"conv_layers": [[512, 10, 5], [512, 3, 2]], "width": 768}
    new = changed(model=model) | {"data": {"build": "b1", "shards": ["x", "y"]}}
    check_resumable(SAVED, new, ())


@pytest.mark.parametrize(
    ("new", "said"),
    [
        (changed(batch__clips=64), "batch.clips 112 -> 64; .*--allow_change=batch.clips$"),
        (changed(steps=50), "steps 100 -> 50"),
        (changed(seed=1, model__width=8), "model.width 768 -> 8; seed 0 -> 1; .*=model.width,seed$"),
        (changed(data__crop_seconds=5.0), "data.crop_seconds 30.0 -> 5.0"),
        (changed(meshes=3), "meshes None -> 3"),
        (SAVED | {"data": {"build": "b2"}}, "other data: .*b1.* -> .*b2.*--allow_change=data.path"),
    ],
)  # fmt: skip
def test_anything_else_is_refused_with_the_field_and_both_values(new, said):
    with pytest.raises(UserError, match=said):
        check_resumable(SAVED, new, ())


def test_named_fields_and_sections_may_change():
    check_resumable(SAVED, changed(seed=1, model__width=8), ("seed", "model"))
    check_resumable(SAVED, SAVED | {"data": {"build": "b2"}}, ("data.path",))
    with pytest.raises(UserError, match=r"model\.width"):
        check_resumable(SAVED, changed(seed=1, model__width=8), ("seed", "model.conv_layers", "mod"))


def test_another_architecture_is_refused_with_the_differing_parameters_and_is_no_damage(tmp_path, capsys):
    save_steps(tmp_path, 1, 2)
    with pytest.raises(UserError) as told:
        restore(tmp_path, abstract(tiny_state(0, width=5)))
    assert "params/conv/0/kernel: saved float32[3, 4], wanted float32[3, 5]" in str(told.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]
    assert not capsys.readouterr().err


def test_missing_and_additional_parameters_are_named_eight_at_most(tmp_path):
    save_steps(tmp_path, 1)
    state = tiny_state(0)
    blocks = {f"block{i}": state.params["conv"]["0"]["kernel"] for i in range(10)}
    with pytest.raises(UserError) as told:
        restore(tmp_path, abstract(state._replace(params=blocks)))
    message = str(told.value)
    assert "params/block0: saved nothing, wanted float32[3, 4]" in message
    assert message.count("saved ") == 8
    assert message.endswith("and 3 more")


def test_another_optimizer_is_named_when_the_parameters_agree(tmp_path):
    save_steps(tmp_path, 1)
    state = tiny_state(0)
    with pytest.raises(UserError, match=r"opt_state/0/count: saved int32\[\], wanted nothing"):
        restore(tmp_path, abstract(state._replace(opt_state=(state.step,))))
