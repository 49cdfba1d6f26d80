"""`convert --verify` and conversions at odd places."""

import numpy as np
import pytest
from conversion_fixtures import convert, fails, random_model, save_run, small_config

from musicssl_jax.convert import main
from musicssl_jax.encoder_io import load_encoder
from musicssl_jax.interop.reading import read_pretrained


def test_a_value_that_is_no_number_is_not_equal(tmp_path, capsys):
    pytest.importorskip("torch", reason="--verify runs transformers on torch")
    model = random_model(small_config("data2vec"))
    model.params["encoder/transformer/blocks/feed_out/bias"][-1] = np.nan
    run = save_run(tmp_path / "run", model)
    code = main([f"--input={run}", "--to=transformers", f"--output={tmp_path / 'model'}", "--verify", "--license=mit"])
    assert code == 1
    assert "NOT EQUAL" in capsys.readouterr().out


def test_a_run_may_have_a_number_for_its_name(tmp_path):
    run = save_run(tmp_path / "run", random_model(small_config("data2vec")))
    again = convert(run, "jax", tmp_path / "5")
    assert read_pretrained(str(again)).params.keys() == read_pretrained(str(run)).params.keys()
    assert load_encoder(str(again)).width == load_encoder(str(run)).width


def test_paths_of_a_foreign_file_stay_at_home(tmp_path):
    torch = pytest.importorskip("torch", reason="fairseq's files are read with torch")
    run = save_run(tmp_path / "run", random_model(small_config("data2vec")))
    pt = convert(run, "fairseq", tmp_path / "model.pt")
    content = torch.load(pt, weights_only=True)
    content["cfg"]["task"]["data"] = "/home/somebody/music"
    del content["musicssl"]
    torch.save(content, pt)
    folder = convert(pt, "transformers", tmp_path / "model")
    assert not [path for path in folder.rglob("*") if path.is_file() and b"somebody" in path.read_bytes()]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--output=gs://bucket/model"], "local folders"),
        (["--output=/dev/null"], "is there already"),
        (["--output=new", "--scores=scores.json"], "model card"),
        (["--output=new", "--clusters=0,25"], "numbers from 1"),
        (["--output=new", "--dictionary_rows=-4"], "number of rows"),
    ],
)
def test_flags_that_make_no_sense_are_refused(tmp_path, monkeypatch, capfd, flags, said):
    run = save_run(tmp_path / "run", random_model(small_config("data2vec")))
    monkeypatch.chdir(tmp_path)
    assert said in fails(capfd, f"--input={run}", "--to=jax", *flags)
    assert not (tmp_path / "new").exists() and not (tmp_path / "gs:").exists()
