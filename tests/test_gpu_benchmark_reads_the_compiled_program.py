"""benchmarks.gpu: what it counts, and that it says in one line what is missing."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import gpu
from benchmarks.rows import rows_of
from musicssl_jax.errors import UserError
from musicssl_jax.planning.hlo import parse
from musicssl_jax.planning.traffic import moves

PROGRAM = """HloModule launches

%fused (a: bf16[8,8]) -> bf16[8,8] {
  %a = bf16[8,8]{1,0} parameter(0)
  ROOT %negated = bf16[8,8]{1,0} negate(%a)
}

%body (carried: (s32[], bf16[8,8])) -> (s32[], bf16[8,8]) {
  %carried = (s32[], bf16[8,8]) parameter(0)
  %i = s32[] get-tuple-element(%carried), index=0
  %x = bf16[8,8]{1,0} get-tuple-element(%carried), index=1
  %loop_fusion = bf16[8,8]{1,0} fusion(%x), kind=kLoop, calls=%fused
  ROOT %tuple = (s32[], bf16[8,8]) tuple(%i, %loop_fusion)
}

%condition (carried: (s32[], bf16[8,8])) -> pred[] {
  %carried.1 = (s32[], bf16[8,8]) parameter(0)
  ROOT %true = pred[] constant(true)
}

ENTRY %main (p: bf16[8,8], q: (s32[], bf16[8,8])) -> bf16[8,8] {
  %p = bf16[8,8]{1,0} parameter(0)
  %q = (s32[], bf16[8,8]) parameter(1)
  %loop = (s32[], bf16[8,8]) while(%q), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"12"}}
  %triton = bf16[8,8]{1,0} fusion(%p), kind=kCustom, calls=%fused, backend_config={"kind":"__triton"}
  %product = (bf16[8,8]{1,0}, s8[4194304]{0}) custom-call(%p, %p), custom_call_target="__cublas$lt$matmul"
  ROOT %copy = bf16[8,8]{1,0} copy(%p)
}
"""


def test_launches_count_with_every_round():
    assert gpu.launches(moves(parse(PROGRAM))) == {
        "loop fusions": (12, 12 * 256),
        "cuBLASLt products": (1, 3 * 128),
        "Triton fusions": (1, 256),
        "copies": (1, 256),
    }


def test_without_the_compiler_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install --no-deps jax-cuda12-plugin==\d+\.\d+\.\d+ jax-cuda12-pjrt=="):
        gpu.main(["--results="])


@pytest.mark.long
@pytest.mark.skipif(importlib.util.find_spec("jax_cuda12_plugin") is None, reason="the compiler for GPUs is missing")
def test_an_update_is_compiled_where_there_is_no_gpu(tmp_path):
    """In a process of its own: the tests' compiler options are for tests' CPU programs."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--variant=demo", "--clips=8", "--config.precision=bfloat16"]
    command += [f"--results={tmp_path / 'rows.jsonl'}", f"--program={tmp_path / 'program.txt'}"]
    plain = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS" and not k.startswith("JAX_")}
    done = subprocess.run(command, capture_output=True, text=True, env=plain, cwd=Path(__file__).resolve().parents[1])
    assert done.returncode == 0, done.stderr[-2000:]
    [row] = rows_of(tmp_path / "rows.jsonl")
    assert row["attention"] == "cudnn" and row["launches"]["fused attention"][0] > 0
    assert {"conv_encoder", "attention", "feed_forward", "teacher"} <= {part for part, _, _ in row["parts"]}
    assert row["traffic"] == pytest.approx(sum(moved for _, moved in row["launches"].values()))
    assert '"__cudnn$fmha' in (tmp_path / "program.txt").read_text()
