"""`musicssl study`: which runs it makes of which configs, what it does with their ends, and the tables it writes."""

import fcntl
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from audio_fixtures import ROOT, hear_interrupts
from checkpoint_fixtures import same_imports
from task_report_fixtures import made_up_result

from musicssl_jax.command import run_command
from musicssl_jax.mir.report.results import read_results
from musicssl_jax.study import main
from musicssl_jax.studying.ablations import ABLATIONS, ablation_tables, markdown
from musicssl_jax.studying.runs import RUNS, as_flags, config_of, cost_of, fields_of

PAPER = [name for name, run in RUNS.items() if run.paper]


def config(name, scale="tiny", steps=None):
    return config_of([f"--config={RUNS[name].config}", *as_flags(fields_of(RUNS[name], scale, steps, Path("runs")))])


def start(workdir, *flags, cache=None, **environment):
    """The command in a process of its own, whose programs are compiled cheaply as those of other tests."""
    command = [sys.executable, "-m", "musicssl_jax.study", "--scale=tiny", f"--workdir={workdir}", *flags]
    environment = same_imports() | {"MUSICSSL_CACHE": str(cache or workdir.parent / "cache")} | environment
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=environment, preexec_fn=hear_interrupts, **pipes)


def finish(process):
    """(exit code, stdout, stderr)"""
    out, err = process.communicate()
    return process.returncode, out, err


def state(workdir):
    return json.loads((workdir / "state.json").read_text())


def test_the_papers_twelve_and_ours():
    assert len(PAPER) == 12 and len(RUNS) == 15
    assert [run.config.partition(":")[2] for run in RUNS.values() if not run.paper] == [
        "chroma",
        "logmel_chroma",
        "ensemble",
    ]


@pytest.mark.parametrize("name", RUNS)
def test_every_config_stays_itself_in_small(name):
    small, whole = config(name), config(name, "paper")
    assert small.model.width == 64 and whole.model.width == 768
    assert small.steps < 100 and small.batch.clips <= 47
    for field in ("prob", "length", "min_masks"):
        assert small.mask[field] == whole.mask[field]
    assert small.objective == whole.objective
    if small.objective == "hubert":
        assert [t.partition("@")[0] for t in small.targets] == [
            "layer:2" if t.startswith("layer") else t for t in whole.targets
        ]
    assert cost_of(small).flop < 1e-6 * cost_of(whole).flop


def value(name, field):
    found = config(name)
    for part in field.split("."):
        found = found[part]
    return found


@pytest.mark.parametrize("ablation", ABLATIONS, ids=lambda a: a.title)
def test_an_ablation_changes_what_it_says(ablation):
    values = [value(name, ablation.field) for name in ablation.runs]
    assert len(set(values)) == len(values)
    assert ablation.reference in ablation.runs


def test_every_run_of_the_paper_is_in_an_ablation():
    assert set(RUNS) == {name for ablation in ABLATIONS for name in ablation.runs}


def test_steps_are_in_proportion():
    assert [config(name, "paper", 4000).steps for name in ("music2vec_base", "music2vec_800k", "musichubert_k500")] == [
        4000,
        8000,
        2500,
    ]
    assert config("music2vec_800k", "paper").steps == 800_000


def test_the_second_iteration_predicts_the_first_ones_layer():
    fields = fields_of(RUNS["musichubert_k2000_iter2"], "paper", None, Path("/study/runs"))
    assert fields == {"targets": "layer:6@/study/runs/musichubert_k2000_iter1"}


