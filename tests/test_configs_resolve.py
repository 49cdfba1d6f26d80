"""Variants, overrides and what a run keeps of them."""

import os
from pathlib import Path

import pytest

from configs import music2vec
from musicssl_jax.config import from_json, load, read, run_flags, to_json
from musicssl_jax.config_checks import check
from musicssl_jax.errors import UserError

DATA = "--config.data.path=music"

PAPER = {
    "base": {"steps": 400_000, "mask.prob": 0.65, "mask.length": 10, "target.top_k": 8, "batch.clips": 112},
    "800k": {"steps": 800_000},
    "crop5s": {"data.crop_seconds": 5.0, "batch.clips": 752, "mask.trim_group": 47},
    "prob50": {"mask.prob": 0.5},
    "prob80": {"mask.prob": 0.8},
    "span5": {"mask.length": 5},
    "span15": {"mask.length": 15},
    "target12": {"target.top_k": 12},
}


def flat(config, prefix=""):
    fields = {}
    for name, value in config.items():
        fields |= flat(value, f"{prefix}{name}.") if hasattr(value, "items") else {prefix + name: value}
    return fields


@pytest.mark.parametrize("variant", PAPER)
def test_the_papers_variants_differ_from_base_where_the_paper_says(variant):
    config = flat(music2vec.get_config(variant))
    assert PAPER[variant].items() <= config.items()
    changed = {field for field, value in config.items() if value != flat(music2vec.get_config())[field]}
    assert changed - {"batch.per_device"} == (set() if variant == "base" else set(PAPER[variant]))


@pytest.mark.parametrize("variant", music2vec.VARIANTS)
def test_every_variant_has_the_fields_and_types_of_base_and_makes_sense(variant):
    config = music2vec.get_config(variant)
    types = {field: type(value) for field, value in flat(config).items()}
    assert types == {field: type(value) for field, value in flat(music2vec.get_config()).items()}
    config.data.path = config.data.path or "music"
    check(config)


def test_updates_of_the_paper_hold_its_hours_of_audio():
    for variant, minutes in (("base", 56), ("crop5s", 62.7)):
        config = music2vec.get_config(variant)
        assert config.batch.clips * config.data.crop_seconds / 60 == pytest.approx(minutes, abs=0.05)


def test_overrides_take_the_type_of_their_field():
    config, rest = load(
        [
            "--config=configs/music2vec.py:prob50",
            "--config.data.path=a,b",
            "--config.data.weights=1,2.5",
            "--config.schedule.peak=1",
            "--config.wandb=True",
            "--config.steps",
            "10",
            "--config.model.conv_layers=[[8,10,5],[8,4,4]]",
            "--workdir=run",
        ]
    )
    assert rest == ["--workdir=run"]
    assert config.mask.prob == 0.5
    assert config.data.weights == (1, 2.5)
    assert config.schedule.peak == 1.0
    assert isinstance(config.schedule.peak, float)
    assert config.wandb is True
    assert config.steps == 10
    assert config.model.conv_layers == ((8, 10, 5), (8, 4, 4))


def test_without_variant_and_data_it_is_the_demo():
    for arguments in ([], ["--config=configs/music2vec.py"], ["--config.steps=7"]):
        config, _ = load(arguments)
        assert config.name == "music2vec_demo"
        assert config.data.path == "musicbox"
        assert config.model.width == 128
    assert load(["--config.steps=7"])[0].steps == 7
    assert load([DATA])[0].model.width == 768


def test_a_named_config_is_read_as_it_stands():
    assert read("configs/music2vec.py").model.width == 768
    assert read("configs/music2vec.py:large").model.width == 1024
    with pytest.raises(UserError, match="did you mean base"):
        read("configs/music2vec.py:basic")


def test_a_config_that_came_with_the_package_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load(["--config=configs/music2vec.py:demo"])[0].steps == music2vec.VARIANTS["demo"]["steps"]
    own = Path("configs/music2vec.py")
    own.parent.mkdir()
    own.write_text(Path(music2vec.__file__).read_text() + "\nVARIANTS['demo']['steps'] = 301\n")
    assert load(["--config=configs/music2vec.py:demo"])[0].steps == 301, "a file in this folder goes first"


def test_the_home_folder_may_be_written_as_a_tilde():
    config, rest = load(["--config.data.path=~/Music,~/More", "--workdir=~/run"])
    home = os.path.expanduser("~")
    assert config.data.path == f"{home}/Music,{home}/More"
    assert run_flags(rest, config).workdir == f"{home}/run"


def test_a_run_is_found_again_by_the_name_of_its_config():
    assert run_flags([], load([DATA])[0]).workdir == "runs/music2vec"
    assert run_flags([], load(["--config=configs/music2vec.py:span5", DATA])[0]).workdir == "runs/music2vec_span5"
    flags = run_flags(["--allow_change=seed,data.path"], load([DATA])[0])
    assert flags.allow_change == ("seed", "data.path")


def test_the_resolved_config_survives_json():
    config, _ = load(["--config=configs/music2vec.py:crop5s", DATA, "--config.data.weights=2"])
    again = from_json(to_json(config))
    assert again == config
    assert again.model.conv_layers == config.model.conv_layers
    check(again)


def test_a_resolved_config_takes_no_new_fields():
    config, _ = load([DATA])
    config.steps = 3
    with pytest.raises(AttributeError):
        config.stepz = 3
