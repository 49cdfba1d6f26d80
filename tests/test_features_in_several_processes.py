"""`embed` and `evaluate` started as two processes that find each other: the features and scores of one."""

import numpy as np
import pytest
from encoder_fixtures import tiny_config_file
from process_fixtures import run

from data_pipelines.musicbox import write_musicbox
from data_pipelines.musicbox.official_layouts import write_task_sets
from musicssl_jax.mir.report.results import read_results


def all_end_well(ended) -> None:
    assert [code for code, _, _ in ended] == [0] * len(ended), [err for _, _, err in ended]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return f"random:{tiny_config_file(tmp_path_factory.mktemp('config'))}:tiny"


@pytest.mark.long
def test_two_processes_embed_as_one(encoder, tmp_path):
    write_musicbox(tmp_path / "audio", seed=3, tracks=6, family="additive", seconds=4.0)
    for processes in (1, 2):
        flags = [f"--checkpoint={encoder}", f"--input={tmp_path / 'audio'}", f"--output={tmp_path / str(processes)}"]
        all_end_well(run("musicssl_jax.embed", flags, processes))
    one, two = ({file.name: np.load(file) for file in (tmp_path / n).rglob("*.npz")} for n in "12")
    assert one.keys() == two.keys() and len(one) == 6
    for name, arrays in one.items():
        for key in arrays.files:
            if arrays[key].dtype.kind == "f":
                np.testing.assert_allclose(two[name][key], arrays[key], rtol=1e-5, atol=1e-6)


@pytest.mark.long
def test_two_processes_evaluate_as_one(encoder, tmp_path):
    """Both make features; the first probes and reports."""
    write_task_sets(tmp_path / "MIR", seed=2, sets=["emomusic"])
    said = {}
    for processes in (1, 2):
        flags = [
            f"--checkpoint=tiny={encoder}",
            f"--data_dir={tmp_path / 'MIR'}",
            f"--output={tmp_path / str(processes)}",
            "--tasks=emomusic",
            "--baselines=none",
            "--networks=linear",
            "--seeds=1",
            "--max_missing=1",
        ]
        ended = run("musicssl_jax.evaluate", flags, processes)
        all_end_well(ended)
        said[processes] = [out for _, out, _ in ended]
    assert "tiny" in said[2][0] and "tiny" not in said[2][1]
    (one,), (two,) = (read_results(tmp_path / n) for n in "12")
    np.testing.assert_allclose(two.main_scores, one.main_scores, atol=1e-3)
