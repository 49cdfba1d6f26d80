"""A mistake in a config is one sentence that names the field and says what was expected."""

import pytest

from musicssl_jax.config import load, run_flags
from musicssl_jax.errors import UserError

DEMO = "--config=configs/music2vec.py:demo"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--config=configs/nothing.py"], ["configs/nothing.py", "no such file", "configs/music2vec.py"]),
        (["--config=pyproject.toml"], ["pyproject.toml", "Python file"]),
        (["--config=configs/music2vec.py:crop5"], ["music2vec.py:crop5: ", "did you mean crop5s", "span15"]),
        ([DEMO, "--config.stepz=3"], ["stepz", "did you mean steps"]),
        ([DEMO, "--config.crop_seconds=3"], ["crop_seconds", "did you mean data.crop_seconds"]),
        ([DEMO, "--config.steps.more=3"], ["steps.more", "no such field"]),
        ([DEMO, "--config.data=3"], ["config.data", "a group of fields"]),
        ([DEMO, "--config.steps"], ["--config.steps", "needs a value"]),
        ([DEMO, "--config.steps", "--config.seed=1"], ["--config.steps", "needs a value"]),
        ([DEMO, "--config.steps=1.5"], ["config.steps=1.5", "whole number"]),
        ([DEMO, "--config.steps=many"], ["config.steps=many", "whole number"]),
        ([DEMO, "--config.schedule.peak=high"], ["config.schedule.peak=high", "number"]),
        ([DEMO, "--config.schedule.peak=nan"], ["config.schedule.peak=nan", "finite number"]),
        ([DEMO, "--config.wandb=2"], ["config.wandb=2", "true or false"]),
        ([DEMO, "--config.data.weights=(1,"], ["config.data.weights=(1,", "commas"]),
    ],
)
def test_what_cannot_be_read_is_named(arguments, said):
    message = _objection(arguments)
    assert "\n" not in message
    for words in said:
        assert words in message


@pytest.mark.parametrize(
    ("override", "demand"),
    [
        ("steps=0", "at least 1"),
        ("log_every=0", "at least 1"),
        ("data.crop_seconds=-1", "more than 0"),
        ("data.crop_seconds=.01", "needs 400"),
        ("batch.clips=0", "at least 1"),
        ("mesh.data=0", "-1 for all"),
        ("mask.prob=1.5", "between 0 and 1"),
        ("model.dropout=1", "less than 1"),
        ("model.heads=5", "does not divide config.model.width=128"),
        ("model.positional_groups=7", "does not divide"),
        ("model.conv_layers=((128,10),)", "(channels, kernel, stride)"),
        ("target.top_k=5", "more than config.model.layers=4"),
        ("precision=fp16", "bfloat16, float32"),
        ("optimizer.name=sgd", "adam_fairseq, adamw"),
        ("schedule.hold=.5", "needs 1"),
        ("data.weights=1,2", "2 entries for 1 paths"),
        ("data.weights=-1", "above 0"),
        ("data.path=a,,b", "between two commas"),
        ("teacher.decay=1.1", "between 0 and 1"),
        ("checkpoint.every=0", "at least 1"),
    ],
)
def test_values_that_make_no_sense_are_refused(override, demand):
    field = override.partition("=")[0].rpartition(".")[0] or override.partition("=")[0]
    message = _objection([DEMO, f"--config.{override}"])
    assert f"config.{field}" in message
    assert demand in message


def test_a_mask_that_hides_nothing_is_refused():
    message = _objection([DEMO, "--config.mask.prob=0", "--config.mask.min_masks=0"])
    assert "nothing would be masked" in message


def test_a_config_file_with_text_for_a_number_is_refused(tmp_path):
    file = tmp_path / "typo.py"
    file.write_text(
        "from configs.music2vec import base\nfrom ml_collections import ConfigDict\n"
        "VARIANTS = {}\n"
        "def get_config(variant):\n    return ConfigDict({**base(), 'steps': 'many'})\n"
    )
    assert "config.steps='many'" in _objection([f"--config={file}", "--config.data.path=music"])


def test_a_file_that_is_no_config_is_refused(tmp_path):
    file = tmp_path / "other.py"
    file.write_text("answer = 42\n")
    assert "has no get_config" in _objection([f"--config={file}"])


def test_a_mistyped_folder_does_not_fall_back_to_the_packaged_file():
    assert "no such file" in _objection(["--config=my/music2vec.py"])


def test_unknown_flags_of_a_run_are_refused():
    config, rest = load([DEMO, "--work_dir=there"])
    with pytest.raises(UserError, match="--work_dir=there"):
        run_flags(rest, config)
    with pytest.raises(UserError, match="--work=there"):
        run_flags(["--work=there"], config)  # no abbreviations: a later flag would change what they mean
    with pytest.raises(UserError, match="did you mean steps"):
        run_flags(["--allow_change=step"], config)


def _objection(arguments: list[str]) -> str:
    with pytest.raises(UserError) as caught:
        load(arguments)
    return str(caught.value)
