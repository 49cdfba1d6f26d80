"""A codebook's folder gives back what was saved, or says which file will not do; it is used where it fits."""

import dataclasses
import json
import os

import numpy as np
import pytest
from codebook_fixtures import band_energies
from matplotlib.image import imread
from safetensors.numpy import load_file

from musicssl_jax.errors import UserError
from musicssl_jax.targets.codebook import (
    Codebook,
    check_fits,
    codebook_id,
    files_within,
    front_end_of,
    load_codebook,
    read_codebooks,
    save_codebook,
)
from musicssl_jax.targets.new_codebook import summary

FILES = ["centroids.safetensors", "codebook.json", "codebook.png"]


@pytest.fixture
def codebook():
    rng = np.random.default_rng(0)
    return Codebook(
        centroids=rng.normal(size=(7, 5)).astype(np.float32),
        front_end=front_end_of(band_energies()),
        data=[{"build_id": "abc", "splits": {"train": {"shards": 2}}}],
        settings={"clusters": 7, "seed": 1},
        inertia_curve=np.linspace(9, 4, 30).astype(np.float32),
        usage=np.array([4, 0, 50, 7, 0, 1, 9], np.int32),
        agreement=0.75,
    )


def assert_same(codebook, other):
    for field in dataclasses.fields(Codebook):
        np.testing.assert_equal(getattr(codebook, field.name), getattr(other, field.name))


def test_what_was_saved_comes_back(codebook, tmp_path):
    save_codebook(tmp_path / "new" / "codes", codebook)
    assert sorted(os.listdir(tmp_path / "new" / "codes")) == FILES
    assert os.listdir(tmp_path / "new") == ["codes"]  # nothing unfinished beside it
    loaded = load_codebook(tmp_path / "new" / "codes")
    assert_same(loaded, codebook)
    assert codebook_id(loaded) == codebook_id(codebook)
    check_fits(loaded, band_energies(), 7, "here")


def test_a_checkpoint_gives_back_its_codebooks_in_order(codebook, tmp_path):
    """Also where there are so many that names sort otherwise, and each as any codebook's folder."""
    assert read_codebooks(tmp_path) == []
    codebooks = [dataclasses.replace(codebook, centroids=codebook.centroids + i) for i in range(12)]
    for name, content in files_within(codebooks).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    for read, saved in zip(read_codebooks(tmp_path), codebooks, strict=True):
        assert_same(read, saved)
    assert_same(load_codebook(tmp_path / "codebooks" / "3_bands"), codebooks[3])


def test_the_folder_speaks_for_itself(codebook, tmp_path):
    """To programs that only know JSON and safetensors, and to people."""
    save_codebook(tmp_path / "codes", codebook)
    content = json.loads((tmp_path / "codes/codebook.json").read_text())
    assert content["front_end"]["sample_rate"] == 16000 and content["front_end"]["hop"] == 320
    assert content["clusters"] == 7 and content["empty_clusters"] == [1, 4]
    assert content["id"] == codebook_id(codebook)
    assert {"jax", "numpy", "musicssl_jax"} <= content["versions"].keys()
    assert len(content["inertia_curve"]) == 30
    arrays = load_file(tmp_path / "codes/centroids.safetensors")
    np.testing.assert_array_equal(arrays["centroids"], codebook.centroids)
    np.testing.assert_array_equal(arrays["usage"], codebook.usage)
    picture = imread(tmp_path / "codes/codebook.png")
    assert picture.shape[1] > 900 and picture[..., :3].std() > 0.05


def test_the_id_follows_from_centroids_and_front_end_alone(codebook):
    same = dataclasses.replace(codebook, data="elsewhere", settings={}, usage=codebook.usage + 1)
    assert codebook_id(same) == codebook_id(codebook)
    reordered = dict(reversed(codebook.front_end.items()))
    assert codebook_id(dataclasses.replace(codebook, front_end=reordered)) == codebook_id(codebook)
    moved = codebook.centroids.copy()
    moved[3, 2] = np.nextafter(moved[3, 2], np.float32(9))
    others = [
        dataclasses.replace(codebook, centroids=moved),
        dataclasses.replace(codebook, front_end=front_end_of(band_energies(floor=1.0))),
    ]
    assert len({codebook_id(x) for x in [codebook, *others]}) == 3


