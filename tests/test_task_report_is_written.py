"""The report of results of all kinds: what stands in its table, its page and its comparison."""

import csv
import dataclasses
import json
import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from task_report_fixtures import made_up_result

from musicssl_jax.errors import UserError
from musicssl_jax.mir.report.published import printed_main_score, published_rows
from musicssl_jax.mir.report.results import Contamination
from musicssl_jax.mir.report.tables import NOT_A_NUMBER, cell_text, make_table, printed_text, text_table
from musicssl_jax.mir.report.writing import compare, write_report
from musicssl_jax.mir.tasks.catalogue import TASKS

HEARD = Contamination(0.0, None, 0.125, (("song 3", "pretraining/7", 12.5),), "by landmarks")
CLEAN = Contamination(0.0, 0.0, 0.0)


@pytest.fixture(scope="module")
def results():
    """A trained encoder, a better one, a random one, and a baseline of one layer; few units, as in a demo."""
    made = [
        made_up_result("gtzan_genre", "runs/<weak>", skill=0.3, contamination=CLEAN, units=60, groups=60),
        made_up_result("gtzan_genre", "strong", skill=2.5, contamination=HEARD, units=60, groups=60),
        made_up_result("gtzan_genre", "random", kind="random", skill=0.2, units=60, groups=60),
        made_up_result("gtzan_genre", "mfcc", kind="baseline", layers=1, seeds=1, units=60, groups=60),
        made_up_result("emomusic", "runs/<weak>", skill=0.5),
        made_up_result("emomusic", "strong", protocol_id="marble-v1-1"),
        made_up_result("emomusic", "mfcc", kind="baseline", layers=1, skill=0.5),
        made_up_result("gtzan_beats", "strong"),
        made_up_result("gtzan_beats", "mfcc", kind="baseline", layers=1, skill=0.4),
        made_up_result("mtg_instrument", "strong", units=30),
    ]
    nan = {"mlp": {"accuracy": (math.nan,) * 3}}
    broken = made_up_result("nsynth_pitch", "strong", outputs=np.full((3, 40, 128), np.nan), scores=nan)
    return [*made, dataclasses.replace(broken, confusion=None)]


