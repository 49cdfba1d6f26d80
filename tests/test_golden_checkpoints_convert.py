"""fairseq's own checkpoint files: into a run, on to a transformers folder, and back, against the reference's figures.

Every `.pt` of the folder that has an `.npz` of the same name is taken. Block outputs agree to 1e-4 of the layer's
largest value, as two float32 programs do; tensors on the way back to the bit.
"""

import golden_reference
import numpy as np
import pytest
from golden_reference import assert_close

from musicssl_jax.convert import main as convert
from musicssl_jax.encoder_io import load_encoder

torch = pytest.importorskip("torch", reason="fairseq's files are read with torch")
transformers = pytest.importorskip("transformers", reason="the oracle is transformers' own class")

FILES = [path for path in sorted(golden_reference.FOLDER.glob("*.pt")) if path.with_suffix(".npz").exists()]


@pytest.fixture(scope="module", params=FILES, ids=lambda path: path.stem)
def case(request, tmp_path_factory):
    """(the file, folder of all that it was converted to, the reference's source and block outputs)."""
    folder = tmp_path_factory.mktemp(request.param.stem)
    for source, kind, target in (
        (request.param, "jax", "run"),
        (folder / "run", "transformers", "transformers"),
        (folder / "transformers", "fairseq", "again.pt"),
    ):
        assert convert([f"--input={source}", f"--to={kind}", f"--output={folder / target}"]) == 0
    with np.load(request.param.with_suffix(".npz")) as arrays:
        return request.param, folder, arrays["source"][0], arrays["final/features/layer_outputs"]


def test_there_are_golden_checkpoints():
    assert FILES


def test_golden_block_outputs_agree_in_transformers(case):
    _, folder, source, want = case
    model = transformers.AutoModel.from_pretrained(folder / "transformers").eval()
    with torch.no_grad():
        states = model(torch.from_numpy(source), output_hidden_states=True).hidden_states
    assert len(states) == len(want) + 1
    for i, output in enumerate(want):
        assert_close(states[i + 1].numpy(), output, 1e-4, f"block {i}")


@pytest.mark.parametrize("kind", ["run", "transformers", "again.pt", "the file itself"])
def test_golden_block_outputs_agree_here(case, kind):
    file, folder, source, want = case
    encode = load_encoder(str(file if kind == "the file itself" else folder / kind))
    # The reference's source is normalised already: statistics of 0 and 1 leave it as it is, up to the 1e-5 in the root.
    rows = [encode(row, mean=0.0, std=1.0)["hidden"] for row in source]
    for i, output in enumerate(want):
        assert_close(np.stack([row[i + 1] for row in rows]), output, 1e-4, f"block {i}")


def test_golden_tensors_come_back_to_the_bit(case):
    file, folder, _, _ = case
    before = torch.load(file, weights_only=True)
    after = torch.load(folder / "again.pt", weights_only=True)
    assert before["cfg"] == after["cfg"]
    assert before["optimizer_history"][-1]["num_updates"] == after["optimizer_history"][-1]["num_updates"]
    assert_same(before["model"], after["model"])


def assert_same(before: dict, after: dict) -> None:
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        if isinstance(tensor, dict):
            assert_same(tensor, after[name])
        else:
            assert tensor.dtype == after[name].dtype, name
            assert torch.equal(tensor, after[name]), name