def test_a_command_says_how_far_a_layers_labels_are_the_crops(codebook):
    assert "30 batches, inertia 4, 2 of 7 clusters empty, labels agree on 75.0% of frames" in summary(codebook)
    unknown = dataclasses.replace(codebook, agreement=None)
    assert summary(unknown).endswith("2 of 7 clusters empty")
    of_layer = dataclasses.replace(unknown, front_end={**codebook.front_end, "front_end": "layer"})
    assert summary(of_layer).endswith("no track is long enough to see whether overlapping crops agree")


def test_an_existing_folder_is_not_overwritten(codebook, tmp_path):
    (tmp_path / "codes").mkdir()
    (tmp_path / "codes/notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"codes is there already: choose another folder"):
        save_codebook(tmp_path / "codes", codebook)
    assert os.listdir(tmp_path / "codes") == ["notes.txt"]
    with pytest.raises(UserError, match=r"cannot write the codebook .*notes.txt/codes: Not a directory"):
        save_codebook(tmp_path / "codes/notes.txt/codes", codebook)


def test_leftovers_of_an_interrupted_save_do_not_matter(codebook, tmp_path):
    (tmp_path / ".codes.unfinished").mkdir()
    (tmp_path / ".codes.unfinished/centroids.safetensors").write_text("half")
    save_codebook(tmp_path / "codes", codebook)
    assert os.listdir(tmp_path) == ["codes"]
    assert codebook_id(load_codebook(tmp_path / "codes")) == codebook_id(codebook)


@pytest.mark.parametrize("name", FILES[:2])
def test_missing_and_damaged_files_are_named(codebook, tmp_path, name):
    save_codebook(tmp_path / "codes", codebook)
    path = tmp_path / "codes" / name
    whole = path.read_bytes()
    flipped = whole.replace(b"16000", b"16001") if name == "codebook.json" else bytes([*whole[:-1], whole[-1] ^ 1])
    for damage in (whole[:-30], b"", flipped):
        path.write_bytes(damage)
        with pytest.raises(UserError, match=f"{path} is damaged"):
            load_codebook(tmp_path / "codes")
    path.unlink()
    with pytest.raises(UserError, match=f"cannot read {path}: No such file"):
        load_codebook(tmp_path / "codes")


def test_other_formats_are_refused(codebook, tmp_path):
    save_codebook(tmp_path / "codes", codebook)
    path = tmp_path / "codes/codebook.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(UserError, match=r"codebook.json has format 2, and this version reads 1"):
        load_codebook(tmp_path / "codes")


def test_a_codebook_is_used_where_it_fits_alone(codebook):
    features = band_energies()
    for other, clusters, reason in [
        (features, 8, r"has 7 clusters and 8 are asked for"),
        (band_energies(hop=160), 7, r"another frame rate .*16000 Hz with a hop of 320 and 16000 Hz with a hop of 160"),
        (band_energies(sample_rate=24000), 7, r"another frame rate .*24000 Hz"),
        (dataclasses.replace(features, width=6), 7, r"has 5 dimensions and bands has 6"),
        (band_energies(bands=9), 7, r"another front end than bands: bands 4 instead of 9;"),
        (band_energies(lowest=20.0), 7, r"another front end than bands: lowest nothing instead of 20\.0"),
        (band_energies(front_end="mfcc39"), 7, r'front_end "bands" instead of "mfcc39"'),
    ]:
        with pytest.raises(UserError, match=rf"the codebook .*{reason}.*fit a new one"):
            check_fits(codebook, other, clusters, "here")
    check_fits(codebook, features, 7, "here")
