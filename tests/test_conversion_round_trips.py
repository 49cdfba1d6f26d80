"""What a run holds comes back from every chain of formats bit for bit, and each format's names are its own."""

import json

import numpy as np
import pytest
from conversion_fixtures import (
    assert_same_model,
    assert_same_tensors,
    convert,
    fails,
    random_model,
    save_run,
    small_config,
)
from golden_reference import FOLDER
from hypothesis import example, given, settings
from hypothesis import strategies as st

from musicssl_jax.interop import fairseq_file, transformers_folder
from musicssl_jax.interop.fairseq_config import parse_conv_layers
from musicssl_jax.interop.fairseq_file import write_fairseq
from musicssl_jax.interop.key_map import places
from musicssl_jax.interop.pretrained import shapes_of
from musicssl_jax.interop.reading import read_pretrained
from musicssl_jax.interop.transformers_folder import write_transformers

torch = pytest.importorskip("torch", reason="fairseq's files are read and written with torch")

GOLDEN = sorted(path for path in FOLDER.glob("*.pt") if path.with_suffix(".npz").exists())


@st.composite
def encoders(draw) -> dict:
    """Fields of encoders of odd sizes: all options, whether or not others have a class for them."""
    size = st.integers(1, 9)
    heads, groups = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    width = heads * groups * draw(st.integers(1, 3))
    conv = draw(st.lists(st.tuples(size, st.integers(1, 6), st.integers(1, 4)), min_size=1, max_size=4))
    if draw(st.booleans()):  # as wide as the transformer, where fairseq's HuBERT has no projection
        conv[-1] = (width, *conv[-1][1:])
    depth = draw(st.integers(1, 3))
    stacked = draw(st.booleans())
    return {
        "model.conv_layers": tuple(conv),
        "model.conv_norm": draw(st.sampled_from(["layer", "group"])),
        "model.conv_bias": draw(st.booleans()),
        "model.width": width,
        "model.ffn": draw(size),
        "model.heads": heads,
        "model.layers": draw(st.integers(1, 3)),
        "model.norm_first": draw(st.booleans()),
        "model.positional": "stacked" if stacked else "weight_norm",
        "model.positional_depth": depth if stacked else 1,
        "model.positional_kernel": draw(st.integers(1, 12)),
        "model.positional_groups": groups,
    }


data2vec_fields = st.builds(
    lambda encoder, average: encoder | {"target.top_k": 1, "teacher.average": average},
    encoders(),
    st.sampled_from(["blocks", "transformer", "all"]),
)
hubert_fields = st.builds(
    lambda encoder, clusters, width, untied, regression: (
        encoder
        | {
            "clusters": tuple(clusters),
            "targets": ("mfcc39", "chroma12", "cqt84")[: len(clusters)],
            "prediction.width": width,
            "prediction.untied": untied,
            "regression": regression,
        }
    ),
    encoders(),
    st.lists(st.integers(2, 9), min_size=1, max_size=3),
    st.integers(1, 7),
    st.booleans(),
    st.sampled_from(["", "chroma24"]),
)
any_fields = st.one_of(st.tuples(st.just("data2vec"), data2vec_fields), st.tuples(st.just("hubert"), hubert_fields))
# Those that transformers has a class for.
PLAIN = {"model.positional": "stacked", "model.conv_norm": "layer", "model.norm_first": False}
LARGE = {"model.conv_norm": "layer", "model.conv_bias": True, "model.norm_first": True}
THREE_SETS = {"clusters": (5, 3, 4), "targets": ("mfcc39", "chroma12", "cqt84"), "regression": "cqt84"}


def has_a_class(config) -> bool:
    model = config.model
    if config.objective == "hubert":
        return model.positional == "weight_norm"
    return (model.positional, model.conv_norm, model.norm_first) == tuple(PLAIN.values())


def assert_all_chains_of_files_give_it_back(config, folder) -> None:
    """Through files alone, which takes less time than with the folders of runs."""
    model = random_model(config)
    write_fairseq(model, folder / "model.pt")
    found = [read_pretrained(str(folder / "model.pt"))]
    if has_a_class(config):
        write_transformers(model, folder / "transformers", license="", scores={})
        found.append(read_pretrained(str(folder / "transformers")))
        write_fairseq(found[-1], folder / "both.pt")
        found.append(read_pretrained(str(folder / "both.pt")))
    for back in found:
        assert_same(back, model)


def assert_all_chains_of_runs_give_it_back(config, folder) -> None:
    model = random_model(config)
    run = save_run(folder / "run", model)
    chains = [convert(convert(run, "fairseq", folder / "model.pt"), "jax", folder / "from_fairseq")]
    if has_a_class(config):
        transformers = convert(run, "transformers", folder / "transformers")
        chains.append(convert(transformers, "jax", folder / "from_transformers"))
        chains.append(convert(convert(transformers, "fairseq", folder / "both.pt"), "jax", folder / "from_both"))
    for path in chains:
        assert_same(read_pretrained(str(path)), model)


