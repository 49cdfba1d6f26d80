import base64
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from musicssl_jax.training.figures import curves, log_mel, mask_overlay
from musicssl_jax.training.metrics import read_metrics
from musicssl_jax.training.report import write_report

RATE = 16000
CONFIG = {
    "name": "music2vec_<demo>",
    "steps": 100,
    "model": {"width": 768},
    "collapse": {
        "after": 0.1,
        "target_spread": 0.1,
        "prediction_spread": 0.01,
        "positional_share": 0.7,
        "swap_gap": 0.01,
    },
}
NAMES = (
    "train/loss", "train/grad_norm", "train/learning_rate", "valid/loss", "teacher/decay", "target/spread",
    "prediction/spread", "target/positional_share", "prediction/swap_gap", "perf/step_seconds", "perf/mfu",
    "perf/audio_seconds_per_second", "data/audio_hours", "time/total", "conv/variance", "conv/effective_rank",
    *(f"block/{i}/{what}" for i in range(3) for what in ("variance", "effective_rank")),
)  # fmt: skip


def rows(upto: int, names=NAMES):
    return [{"step": step, **dict.fromkeys(names, 0.5 + 1 / step)} for step in range(10, upto + 1, 10)]


@pytest.fixture
def run(tmp_path):
    def make(rows, config=CONFIG, example=True):
        (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (tmp_path / "config.json").write_text(json.dumps(config))
        if example:
            waveform = np.sin(np.arange(2 * RATE)).astype(np.float32)
            np.savez(tmp_path / "example.npz", waveform=waveform, mask=np.arange(99) % 20 < 10, sample_rate=RATE)
        meta = tmp_path / "checkpoints" / "100" / "meta"
        meta.mkdir(parents=True, exist_ok=True)
        (meta / "metadata").write_text(json.dumps({"meta": {"versions": {"jax": "0.10.2"}}}))
        write_report(tmp_path, tmp_path / "checkpoints")
        return (tmp_path / "report.html").read_text()

    return make


def test_the_page_has_status_curves_mask_config_and_versions_and_needs_no_other_file(run, tmp_path):
    page = run(rows(100))
    HTMLParser().feed(page)
    assert "<h1>music2vec_&lt;demo&gt;</h1>" in page
    assert "all 100 steps done" in page
    assert "<dt>model.width</dt><dd>768</dd>" in page
    assert "<dt>jax</dt><dd>0.10.2</dd>" in page
    titles = ["Loss", "Signs of collapse", "Layers", "Optimisation", "Speed", "What the student sees"]
    assert re.findall('alt="(.*?)"', page) == titles
    sources = re.findall('src="(.*?)"', page)
    files = {file.read_bytes() for file in tmp_path.glob("*.png")}
    assert {base64.b64decode(source.removeprefix("data:image/png;base64,")) for source in sources} == files
    assert all(content.startswith(b"\x89PNG") for content in files)
    assert "http" not in page
    assert "href" not in page


def test_a_run_in_progress_says_how_far_it_is(run):
    page = run(rows(40))
    assert "step 40 of 100 (40.0%)" in page
    assert "width:40.0%" in page


def test_values_beyond_a_threshold_stand_out(run):
    healthy = run(rows(100, ("train/loss", "target/positional_share")))
    assert 'class="card bad"' not in healthy
    collapsed = run([{"step": 100, "train/loss": 1.0, "target/positional_share": 0.9, "prediction/swap_gap": 0.001}])
    assert re.findall('card bad"><b>(.*?)</b><span>(.*?)<', collapsed) == [
        ("0.001", "swap gap"),
        ("0.900", "share of position"),
    ]


def test_a_loss_that_is_not_finite_is_called_diverged(run):
    assert "diverged at step 20 of 100" in run([{"step": 10, "train/loss": 1.0}, {"step": 20, "train/loss": None}])


@pytest.mark.parametrize("missing", ["train/loss", "target/spread", "prediction/swap_gap", "conv/variance"])
def test_any_name_may_be_missing(missing, tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(30, [n for n in NAMES if n != missing])))
    assert set(curves(read_metrics(path), CONFIG)) >= {"collapse", "layers", "optimisation", "speed"}
    assert set(curves(read_metrics(path), {})) >= {"collapse", "layers", "optimisation", "speed"}


def test_an_empty_folder_still_gives_a_page(tmp_path):
    write_report(tmp_path, tmp_path / "checkpoints")
    assert "nothing logged yet" in (tmp_path / "report.html").read_text()


def test_a_report_that_cannot_be_written_does_not_end_the_run(tmp_path, capsys):
    write_report(tmp_path / "missing", tmp_path)
    assert re.fullmatch("cannot write the report of .*missing .*\n", capsys.readouterr().err)


def test_thresholds_are_drawn():
    series = {name: (np.array([10, 20]), np.array([0.5, 0.4])) for name in NAMES}
    spread, share, gap = curves(series, CONFIG)["collapse"].axes
    dashed = [
        [line.get_ydata()[0] for line in axes.lines if line.get_linestyle() == "--"] for axes in (spread, share, gap)
    ]
    assert dashed == [[0.1, 0.01], [0.7], [0.01]]
    np.testing.assert_allclose(gap.lines[0].get_ydata(), [1.0, 1.0])


def test_layers_are_drawn_from_first_to_last_with_the_conv_stack():
    series = {name: (np.array([10, 20]), np.array([0.5, 0.4])) for name in NAMES}
    variance, rank = curves(series, CONFIG)["layers"].axes
    for axes in (variance, rank):
        labels = axes.get_legend_handles_labels()[1]
        assert labels == ["block 0", "block 1", "block 2", "conv stack"]


def test_the_spectrogram_shows_a_tone_at_its_frequency():
    seconds = np.arange(RATE) / RATE
    picture = log_mel(np.sin(2 * np.pi * 1000 * seconds).astype(np.float32), RATE)
    assert picture.shape == (80, 97)
    assert picture.max() == 0
    assert picture.min() == -70
    mel = 2595 * np.log10(1 + 1000 / 700) / (2595 * np.log10(1 + 8000 / 700))
    assert np.all(np.abs(picture.argmax(0) - (mel * 81 - 1)) < 1)


def test_a_clip_shorter_than_a_window_and_silence_are_drawn():
    assert log_mel(np.zeros(100, np.float32), RATE).shape == (80, 1)
    mask_overlay(np.zeros(1000, np.float32), RATE, np.zeros(3, bool))


def test_veils_lie_where_the_mask_is():
    mask = np.zeros(100, bool)
    mask[10:20] = mask[99] = True
    axes = mask_overlay(np.zeros(2 * RATE, np.float32), RATE, mask).axes[0]
    veils = [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in axes.patches if patch.get_alpha()]
    np.testing.assert_allclose(veils, [(0.2, 0.4), (1.98, 2.0)])
    assert axes.get_title(loc="left") == "Veiled: hidden from the student (11% of the clip's frames)"
