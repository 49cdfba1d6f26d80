"""The train step compiles for TPUs that are not here, attention's fused kernel too. Needs libtpu, and minutes."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from plan_fixtures import plan_flags

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed: pip install 'musicssl_jax[tpu]'"
    ),
]

# Heads of 64 as in the real models, and 2 s of audio, whose 99 frames the kernel fills up to 128.
SMALL = {
    "precision": "bfloat16",
    "data__crop_seconds": 2.0,
    "batch__clips": 16,
    "batch__per_device": 2,
    "model__width": 128,
    "model__heads": 2,
    "prng": "rbg",
}


def plan(topology: str, *arguments: str, **fields) -> dict:
    """Of a small config; in a process of its own, since libtpu stays in one."""
    flags = plan_flags(**(SMALL | fields))
    ended = subprocess.run(
        [sys.executable, "-m", "musicssl_jax.plan", f"--topology={topology}", "--json", *flags, *arguments],
        capture_output=True,
        text=True,
        timeout=1200,
        cwd=Path(__file__).parents[1],
        env={name: value for name, value in os.environ.items() if name not in ("JAX_PLATFORMS", "XLA_FLAGS")},
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert all(line.startswith("compiling for") for line in ended.stderr.splitlines()), ended.stderr[-3000:]
    return json.loads(ended.stdout)


def test_a_v5e_slice_gets_a_whole_plan():
    """Attention with dropout, which no fused kernel has."""
    got = plan("v5e:2x2", "--no_search")
    assert (got["chip"], got["devices"], got["mesh"]) == ("v5e", 4, {"data": 4, "fsdp": 1})
    assert got["attention"] == "xla"
    assert got["update"]["micro_batches"] == 2 and got["memory"]["fits"]
    assert got["memory"]["capacity"] == int(15.75 * 2**30)
    assert {(c["kind"], c["in_loop"]) for c in got["collectives"]} == {("all-reduce", False)}
    assert sum(c["bytes"] for c in got["collectives"]) == got["predicted"]["bytes"]
    # Each of the update's own numbers is read and written.
    state = sum(got["memory"][part] for part in ("parameters", "moments", "teacher"))
    assert got["unknown_loops"] == 0 and got["estimate"]["traffic"] > 2 * state
    assert "libtpu" in got["versions"]


def test_the_fused_kernel_recomputing_and_fsdp_compile_for_v5p():
    """Splash, which "auto" takes without attention dropout; each device of fsdp runs it on its own rows."""
    fields = {"model__attention_dropout": 0.0, "compute__remat": "products", "mesh__fsdp": 2}
    got = plan("v5p:2x2x1", "--no_search", **fields)
    assert (got["attention"], got["mesh"]) == ("splash", {"data": 2, "fsdp": 2})
    over_data = [c for c in got["collectives"] if "data" in c["axes"] and c["bytes"]]
    assert {(c["kind"], c["in_loop"]) for c in over_data} == {("all-reduce", False)}
    assert sum(c["bytes"] for c in over_data) == got["predicted"]["bytes"]
