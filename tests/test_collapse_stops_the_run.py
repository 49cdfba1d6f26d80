"""A run that learns nothing, or whose loss is not finite, ends itself with code 4, a reason and a checkpoint."""

import math

import jax
import numpy as np
import pytest
from run_fixtures import flags, tiny_config

from musicssl_jax.command import run_command
from musicssl_jax.errors import DIVERGED
from musicssl_jax.train import main
from musicssl_jax.training.collapse import CollapseWatch
from musicssl_jax.training.metrics import read_metrics
from musicssl_jax.training.reading import read_newest

HEALTHY = {
    "train/loss": 4.0,
    "target/spread": 0.5,
    "prediction/spread": 0.2,
    "target/positional_share": 0.1,
    "prediction/swap_gap": 1.0,
}
# name -> (field of its threshold, a value just past it, one just inside of it)
SIGNS = {
    "target/spread": ("target_spread", 0.099, 0.101),
    "prediction/spread": ("prediction_spread", 0.0099, 0.0101),
    "target/positional_share": ("positional_share", 0.71, 0.69),
    "prediction/swap_gap": ("swap_gap", 0.039, 0.041),  # of a loss of 4
}


def watch(**collapse):
    fields = {"stop": True, "after": 0.1, "patience": 3} | collapse
    config = tiny_config(**{f"collapse__{name}": value for name, value in fields.items()})
    return CollapseWatch(config.collapse, steps=1000, objective="data2vec")


def verdicts(watch, rows, first=100):
    return [watch.verdict(first + 10 * n, row) for n, row in enumerate(rows)]


@pytest.mark.parametrize("name", SIGNS)
def test_each_sign_stops_the_run_when_it_stays(name):
    field, past, inside = SIGNS[name]
    assert verdicts(watch(), [HEALTHY | {name: inside}] * 10) == [None] * 10
    *before, last = verdicts(watch(), [HEALTHY | {name: past}] * 3)
    assert before == [None, None]
    assert last.startswith(f"collapse at step 120: {name} is {past:.3g}")
    assert f"collapse.{field}=" in last and "try " in last


def test_a_sign_that_comes_and_goes_is_no_collapse():
    bad = HEALTHY | {"target/positional_share": 0.9}
    assert not any(verdicts(watch(), [bad, bad, HEALTHY] * 5))
    other = HEALTHY | {"prediction/swap_gap": 0.0}
    assert not any(verdicts(watch(), [bad, bad, other, other, bad, bad]))  # each sign has its own patience


def test_healthy_rows_and_rows_of_one_clip_are_no_sign():
    alone = HEALTHY | {"target/positional_share": math.nan, "prediction/swap_gap": math.nan}
    assert not any(verdicts(watch(), [HEALTHY] * 9 + [alone] * 9))


def test_young_runs_are_not_judged():
    """The first 100 of 1000 steps neither end the run nor count towards the patience."""
    bad = HEALTHY | {"target/spread": 0.0}
    seen = watch()
    assert verdicts(seen, [bad] * 10, first=0) == [None] * 10
    assert [bool(v) for v in verdicts(seen, [bad] * 3)] == [False, False, True]


def test_the_watch_can_be_turned_off():
    assert not any(verdicts(watch(stop=False), [HEALTHY | {"target/spread": 0.0}] * 9))


def ends(arguments, capsys) -> tuple[int, str]:
    """(exit code, last line on stderr) of the command."""
    code = run_command(main, arguments)
    return code, capsys.readouterr().err.strip().splitlines()[-1]


def assert_a_finite_checkpoint(workdir):
    parts = ("params", "teacher", "opt_state")
    step, state, _ = read_newest(str(workdir), parts)
    leaves = jax.tree.leaves(state)
    assert len(state) == 3 and all(np.isfinite(leaf).all() for leaf in leaves)
    return int(step.name)


SMALL = {
    "data__crop_seconds": 0.5,
    "batch__per_device": 8,
    "model__layers": 1,
    "target__top_k": 1,
    "collapse__stop": True,
    "valid__every": 1000,
    "checkpoint__every": 1000,
}


def test_a_run_that_collapses_to_positions_stops(music, tmp_path, capsys):
    """The student as its own teacher, far too fast: half a second of music is soon worth its position alone,
    while the loss falls and both spreads look healthy."""
    hasty = {"teacher__decay": 0.0, "teacher__end_decay": 0.0, "schedule__peak": 3e-2, "mask__prob": 0.8}
    arguments = flags(music, steps=100, seed=1, collapse__after=0.05, **hasty, **SMALL)
    code, line = ends([*arguments, f"--workdir={tmp_path}"], capsys)
    assert code == DIVERGED, line
    assert line.startswith("stopped: collapse at step ")
    assert "target/positional_share is" in line or "prediction/swap_gap is" in line
    assert "try a lower schedule.peak" in line
    seen = int(line.split("at step ")[1].split(":")[0])
    assert seen <= assert_a_finite_checkpoint(tmp_path) <= seen + 1
    rows = {name: values for name, (_, values) in read_metrics(tmp_path / "metrics.jsonl").items()}
    assert rows["target/positional_share"][-1] > 0.5 > rows["target/positional_share"][0]
    assert rows["train/loss"][-1] < rows["train/loss"][0]
    assert rows["target/spread"][-1] > 0.1 and rows["prediction/spread"][-1] > 0.01
    assert (tmp_path / "report.html").exists()


def test_a_loss_that_is_not_finite_stops_the_run_with_finite_parameters(music, tmp_path, capsys):
    """The rate sends the first update beyond what a float32 can square."""
    arguments = flags(music, steps=20, schedule__peak=1e25, log_every=1000, **SMALL)
    code, line = ends([*arguments, f"--workdir={tmp_path}"], capsys)
    assert code == DIVERGED, line
    assert line.startswith("stopped: step 2: loss ") and "that update was left out" in line
    assert "try a lower schedule.peak" in line
    assert assert_a_finite_checkpoint(tmp_path) >= 2
