"""The train step for GPUs and TPUs that are not here, as their compilers get it: attention by their own kernels."""

import json
import re
from types import SimpleNamespace

import jax
import pytest
from plan_fixtures import plan_flags

from musicssl_jax.config import load
from musicssl_jax.models.attention import choose_kernel
from musicssl_jax.parallel import make_mesh
from musicssl_jax.planning.abstract import front_ends
from musicssl_jax.planning.compiled import lower_step, make_inputs

CLIPS, HEADS, WIDTH = 4, 2, 64  # clips of each device
FRAMES, EVEN = 99, 100  # of 2 s; as in the real models, whose crops of 5 and 30 s have 249 and 1499 frames, odd


@pytest.fixture
def cudnn(monkeypatch):
    """JAX asks for the library's version and for nothing else of a GPU before it compiles."""
    from jax._src.cudnn import fused_attention_stablehlo

    monkeypatch.setattr(fused_attention_stablehlo, "cuda_versions", SimpleNamespace(cudnn_get_version=lambda: 91000))


def step(platform: str, data: int = 1, fsdp: int = 1, **fields) -> str:
    """The program's text for data x fsdp devices of a "gpu" or "tpu"."""
    fields = {"precision": "bfloat16", "data__crop_seconds": 2.0, "model__width": HEADS * WIDTH} | fields
    fields |= {"model__heads": HEADS, "model__attention_dropout": 0.0}
    config, _ = load(plan_flags(batch__clips=CLIPS * data * fsdp, batch__per_device=CLIPS, **fields))
    mesh = make_mesh(data, fsdp, jax.devices()[: data * fsdp])
    inputs = make_inputs(config, front_ends(config), mesh, platform)
    return lower_step(inputs, {"gpu": "cuda"}.get(platform, platform)).as_text()


def kernels(text: str) -> list[tuple[str, str, str]]:
    """(name, settings, types) of cuDNN's calls, in the order of the text."""
    calls = re.findall(r'custom_call @(__cudnn\S+?)\(.*backend_config = "(.*?)"[,}].* : (\(.*\) -> .*)', text)
    return [(name, settings.replace(r"\22", '"'), types) for name, settings, types in calls]


def test_a_gpus_step_has_cudnns_attention_forwards_and_backwards_and_no_scores(cudnn):
    text = step("gpu")
    found = kernels(text)
    # Student, teacher, and the student's gradient.
    assert sorted(name for name, *_ in found) == [*["__cudnn$fmhaSoftmax"] * 2, "__cudnn$fmhaSoftmaxBackward"]
    operand = f"tensor<{CLIPS}x{EVEN}x{HEADS}x{WIDTH}xbf16>"
    for name, settings, types in found:
        config = json.loads(settings.encode().decode("unicode_escape"))["cudnn_fmha_backend_config"]
        assert config["fmha_scale"] == WIDTH**-0.5 and config["dropout_rate"] == 0 and config["is_flash_attention"]
        assert config["mask_type"] == "PADDING"  # without which the odd frame's neighbour would be attended to
        # Query, key, value and lengths; in the gradient the forward pass' result and its gradient as well.
        assert types.split(" -> ")[0].count(operand) == (5 if name.endswith("Backward") else 3)
        assert types.count(f"tensor<{CLIPS}xi32>") == 2
    assert not re.findall(rf"tensor<(?:\d+x)*({FRAMES}x{FRAMES}|{EVEN}x{EVEN})x\w+>", text)


def test_an_even_number_of_frames_is_not_filled_up(cudnn):
    found = kernels(step("gpu", data__crop_seconds=2.02))
    assert len(found) == 3 and all(f"tensor<{CLIPS}x100x{HEADS}x{WIDTH}xbf16>" in types for *_, types in found)
    assert all('"mask_type": "NO_MASK"' in settings for _, settings, _ in found)


@pytest.mark.parametrize(("data", "fsdp"), [(2, 1), (1, 2), (2, 2)])
def test_each_device_runs_the_kernel_on_its_own_rows(cudnn, data, fsdp):
    """Left to JAX's own partitioning it does not compile behind the step's mapping over `data`."""
    text = step("gpu", data, fsdp)
    assert "CustomSPMDPartitioning" not in text
    rows = f"tensor<{CLIPS}x{EVEN}x{HEADS}x{WIDTH}xbf16>"
    assert [rows in types for *_, types in kernels(text)] == [True] * 3


def test_auto_takes_cudnn_for_the_heads_that_its_gradient_is_for(cudnn):
    assert choose_kernel("auto", "gpu", "bfloat16", 0.0, 64) == "cudnn"
    assert choose_kernel("auto", "gpu", "bfloat16", 0.0, 60) == "xla"


@pytest.mark.parametrize(("remat", "more"), [("products", 0), ("blocks", 1)])
def test_products_keeps_what_the_kernels_give(cudnn, remat, more):
    """A kernel is run once more where whole blocks are computed anew, and nowhere else."""
    counts = {
        platform: [step(platform, compute__remat=policy).count(call) for policy in ("none", remat)]
        for platform, call in (("gpu", "custom_call @__cudnn$fmha"), ("tpu", "custom_call @tpu_custom_call"))
    }
    # A TPU has one kernel for the queries' gradient and one for the keys' and values'.
    assert counts == {"gpu": [3, 3 + more], "tpu": [4, 4 + more]}
