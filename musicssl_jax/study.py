"""The paper's study, start to end: its 12 models and ours are trained, evaluated, and compared.

    musicssl study --scale=tiny --workdir=STUDY
    musicssl study --scale=paper --workdir=STUDY --data=DATA --data_dir=MIR [--checkpoints=A,B] [--tasks=A,B]

Every run is the training command as you would give it, in STUDY/runs/NAME, and every evaluation the evaluation command,
into STUDY/results. What is finished is not done again; what was interrupted goes on. A run that collapses or fails is
named in the report, and the others go on. STUDY/study.md holds the table of all models and tasks, and tables of what
each change of a config is worth; STUDY/study.json holds the same figures.

--scale=paper takes the configs as they are and says first what they will cost (--plan: only that). --scale=tiny makes
everything small: all of it takes minutes on a few cores, on synthetic music and data sets, and its scores mean nothing
but that every config trains.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from musicssl_jax.command import ArgumentParser, run_command
from musicssl_jax.errors import DIVERGED, DONE, UserError, shortened
from musicssl_jax.mir.report.results import TaskResult, read_results
from musicssl_jax.mir.report.tables import make_table
from musicssl_jax.mir.report.tables import markdown as table_markdown
from musicssl_jax.mir.report.writing import write_report
from musicssl_jax.mir.tasks.catalogue import find_tasks
from musicssl_jax.studying.ablations import SIGNIFICANT_MARK, ablation_tables
from musicssl_jax.studying.ablations import markdown as ablations_markdown
from musicssl_jax.studying.processes import only_study, run_module
from musicssl_jax.studying.runs import RUNS, Run, Scale, as_flags, config_of, fields_of, plan_lines
from musicssl_jax.training.data import MUSICBOX

TINY_EVALUATION = ("--seeds=2", "--networks=linear", "--max_missing=1")
"""Of tiny encoders, whose scores mean nothing, on synthetic data sets, which hold a few of the recordings listed."""

TRAINED, STOPPED_ITSELF, FAILED = "trained", "stopped itself", "failed"

State = dict[str, dict[str, Any]]
"""Name of a run or checkpoint -> {"training": TRAINED ..., "command", "evaluation": exit code}."""


class Study(NamedTuple):
    """What is asked for. flags_of: of each run's training, all but the folder. checkpoints: others, path by name."""

    folder: Path
    scale: Scale
    data_dir: Path
    tasks: str
    flags_of: Mapping[str, list[str]]
    checkpoints: Mapping[str, str]

    @property
    def configs(self) -> dict[str, ConfigDict]:
        return {name: config_of(flags) for name, flags in self.flags_of.items()}


def main(argv: list[str]) -> int:
    """The command. Raises UserError, after all else is done, where runs or evaluations failed."""
    flags, fields = _parser().parse_known_args(argv)
    study = _study(flags, fields)
    if flags.plan or study.scale == "paper":
        print(*plan_lines(study.configs), sep="\n", flush=True)
    if flags.plan:
        return DONE
    with only_study(study.folder) as lock:
        if study.scale == "tiny" and not flags.data_dir:
            _ensure_data_sets(study.data_dir)
        state = _read_state(study.folder)
        for name in (*study.flags_of, *study.checkpoints):
            if name in study.flags_of:
                _train(study, RUNS[name], state, lock)
            _evaluate(study, name, state, lock)
    failed = [line for line in _trouble(study, state) if FAILED in line]
    if not failed or any((study.folder / "results").glob("*/*.json")):
        print(*_report(study, state), sep="\n")
    if failed:
        raise UserError(f"{shortened(failed)}; the same command tries again")
    return DONE