def assert_same(back, model) -> None:
    assert_same_model(back, model)
    # Where its data lay is nobody else's business.
    assert back.config.to_dict() | {"data": None} == model.config.to_dict() | {"data": None}


OF_RUNS = {
    "music2vec": ("data2vec", PLAIN | {"teacher.average": "all", "model.conv_bias": True}),
    "musichubert": ("hubert", LARGE | THREE_SETS),
    "tied": (
        "hubert",
        THREE_SETS | {"prediction.untied": False, "model.conv_layers": ((5, 10, 5), (24, 3, 2))},
    ),
}


@pytest.mark.parametrize("case", OF_RUNS.values(), ids=OF_RUNS)
def test_runs_come_back_as_runs(tmp_path, case):
    assert_all_chains_of_runs_give_it_back(small_config(*case), tmp_path)


@settings(max_examples=6, deadline=None)
@given(any_fields)
@example(("data2vec", {"teacher.average": "transformer", "model.conv_norm": "group"}))
@example(("data2vec", {"model.positional": "weight_norm", "model.positional_depth": 1, "model.norm_first": True}))
def test_models_of_odd_sizes_come_back(tmp_path_factory, case):
    assert_all_chains_of_files_give_it_back(small_config(*case), tmp_path_factory.mktemp("chain"))


@pytest.mark.long
@settings(max_examples=40, deadline=None)
@given(any_fields)
def test_runs_of_odd_sizes_come_back(tmp_path_factory, case):
    assert_all_chains_of_runs_give_it_back(small_config(*case), tmp_path_factory.mktemp("chain"))


@pytest.mark.parametrize(
    ("objective", "fields"),
    [
        ("data2vec", {"model.norm_first": True}),
        ("data2vec", {"model.conv_norm": "group"}),
        ("hubert", {"model.positional": "stacked"}),
    ],
)
def test_what_transformers_has_no_class_for_is_refused(tmp_path, capfd, objective, fields):
    run = save_run(tmp_path / "run", random_model(small_config(objective, fields)))
    output = tmp_path / "out"
    said = fails(capfd, f"--input={run}", "--to=transformers", f"--output={output}")
    assert all(f"{name}={value}" in said for name, value in fields.items())
    assert not output.exists()


@settings(max_examples=10, deadline=None)
@given(any_fields)
def test_names_are_one_to_one(case):
    """No two of our parameters have one name in the other format, and none is forgotten."""
    config = small_config(*case)
    shapes = shapes_of(config)
    for table in (fairseq_file.key_table(config.model), transformers_folder.key_table(config.model)):
        found = places(shapes, table)
        theirs = [place.theirs for place in found]
        assert len(set(theirs)) == len(theirs)
        assert len({(place.ours, place.block) for place in found}) == len(found)
        assert sum(np.prod(place.shape) for place in found) == sum(
            np.prod(shape) for name, shape in shapes.items() if name in {place.ours for place in found}
        )
        assert {name for name in shapes if name.startswith("encoder/")} <= {place.ours for place in found}
    of_fairseq = {place.ours for place in places(shapes, fairseq_file.key_table(config.model))}
    assert {name for name in shapes if not name.startswith("regression/")} == of_fairseq