def test_the_plan_says_what_it_costs_and_does_nothing(tmp_path, capsys):
    flags = ["--scale=paper", f"--workdir={tmp_path / 'study'}", "--data=DATA", "--plan"]
    assert run_command(main, flags) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:16]] == list(RUNS)
    base = lines[1].split()
    assert base[1] == "400000" and base[2] == "373,333" and 2e19 < float(base[4]) < 2e20
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--scale=paper"], "--data is missing"),
        (["--scale=paper", "--data=D"], "--data_dir is missing"),
        (["--scale=small"], "invalid choice"),
        (["--scale=tiny", "--runs=music2vec_prob51"], "no run 'music2vec_prob51'; there are music2vec_base"),
        (["--scale=tiny", "--runs=musichubert_k2000_iter2"], "predicts a layer of musichubert_k2000_iter1"),
        (["--scale=tiny", "--tasks=gtzan_gerne"], "did you mean gtzan_genre"),
        (["--scale=tiny", "--what"], "unknown argument --what"),
        (["--scale=tiny", "--config.mask.porb=0.5"], "there is no such field"),
        (["--scale=tiny", "--steps=0"], "want 1 or more"),
        (["--scale=tiny", "--checkpoints=A=x,A=y"], "A is there twice"),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_begun(tmp_path, capsys, flags, said):
    assert run_command(main, [f"--workdir={tmp_path / 'study'}", *flags]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not (tmp_path / "study").exists()


def test_two_studies_do_not_share_a_folder(tmp_path, capsys):
    with open(tmp_path / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert run_command(main, ["--scale=tiny", f"--workdir={tmp_path}"]) == 2
    assert "is at work on" in capsys.readouterr().err


def test_runs_that_fail_are_named_and_tried_again(tmp_path, capfd):
    """Data that is not there: iteration two is not even tried; nothing was evaluated, so there is no table."""
    study = tmp_path / "study"
    runs = "--runs=musichubert_k2000_iter1,musichubert_k2000_iter2"
    flags = [f"--workdir={study}", runs, f"--data={tmp_path / 'nowhere'}", f"--data_dir={tmp_path}", "--scale=tiny"]
    for _ in range(2):
        assert run_command(main, flags) == 2
        out, err = capfd.readouterr()
        assert out.count("musicssl_jax.train") == 1 and "musicssl_jax.evaluate" not in out
        assert "nowhere is not a folder" in err
        assert err.splitlines()[-1].startswith("error: musichubert_k2000_iter1: training failed")
        assert "musichubert_k2000_iter2: training failed" in err
        assert [known["training"] for known in state(study).values()] == ["failed", "failed"]


def test_the_study_itself_leaves_the_devices_to_its_runs(tmp_path):
    program = (
        "from musicssl_jax.study import main; import jax; from jax._src import xla_bridge; "
        f"main(['--scale=paper', '--workdir={tmp_path}', '--data=D', '--plan']); "
        "assert not xla_bridge.backends_are_initialized()"
    )
    done = subprocess.run([sys.executable, "-c", program], env=same_imports(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def made_up_study():
    """Results of three runs, and the configs of all."""
    skills = {"music2vec_base": 1.0, "music2vec_prob50": 4.0, "music2vec_prob80": 1.0}
    tasks = ("gtzan_genre", "emomusic")
    results = {
        name: {task: made_up_result(task, name, skill=skill, seed=n) for task in tasks}
        for n, (name, skill) in enumerate(skills.items())
    }
    return results, {name: config(name) for name in RUNS}


def test_an_ablation_table_has_differences_to_its_reference(made_up_study):
    results, configs = made_up_study
    [table] = ablation_tables(results, configs)
    assert table["title"] == "music2vec: share masked" and table["reference"] == "music2vec_base"
    rows = {row["run"]: row for row in table["rows"]}
    assert [row["value"] for row in rows.values()] == ["0.5", "0.65", "0.8"]
    better, base = (rows[name]["tasks"]["gtzan_genre"] for name in ("music2vec_prob50", "music2vec_base"))
    assert better["gain"] == pytest.approx(better["score"] - base["score"])
    assert better["significant"] and better["low"] > 0
    assert "gain" not in base
    assert json.loads(json.dumps(table)) == table


def test_an_ablation_table_reads_as_markdown(made_up_study):
    results, configs = made_up_study
    lines = markdown(ablation_tables(results, configs)).splitlines()
    assert lines[0] == "### music2vec: share masked"
    row = next(line for line in lines if line.startswith("| music2vec_prob50 "))
    base = next(line for line in lines if line.startswith("| music2vec_base "))
    assert "*)" in row and "(+" in row
    assert "(" not in base


def test_results_of_other_protocols_are_not_compared(made_up_study):
    results, configs = made_up_study
    other = made_up_result("gtzan_genre", "music2vec_prob50", protocol_id="other")
    results = {**results, "music2vec_prob50": {"gtzan_genre": other}}
    [table] = ablation_tables(results, configs)
    assert "protocols" in table["rows"][0]["tasks"]["gtzan_genre"]["refused"]
    assert "(not comparable)" in markdown([table])


@pytest.mark.long
def test_runs_of_every_kind_train_and_are_evaluated(tmp_path):
    """Both objectives and a second iteration; other runs differ from these in numbers and front ends."""
    study = tmp_path / "study"
    runs = ("music2vec_base", "musichubert_k2000_iter1", "musichubert_k2000_iter2")
    another = "--checkpoints=another=random:configs/music2vec.py:demo"
    flags = ("--steps=2", "--tasks=emomusic", f"--runs={','.join(runs)}", another)
    code, out, err = finish(start(study, *flags))
    assert code == 0, err[-3000:]
    assert {known["training"] for name, known in state(study).items() if name in RUNS} == {"trained"}
    evaluated = {result.encoder.name for result in read_results(study / "results")}
    assert {*runs, "another", "MFCC", "music2vec_base, untrained"} <= evaluated
    table = (study / "study.md").read_text()
    assert all(f"| {name}" in table for name in (*runs, "another"))
    compared = [table["title"] for table in json.loads((study / "study.json").read_text())["ablations"]]
    assert compared and set(compared) < {ablation.title for ablation in ABLATIONS}
    assert (study / "results" / "report.html").exists()
    code, out, err = finish(start(study, *flags))
    assert code == 0, err[-3000:]
    assert "musicssl_jax.train" not in out
    assert (study / "study.md").read_text() == table


@pytest.mark.long
def test_a_stopped_study_goes_on_and_a_run_that_stopped_itself_is_named(tmp_path):
    """SIGTERM while the first run trains; the second run's loss is no number."""
    study = tmp_path / "study"
    flags = ("--steps=6", "--tasks=emomusic", "--runs=music2vec_base", "--config.checkpoint.every=1")
    process = start(study, *flags)
    deadline = time.monotonic() + 400
    while not (study / "runs/music2vec_base/checkpoints/1").exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    code, _, err = finish(process)
    assert code == 3 and "the same command goes on" in err
    code, out, err = finish(start(study, *flags))
    assert code == 0, err[-3000:]
    assert "goes on at step" in out and state(study)["music2vec_base"]["training"] == "trained"

    other = ("--steps=6", "--tasks=emomusic", "--runs=music2vec_prob50", "--config.schedule.peak=1e30")
    code, out, err = finish(start(study, *other))
    assert state(study)["music2vec_prob50"]["training"] == "stopped itself", err[-3000:]
    assert "music2vec_prob50 stopped itself" in (study / "study.md").read_text()
    code, out, err = finish(start(study, *other))
    assert "musicssl_jax.train" not in out