def _train(study: Study, run: Run, state: State, lock: int) -> None:
    """The training command, unless it has ended before."""
    workdir = study.folder / "runs" / run.name
    command = [*study.flags_of[run.name], f"--workdir={workdir}"]
    known = state.setdefault(run.name, {})
    over = known.get("training") in (TRAINED, STOPPED_ITSELF) and known["command"] == command
    if over and (workdir / "checkpoints").is_dir():
        print(f"{run.name}: {known['training']}", flush=True)
        return
    known["command"] = command
    if run.earlier and state[run.earlier]["training"] == FAILED:
        known["training"] = FAILED
    else:
        code = run_module("musicssl_jax.train", command, lock)
        known["training"] = {DONE: TRAINED, DIVERGED: STOPPED_ITSELF}.get(code, FAILED)
    _write_state(study.folder, state)


def _evaluate(study: Study, name: str, state: State, lock: int) -> None:
    """The evaluation command, which knows what it has done before. The first also evaluates the baselines."""
    known = state.setdefault(name, {})
    if known.get("training") == FAILED:
        return
    path = study.checkpoints.get(name, str(study.folder / "runs" / name))
    first = next(n for n in (*study.flags_of, *study.checkpoints) if state[n].get("training") != FAILED)
    arguments = [
        f"--checkpoint={name}={path}",
        f"--data_dir={study.data_dir}",
        f"--output={study.folder / 'results'}",
        f"--tasks={study.tasks}",
        f"--baselines={'all' if name == first else 'none'}",
        *(TINY_EVALUATION if study.scale == "tiny" else ()),
    ]
    known["evaluation"] = run_module("musicssl_jax.evaluate", arguments, lock)
    _write_state(study.folder, state)


def _report(study: Study, state: State) -> Iterator[str]:
    """Writes results/report.html, study.md and study.json; gives what a terminal shows. UserError: no results."""
    by_name: dict[str, dict[str, TaskResult]] = {}
    for result in read_results(study.folder / "results"):
        by_name.setdefault(result.encoder.name, {})[result.task] = result
    order = [name for name in (*study.flags_of, *study.checkpoints) if name in by_name]
    order += [name for name in by_name if name not in order]
    results = [result for name in order for result in by_name[name].values()]
    yield from write_report(results, study.folder / "results")
    ablations = ablation_tables(by_name, study.configs)
    trouble = list(_trouble(study, state))
    content = {"scale": study.scale, "trouble": trouble, "commands": dict(study.flags_of), "ablations": ablations}
    (study.folder / "study.json").write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")
    (study.folder / "study.md").write_text(
        "\n".join(_markdown(study, table_markdown(make_table(results)), ablations_markdown(ablations), trouble)),
        encoding="utf-8",
    )
    yield from trouble
    yield f"study: {study.folder / 'study.md'}, {study.folder / 'study.json'}"


def _markdown(study: Study, table: str, ablations: str, trouble: Sequence[str]) -> Iterator[str]:
    yield "# Study: all models on all tasks\n"
    if study.scale == "tiny":
        yield "**Tiny encoders, trained for moments: these scores say that everything runs, and nothing else.**\n"
    yield from (f"- {line}" for line in trouble)
    yield f"\n{table}\n## What each change of a config is worth\n"
    yield "Main metric in percent; in brackets its difference to the run without the change."
    yield f"{SIGNIFICANT_MARK}: p below 0.05 by paired bootstrap, with Holm's correction over the row's tasks."
    yield "Each run is one pretraining seed: another seed may differ as much.\n"
    yield ablations


def _trouble(study: Study, state: State) -> Iterator[str]:
    for name in (*study.flags_of, *study.checkpoints):
        known = state.get(name, {})
        if known.get("training") == FAILED:
            yield f"{name}: training {FAILED}, see what it said"
        elif known.get("training") == STOPPED_ITSELF:
            yield f"{name} {STOPPED_ITSELF} (collapsed, or its loss was no number); its last checkpoint is evaluated"
        if known.get("evaluation", DONE) != DONE:
            yield f"{name}: evaluation {FAILED} with exit code {known['evaluation']}"