@pytest.fixture(scope="module")
def report(results, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    return folder, write_report(results, folder)


def markdown_rows(text: str) -> dict[str, list[str]]:
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    assert len({len(line) for line in lines}) == 1
    return {name: cells for name, *cells in lines}


def test_the_table_has_every_encoder_and_task(report, results):
    rows = markdown_rows((report[0] / "table.md").read_text())
    columns = [re.sub(r" \(.*", "", name) for name in rows["encoder"]]
    assert columns == [TASKS[t].title for t in TASKS if t in {r.task for r in results}]  # in the catalogue's order
    genre = results[1].main_scores
    assert rows["strong¹"][0].startswith(f"{100 * genre.mean():.1f} ± {100 * genre.std(ddof=1):.1f} [")
    assert "±" not in rows["mfcc"][0] and "[" in rows["mfcc"][0]  # one seed
    assert rows["random"][1] == NOT_A_NUMBER  # no result
    assert "runs/<weak>¹" in rows and "random" in rows and "mfcc" in rows


def test_marks_say_what_cannot_be_trusted(report):
    text = (report[0] / "table.md").read_text()
    rows = markdown_rows(text)
    assert rows["strong¹"][0].endswith("†") and "†" not in rows["runs/<weak>¹"][0]
    assert rows["strong¹"][1].endswith("‡") and "‡" not in rows["mfcc"][1]
    assert "† recordings of this task were heard" in text
    assert "‡ another protocol" in text
    assert "¹ one pretraining seed" in text and "² how many" not in text
    assert "could not be obtained" in text and "mean of the two that are printed" in text


def test_scores_that_are_not_numbers_are_dashes(report):
    rows = markdown_rows((report[0] / "table.md").read_text())
    assert rows["strong¹"][2] == f"{NOT_A_NUMBER} °"
    content = json.loads((report[0] / "results.json").read_text())
    cell = next(row for row in content["rows"] if row["encoder"] == "strong")["cells"]["nsynth_pitch"]
    assert cell["mean"] is None and cell["low"] is None
    assert not re.findall(r">[^<]*\bnan\b", (report[0] / "report.html").read_text())


def test_csv_holds_every_metric(report, results):
    with (report[0] / "table.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    ours = [line for line in lines if line["kind"] != "published"]
    assert len(ours) == sum(len(metrics) for r in results for metrics in r.scores.values())
    line = next(x for x in ours if (x["encoder"], x["task"], x["network"]) == ("strong", "gtzan_beats", "mlp"))
    assert float(line["mean"]) == pytest.approx(results[7].main_scores.mean(), rel=1e-5)
    assert float(line["low"]) <= float(line["mean"]) <= float(line["high"])
    published = next(x for x in lines if x["encoder"] == "MAP-Music2Vec 95M" and x["task"] == "gtzan_genre")
    assert published["mean"] == "0.741" and "2306.10548" in published["source"]


def test_the_page_needs_nothing_else(report):
    page = (report[0] / "report.html").read_text()
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page) and "<script" not in page and "url(" not in page
    pictures = sorted(path.name for path in (report[0] / "pictures").iterdir())
    assert page.count("data:image/png;base64,") == len(pictures)
    assert "scores.png" in pictures and "layers_strong.png" in pictures and "weights_strong.png" in pictures
    assert not any(name.startswith(("layers_mfcc", "weights_mfcc")) for name in pictures)  # it has one layer
    assert "confusion_mfcc_gtzan_genre.png" in pictures
    assert all((report[0] / "pictures" / name).read_bytes().startswith(b"\x89PNG") for name in pictures)


def test_the_page_is_well_formed(report):
    page = (report[0] / "report.html").read_text().partition("<body>")[2]
    page = re.sub(r"<img [^>]*>", "", page)
    ElementTree.fromstring(f"<body>{page.removesuffix('</html>')}")


def test_the_page_says_how_each_figure_came_about(report, results):
    page = (report[0] / "report.html").read_text()
    for fact in ("ours-1-30s", "5" * 64, "test 12.50%", "song 3 in pretraining/7 at 12.5 s", "jax 0.10.2", "weighted"):
        assert fact in page
    assert "valid not looked for" in page and "a note of the task" in page
    assert "runs/&lt;weak&gt;" in page and "<weak>" not in page
    for metric in {m for r in results for metrics in r.scores.values() for m in metrics}:
        assert f"<th>{metric}</th>" in page


def test_significance_is_between_checkpoints_of_one_protocol(report):
    content = json.loads((report[0] / "results.json").read_text())
    pairs = {(d["a"], d["b"], d["task"]): d for d in content["differences"]}
    assert set(pairs) == {("runs/<weak>", "strong", task) for task in ("gtzan_genre", "emomusic")}
    genre, emotion = (pairs["runs/<weak>", "strong", task] for task in ("gtzan_genre", "emomusic"))
    assert genre["significant"] and genre["low"] > 0 and genre["p_holm"] == genre["p"]  # the only one tested
    assert "protocols" in emotion["refused"] and not emotion["significant"] and "gain" not in emotion
    page = (report[0] / "report.html").read_text()
    assert page.count("&gt; 1</small>") == 1


def test_the_terminal_gets_lines_that_fit(report, results):
    lines = report[1]
    assert max(map(len, lines[:-1])) <= 120
    wide = [made_up_result(task, "mfcc", units=8, groups=1, seeds=2) for task in TASKS]
    longer = [dataclasses.replace(result.encoder, name="a" * 80) for result in wide]
    wide += [dataclasses.replace(r, encoder=e) for r, e in zip(wide, longer, strict=True)]
    text = text_table(make_table(wide))
    assert max(map(len, text)) <= 120
    for task in TASKS:
        first, _, second = task.partition("_")
        assert any(first in line for line in text) and any(second in line for line in text)
    assert sum(line.startswith("mfcc") for line in text) >= 2  # in blocks
    assert str(report[0] / "report.html") in lines[-1]


def test_published_rows_stand_as_printed():
    rows = {(row.model, row.source[:5]): row for row in published_rows()}
    assert len(rows) == len(published_rows())
    music2vec = rows["MAP-Music2Vec 95M", "MARBL"]
    shown = {task: printed_main_score(music2vec, task, TASKS[task].metric) for task in TASKS}
    assert shown == pytest.approx(
        {"mtt_top50": 90.0, "gtzan_genre": 74.1, "giantsteps_key": 50.6, "emomusic": (52.1 + 71.0) / 2}
        | {"nsynth_pitch": 93.1, "nsynth_instrument": 69.3, "vocalset_technique": 71.1, "vocalset_singer": 81.4}
        | {"mtg_top50": 83.0, "mtg_genre": 87.1, "mtg_instrument": 76.1, "mtg_moodtheme": 76.7, "gtzan_beats": 68.2}
    )
    assert printed_text(rows["MuQ", "MuQ, "], "vocalset_singer") == "95.8 ± 0.1"
    assert printed_text(rows["MuQ", "MuQ, "], "mtg_top50") == NOT_A_NUMBER
    assert printed_text(rows["MERT-v2-30s 632M", "Model"], "giantsteps_key") == "66.97"
    for row in rows.values():
        for task, scores in row.scores.items():
            assert task in TASKS and all(0 < score < 100 for score in scores.values())


def test_a_row_of_several_pretraining_seeds_says_nothing():
    result = made_up_result("gtzan_genre")
    for seeds, mark in ((1, "¹"), (3, ""), (None, "²")):
        encoder = dataclasses.replace(result.encoder, pretraining_seeds=seeds)
        table = make_table([dataclasses.replace(result, encoder=encoder)])
        assert table.rows[0].mark == mark
        assert [note[0] for note in table.footnotes if note[0] in "¹²"] == list(mark)


def test_who_was_not_checked_is_marked_everywhere(tmp_path):
    """A checked encoder, one that heard the music, one that nobody checked; baselines have heard nothing."""
    unknown = Contamination(None, None, None, note="not checked: no data")
    made = {
        "clean": made_up_result("emomusic", "clean", contamination=CLEAN),
        "heard": made_up_result("emomusic", "heard", contamination=HEARD),
        "unsaid": made_up_result("emomusic", "unsaid"),
        "unknown": made_up_result("emomusic", "unknown", kind="function", contamination=unknown),
        "mfcc": made_up_result("emomusic", "mfcc", kind="baseline"),
    }
    marks = {"clean": "", "heard": "†", "unsaid": "°", "unknown": "°", "mfcc": ""}
    table = make_table(list(made.values()))
    assert {row.name: row.cells["emomusic"].marks for row in table.rows} == marks
    assert {note[0] for note in table.footnotes} >= {"†", "°"}
    lines = compare({name: [result] for name, result in made.items()}, tmp_path)
    rows = json.loads((tmp_path / "compare.json").read_text())
    assert all(row["marks"] == [marks[row["a"]], marks[row["b"]]] for row in rows)
    for text in ("\n".join(lines), (tmp_path / "compare.md").read_text(), (tmp_path / "compare.html").read_text()):
        assert "heard in pretraining" in text and "not checked" in text and "°" in text


def test_a_task_of_few_groups_is_not_tested_and_says_so(tmp_path):
    """Five singers cannot show a difference; Holm's correction does not count them."""
    pair = {
        name: [
            made_up_result("vocalset_technique", name, skill=skill, groups=5),
            made_up_result("gtzan_genre", name, skill=skill, units=60, groups=60),
        ]
        for name, skill in (("weak", 0.1), ("strong", 3.0))
    }
    compare(pair, tmp_path)
    rows = {row["task"]: row for row in json.loads((tmp_path / "compare.json").read_text())}
    assert rows["vocalset_technique"]["p"] is None and not rows["vocalset_technique"]["significant"]
    assert rows["gtzan_genre"]["p_holm"] == rows["gtzan_genre"]["p"]
    for file in ("compare.md", "compare.html"):
        assert "5 groups: too few to tell" in (tmp_path / file).read_text()


def test_cells_without_a_score_keep_their_marks():
    nan = {"mlp": {"accuracy": (math.nan,) * 3}}
    table = make_table([made_up_result("gtzan_genre", contamination=HEARD, scores=nan)])
    assert cell_text(table.rows[0].cells["gtzan_genre"]) == f"{NOT_A_NUMBER} †"
    assert cell_text(None) == NOT_A_NUMBER


def test_encoders_are_compared_in_pairs(tmp_path, results):
    by_name = {n: [r for r in results if r.encoder.name == n] for n in ("runs/<weak>", "strong", "mfcc")}
    lines = compare(by_name, tmp_path)
    text = (tmp_path / "compare.md").read_text()
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        *("## a: runs/<weak>, b: strong", "## a: runs/<weak>, b: mfcc", "## a: strong, b: mfcc")
    ]
    assert "b is better" in text and "not compared: protocols" in text
    page = (tmp_path / "compare.html").read_text()
    assert "b is better" in page and "not compared" in page and "<weak>" not in page
    saved = {(d["a"], d["b"], d["task"]): d for d in json.loads((tmp_path / "compare.json").read_text())}
    pair = [d for (a, b, _), d in saved.items() if (a, b) == ("strong", "mfcc") and not d["refused"]]
    assert [d["task"] for d in pair] == ["gtzan_genre", "gtzan_beats"]  # emomusic: other protocols
    assert all(d["p_holm"] >= d["p"] for d in pair)
    assert max(map(len, lines[:-1])) <= 120


def test_an_output_that_is_a_file_is_named_in_one_line(tmp_path, results):
    place = tmp_path / "notes.txt"
    place.write_text("mine")
    by_name = {name: [r for r in results if r.encoder.name == name] for name in ("strong", "mfcc")}
    for write in (lambda: compare(by_name, place), lambda: write_report(results[:1], place)):
        with pytest.raises(
            UserError, match=r"^\S*notes.txt/\S+ cannot be written \(its folder is a file\): give an --output"
        ):
            write()
    assert place.read_text() == "mine" and list(tmp_path.iterdir()) == [place]


def test_what_cannot_be_reported_is_refused(tmp_path, results):
    with pytest.raises(UserError, match="no results"):
        write_report([], tmp_path)
    with pytest.raises(UserError, match="two results of strong on gtzan_genre"):
        write_report([results[1], results[1]], tmp_path)
    with pytest.raises(UserError, match="two encoders or more"):
        compare({"strong": results[:1]}, tmp_path)
    with pytest.raises(UserError, match="two results of one task"):
        compare({"a": results[:1] * 2, "b": results[:1]}, tmp_path)
    assert not list(tmp_path.iterdir())
