"""`musicssl plan`: a screen or JSON, for devices that are simulated and for GPUs that are not there; bad input."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from plan_fixtures import WEAK, plan_flags

from musicssl_jax.errors import UserError
from musicssl_jax.plan import main, make_plan, read_flags
from musicssl_jax.planning.screen import screen

BASE = "--config=configs/music2vec.py:base"


def plan(*arguments):
    return make_plan(*read_flags([*arguments]))


def test_simulated_devices_get_a_whole_plan(capsys):
    """The program of `test_plan_predicts_what_an_update_sends`, so that it is compiled once."""
    main(["--topology=cpu:8", "--json", *plan_flags(**WEAK, batch__clips=32)])
    got = json.loads(capsys.readouterr().out)
    update, memory, estimate = got["update"], got["memory"], got["estimate"]
    assert (got["devices"], got["hosts"], got["mesh"]) == (8, 1, {"data": 8, "fsdp": 1})
    assert (update["clips"], update["micro_batches"], update["rows"], update["filled"]) == (32, 2, 16, 0)
    assert update["own_batch"] and got["refused"] is None and got["largest"] is None
    parts = ("parameters", "moments", "teacher", "batch", "activations", "other")
    assert memory["total"] == sum(memory[part] for part in parts) == memory["capacity"] - memory["headroom"]
    assert memory["parameters"] == 4 * got["parameters"]
    assert 0 <= memory["moments"] - 2 * memory["parameters"] < 100  # and the counts of steps
    assert memory["activations"] > memory["parameters"] and memory["fits"]
    assert sum(c["bytes"] for c in got["collectives"]) == got["predicted"]["bytes"]
    assert not any(c["in_loop"] for c in got["collectives"])
    assert got["compile_seconds"] > 0 and {"jax", "jaxlib", "musicssl_jax"} <= got["versions"].keys()
    assert estimate["step"] > estimate["least"] > 0 and 0 < estimate["mfu"] <= 0.31
    assert estimate["days"] == pytest.approx(estimate["step"] * got["steps"] / 86400)
    assert estimate["device_hours"] == pytest.approx(estimate["days"] * 24 * 8)
    assert got["disk"]["data"] == 1000 * 3600 * 16_000 * 2
    assert got["disk"]["checkpoint"] > memory["parameters"] * 3


def test_gpus_that_are_not_there_are_estimated_and_it_says_so():
    """More of them than the batch has clips, which it says as well."""
    got = plan(BASE, "--topology=gpu:256", "--gpu=h200", "--no_search")
    text = screen(got)
    for part in (
        *("NOT compiled", "analytic estimate", "256 H200 devices on 32 hosts", "no more than 112 devices busy"),
        *("1680 of the rows (94%)", "--config.batch.per_device=1"),
        *("by design one reduction over data", "chip-hours", "moments", "teacher", "activations", "MFU"),
    ):
        assert part in text
    assert max(map(len, text.splitlines())) < 160
    assert "ANOTHER TRAINING" not in text
    assert got.parameters == pytest.approx(93.75e6, rel=1e-4)
    assert got.compile_seconds is None and got.collectives is None
    assert got.predicted.gradients == 4 * got.parameters
    # 112 clips of 30 s at 61 GFLOP a second of audio (configs/music2vec.py).
    assert got.estimate.flops == pytest.approx(112 * 30 * 61.3e9, rel=0.01)


@pytest.mark.long
def test_what_fused_attention_and_recomputing_save_is_in_the_estimate():
    def needs(*fields):
        return plan(BASE, "--topology=gpu:8", "--no_search", *fields)

    plain, remat, again = needs(), needs("--config.compute.remat=products"), needs("--config.compute.remat=all")
    fused = needs("--config.model.attention_dropout=0", "--config.compute.attention=cudnn")
    # Without any of these, scores and what norms and GELU give are made anew already: products are most of the rest.
    for saving, share in ((remat, 0.95), (fused, 0.9), (again, 0.5)):
        assert saving.memory.activations < share * plain.memory.activations
    # All make scores anew in the backward pass, and "products" no product beside them.
    assert fused.estimate.compute == plain.estimate.compute == remat.estimate.compute < again.estimate.compute
    assert fused.estimate.flops == remat.estimate.flops


def test_a_micro_batch_that_does_not_fit_is_replaced_by_one_that_does():
    got = plan(BASE, "--topology=gpu:2", "--config.batch.per_device=56")
    assert got.refused.per_device == 56 and got.refused.memory > got.memory.capacity
    assert got.memory.fits and got.update.per_device == got.largest.clips < 56
    assert got.update.clips == 112 and got.update.own_batch
    assert re.search(r"NOT the config's 56 a device, which DO NOT FIT .*the same training", screen(got))
    assert "not confirmed by a compile" in screen(got)


def test_a_scaled_batch_is_another_training():
    text = screen(plan(BASE, "--topology=gpu:32", "--clips_per_device=7", "--no_search"))
    assert "224 clips of 30 s: 1 micro-batch of 224 rows, 7 a device" in text
    assert "ANOTHER TRAINING than the config's, whose batch is 112 clips" in text


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--topology=v5e:3x5"], "v5e:3x5: no such machine; there are v5e:1x1 2x2.*gpu:N; cpu:N"),
        (["--topology=v5p:2x2"], "v5p:2x2: no such machine"),
        (["--topology=v9:2x2"], "v9:2x2: no such machine"),
        (["--topology=gpu:0"], "gpu:0: no such machine"),
        (["--topology=gpu"], "gpu: no such machine"),
        (["--topology=cpu:100000"], "at most cpu:1024"),
        (["--topology=gpu:8", "--gpu=h300"], "--gpu=h300: no such GPU; there are h100, h200, a100"),
        (["--topology=gpu:8", "--config.mesh.data=3"], "mesh.data=3 and .*gpu:8 has 8 devices.*mesh.data=-1"),
        (["--topology=gpu:8", "--config.mesh.fsdp=16"], "mesh.fsdp=16 do not divide up the devices"),
        (["--topology=gpu:5", "--config.mesh.fsdp=5"], "does not divide over fsdp = 5 devices"),
        (
            ["--topology=gpu:8", "--config.compute.attention=splash", "--config.model.attention_dropout=0"],
            "attention=splash: there is no such kernel for a GPU.*attention=auto",
        ),
        (["--topology=gpu:8", "--clips_per_device=0"], "--clips_per_device: 0: want a number of clips, at least 1"),
        (["--topology=gpu:8", "--utilisation=1.5"], "--utilisation: 1.5: want a number above 0, at most 1"),
        (["--topology=gpu:8", "--hours=many"], "--hours: many: want a number"),
        ([], "required: --topology"),
        (["--topology=gpu:8", "--config.modle.width=3"], "config.modle.width: there is no such field"),
    ],
)
def test_bad_input_is_refused_in_one_line(arguments, complaint):
    with pytest.raises(UserError, match=complaint):
        main([BASE, *arguments])


def test_without_libtpu_the_message_says_how_to_get_it():
    program = (
        "import sys, importlib.util\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'libtpu' else find(name, *rest)\n"
        "from musicssl_jax.plan import main\n"
        "from musicssl_jax.command import run_command\n"
        "sys.exit(run_command(main))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, BASE, "--topology=v5e:2x2"],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parents[1],
    )
    assert ended.returncode == 2 and ended.stdout == ""
    assert re.fullmatch(r"error: --topology=v5e:2x2: .*pip install libtpu.*\n", ended.stderr), ended.stderr