def _study(flags: argparse.Namespace, fields: Sequence[str]) -> Study:
    """What is asked for. UserError: unknown flags, runs, tasks or fields, or no data."""
    for argument in fields:
        if not argument.startswith("--config."):
            raise UserError(f"unknown argument {argument} (see musicssl study --help)")
    if flags.scale == "paper" and not flags.data:
        raise UserError("--data is missing: the music to train on (a built collection, or a folder of audio)")
    if flags.scale == "paper" and not flags.data_dir and not flags.plan:
        raise UserError("--data_dir is missing: the folder of the tasks' data sets (musicssl evaluate --check-data)")
    find_tasks(flags.tasks)
    folder = Path(flags.workdir).expanduser().resolve()
    flags_of = {}
    for name in _names(flags.runs):
        changed = fields_of(RUNS[name], flags.scale, flags.steps, folder / "runs")
        data = ["--config.data.path=" + (flags.data or MUSICBOX)]
        flags_of[name] = [f"--config={RUNS[name].config}", *as_flags(changed), *data, *fields]
        config_of(flags_of[name])
    data_dir = Path(flags.data_dir).expanduser().resolve() if flags.data_dir else folder / "data_sets"
    return Study(folder, flags.scale, data_dir, flags.tasks, flags_of, _checkpoints(flags.checkpoints))


def _names(text: str) -> list[str]:
    """Of the runs that are asked for, in the order of the study."""
    asked = list(RUNS) if text == "all" else [name.strip() for name in text.split(",")]
    for name in asked:
        if name not in RUNS:
            raise UserError(f"--runs: no run {name!r}; there are {', '.join(RUNS)}")
        if (earlier := RUNS[name].earlier) and earlier not in asked:
            raise UserError(f"--runs: {name} predicts a layer of {earlier}, which has to be named too")
    return [name for name in RUNS if name in asked]


def _checkpoints(text: str) -> dict[str, str]:
    found = {}
    for argument in filter(None, text.split(",")):
        name, equals, path = argument.partition("=")
        name, path = (name, path) if equals else (argument, argument)
        if name in RUNS or name in found:
            raise UserError(f"--checkpoints: {name} is there twice: give names, as NAME=PATH")
        found[name] = path
    return found


def _ensure_data_sets(folder: Path) -> None:
    """Small synthetic data sets of all tasks, written once."""
    from data_pipelines.musicbox.official_layouts import write_task_sets

    if folder.exists():
        return
    with tempfile.TemporaryDirectory(dir=folder.parent) as partial:
        write_task_sets(Path(partial) / "sets", seed=0)
        (Path(partial) / "sets").rename(folder)


def _read_state(folder: Path) -> State:
    path = folder / "state.json"
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError:
        raise UserError(f"{path} is damaged: remove it, and the same command looks at every run again") from None


def _write_state(folder: Path, state: State) -> None:
    partial = folder / "partial-state.json"
    partial.write_text(json.dumps(state, indent=1), encoding="utf-8")
    partial.replace(folder / "state.json")


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="musicssl study",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="--config.FIELD=VALUE changes a field of all configs.",
    )
    add = parser.add_argument
    add("--scale", choices=("tiny", "paper"), required=True, help="how large everything is")
    add("--workdir", required=True, metavar="STUDY", help="folder of runs, results and tables")
    add("--data", default="", help="music to train on (tiny: musicbox)")
    add("--data_dir", default="", metavar="MIR", help="data sets of the tasks (tiny: synthetic ones)")
    add("--runs", default="all", metavar="NAMES", help=f"some of {', '.join(RUNS)}; all (default)")
    add("--checkpoints", default="", metavar="A,B", help="others to evaluate beside, as PATH or NAME=PATH")
    add("--tasks", default="all", help="as musicssl evaluate takes them (default all that are there)")
    add("--steps", type=_steps, help="updates of music2vec's base; the others' are in proportion")
    add("--plan", action="store_true", help="say what training will cost, and do nothing")
    return parser


def _steps(text: str) -> int:
    if (steps := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text}: want 1 or more")
    return steps


if __name__ == "__main__":
    sys.exit(run_command(main))