@pytest.mark.parametrize(
    ("objective", "fields"),
    [
        ("data2vec", {}),
        ("data2vec", {"model.conv_bias": True, "model.layers": 3}),
        ("hubert", {}),
        ("hubert", LARGE),
        ("hubert", {"model.conv_bias": True}),
    ],
)
def test_names_and_shapes_are_those_of_transformers_class(objective, fields):
    transformers = pytest.importorskip("transformers", reason="the names are those of transformers' own class")
    config = small_config(objective, fields)
    theirs = transformers_folder.write_config(config, {})
    model_config = transformers.AutoConfig.for_model(**theirs)
    expected = {
        name: tuple(t.shape) for name, t in transformers.AutoModel.from_config(model_config).state_dict().items()
    }
    table = transformers_folder.key_table(config.model)
    assert {place.theirs: place.shape for place in places(shapes_of(config), table)} == expected


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_names_and_shapes_are_those_of_fairseq(path):
    content = torch.load(path, weights_only=True)
    config = read_pretrained(str(path)).config
    state = {name: tuple(value.shape) for name, value in content["model"].items() if name != "_ema"}
    table = fairseq_file.key_table(config.model)
    assert {place.theirs: place.shape for place in places(shapes_of(config), table)} == state


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_a_written_file_looks_like_fairseqs_own(path, tmp_path):
    """A run of ours in the sizes of fairseq's file: the same names under `model` and `_ema`, the same options."""
    theirs = torch.load(path, weights_only=True)
    config = read_pretrained(str(path)).config
    if config.objective == "hubert":
        config = config.copy_and_resolve_references().unlock()
        config.targets = ("mfcc39", "chroma12", "cqt84")[: len(config.clusters)]
    run = save_run(tmp_path / "run", random_model(config))
    ours = torch.load(convert(run, "fairseq", tmp_path / "ours.pt"), weights_only=True)
    assert theirs.keys() <= ours.keys()
    assert ours["model"].keys() == theirs["model"].keys()
    for name, tensor in theirs["model"].items():
        if name == "_ema":
            assert {n: t.shape for n, t in ours["model"]["_ema"].items()} == {n: t.shape for n, t in tensor.items()}
        elif name == "label_embs_concat":
            assert ours["model"][name].shape == (sum(config.clusters) + 4 * len(config.clusters), tensor.shape[1])
        else:
            assert ours["model"][name].shape == tensor.shape, name
    for group in ("model", "task"):
        # Their file has no group `optimization` to take it from.
        shared = (ours["cfg"][group].keys() & theirs["cfg"][group].keys()) - {"max_update"}
        assert {n: ours["cfg"][group][n] for n in shared} == {n: _spelt(theirs["cfg"][group][n]) for n in shared}
    assert {"model", "task", "criterion", "optimizer", "optimization", "lr_scheduler"} <= ours["cfg"].keys()
    assert (
        ours["cfg"]["task"]["_name"]
        == {"data2vec": "audio_pretraining", "hubert": "hubert_pretraining"}[config.objective]
    )
    assert ours["optimizer_history"][-1]["num_updates"] == 7


def _spelt(value):
    """Our spelling of the same layers."""
    if isinstance(value, str) and value.startswith("[("):
        return str([tuple(layer) for layer in parse_conv_layers(value)])
    return value


@pytest.mark.parametrize(
    ("objective", "fields", "cannot"),
    [
        ("hubert", {"model.conv_layers": ((5, 10, 5), (24, 3, 2))}, True),
        ("data2vec", {"model.positional_depth": 1}, True),
        ("hubert", {}, False),
        ("data2vec", {}, False),
    ],
)
def test_what_fairseq_itself_cannot_load_is_said(tmp_path, objective, fields, cannot):
    notes = write_fairseq(random_model(small_config(objective, fields)), tmp_path / "model.pt")
    assert ("cannot load this file" in " ".join(notes)) is cannot


def test_each_set_of_a_written_file_begins_with_four_rows_of_no_cluster(tmp_path):
    """As fairseq's dictionaries want it: cluster k of a set is row k + 4 of that set's rows."""
    model = random_model(small_config("hubert", THREE_SETS))
    pt = convert(save_run(tmp_path / "run", model), "fairseq", tmp_path / "model.pt")
    rows = torch.load(pt, weights_only=True)["model"]["label_embs_concat"].numpy()
    embeddings = model.params["label_embeddings"]
    assert len(rows) == 4 * 3 + 5 + 3 + 4
    for first, begin, clusters in ((4, 0, 5), (13, 5, 3), (20, 8, 4)):
        np.testing.assert_array_equal(rows[first : first + clusters], embeddings[begin : begin + clusters])


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_fairseqs_file_comes_back_through_transformers(path, tmp_path):
    """Also what transformers has no place for: teacher, heads, and the options of a model that it cannot say."""
    before = torch.load(path, weights_only=True)
    folder = convert(path, "transformers", tmp_path / "transformers")
    run = convert(folder, "jax", tmp_path / "run")
    after = torch.load(convert(run, "fairseq", tmp_path / "back.pt"), weights_only=True)
    teachers = [content["model"].pop("_ema", {}) for content in (after, before)]
    assert_same_tensors(*[{name: t.numpy() for name, t in teacher.items()} for teacher in teachers])
    assert_same_tensors(*[{n: t.numpy() for n, t in content["model"].items()} for content in (after, before)])
    assert json.dumps(after["cfg"], sort_keys=True) == json.dumps(before["cfg"], sort_keys=True)


def test_the_teachers_encoder_takes_the_students_place(tmp_path):
    model = random_model(small_config("data2vec", {"teacher.average": "transformer"}))
    run = save_run(tmp_path / "run", model)
    folder = convert(run, "transformers", tmp_path / "teacher", "--weights=teacher")
    back = read_pretrained(str(folder))
    taken = {f"encoder/{name}": value for name, value in model.teacher.items()}
    assert_same_tensors(back.params, {**model.params, **taken})
    assert_same_tensors(back.teacher, model.teacher)


def test_a_model_without_a_teacher_has_none_to_give(tmp_path, capfd):
    run = save_run(tmp_path / "run", random_model(small_config("hubert")))
    said = fails(capfd, f"--input={run}", "--to=transformers", f"--output={tmp_path / 'out'}", "--weights=teacher")
    assert "without a teacher" in said
