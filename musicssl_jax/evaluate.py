"""Frozen encoders on the paper's 13 music tasks, in one table.

    musicssl evaluate --checkpoint=RUN --data_dir=MIR --output=RESULTS [--tasks=gtzan_genre,nsynth_pitch]

--data_dir holds the data sets as they are downloaded, a folder each (docs/tasks.md); nothing is ever downloaded.
--check-data says what of them is there, --plan what a run will take, --compare A B C puts finished results side by
side. Each recording goes through an encoder once; probes on the stored features are chosen on validation alone. Beside
the checkpoints stand MFCC, chroma, mel statistics and the first checkpoint before its training. The same command again
goes on where it was stopped. See docs/evaluate.md.
"""

import argparse
import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from musicssl_jax.command import ArgumentParser, run_command
from musicssl_jax.distributed import distributed_flags, join
from musicssl_jax.embedding.shared_folder import make_folder
from musicssl_jax.encoder_io import RANDOM
from musicssl_jax.errors import DONE, UserError, shortened
from musicssl_jax.mir.contestants import Contestant, contaminations
from musicssl_jax.mir.evaluation import Options, evaluate
from musicssl_jax.mir.features import encoders
from musicssl_jax.mir.features.plan import plan_features, plan_table
from musicssl_jax.mir.features.user_function import user_function
from musicssl_jax.mir.probed_task import NETWORKS
from musicssl_jax.mir.report.results import TaskResult, read_results
from musicssl_jax.mir.report.writing import compare, write_report
from musicssl_jax.mir.tasks.catalogue import find_tasks
from musicssl_jax.mir.tasks.check import check_data
from musicssl_jax.mir.tasks.completeness import checked
from musicssl_jax.mir.tasks.task import PROTOCOLS, Task, TaskData
from musicssl_jax.parallel import barrier
from musicssl_jax.programs import keep_programs

BASELINES = (*encoders.BASELINES, "random")
UNTRAINED = f"{RANDOM}configs/music2vec.py:base"


def main(argv: list[str]) -> int:
    flags = _parser().parse_args(argv)
    if flags.compare:
        print(*compare(_by_encoder(flags.compare), _output(flags)), sep="\n")
        return DONE
    if not flags.data_dir:
        raise UserError("--data_dir is missing: the folder of the data sets (--check-data says what goes there)")
    tasks = find_tasks(flags.tasks)
    if flags.check_data:
        found = check_data(flags.data_dir, tasks, flags.protocol)
        print(json.dumps(found.as_json(), indent=2) if flags.json else found.text())
        if found.exit_code:
            waiting = [check.task for check in found.tasks if check.state != "ready"]
            raise UserError(f"--check-data: {', '.join(waiting) or 'files with wrong hashes'}: see above")
        return DONE
    if flags.plan:
        _print_plan(flags, tasks)
        return DONE
    _evaluate(flags, tasks)
    return DONE


def _by_encoder(folders: Sequence[str]) -> dict[str, list[TaskResult]]:
    """The results of every encoder in the folders; of baselines only where there is nothing else in a folder."""
    by_name: dict[str, list[TaskResult]] = {}
    for folder in folders:
        results = read_results(Path(folder).expanduser())
        trained = [result for result in results if result.encoder.kind not in ("baseline", "random")]
        for name in sorted({result.encoder.name for result in trained or results}):
            key = name if name not in by_name else f"{name} in {folder}"
            by_name[key] = [result for result in results if result.encoder.name == name]
    return by_name


def _evaluate(flags: argparse.Namespace, tasks: Sequence[Task]) -> None:
    """Of several processes all make features, each with its devices; the first alone trains probes and writes."""
    output = _output(flags)
    join(flags.distributed, flags.heartbeat)
    keep_programs()
    lead = jax.process_index() == 0
    options = Options(
        protocol=flags.protocol,
        networks=flags.networks,
        seeds=flags.seeds,
        max_missing=flags.max_missing,
        cache=flags.cache or output / "features",
        output=output,
        beat_layers=flags.beat_layers,
    )
    found, left_out = _found(flags, tasks)
    contestants = _contestants(flags)
    if not contestants:
        raise UserError("nobody to evaluate: give --checkpoint, --encoder, --features, or --baselines")
    make_folder(output)
    if flags.cache:
        make_folder(flags.cache, "--cache")
    if lead:
        contestants = contaminations(contestants, found, flags.pretraining_data, options.cache, say)
    results, failures = evaluate(contestants, found, options, say)
    if lead and results:
        print(*write_report(results, output), sep="\n")
        print(*left_out, sep="\n")
    barrier("evaluated")  # a process that leaves ends the others
    if failures:
        named = [f"{failure.encoder} on {failure.task} ({failure.reason})" for failure in failures]
        raise UserError(f"not evaluated: {shortened(named)}")


def say(line: str) -> None:
    """Progress goes to stderr, results to stdout."""
    print(line, file=sys.stderr, flush=True)


def _found(flags: argparse.Namespace, tasks: Sequence[Task]) -> tuple[list[tuple[Task, TaskData]], list[str]]:
    """The tasks whose data are here, and a line about each that is left out.

    UserError: there is none, or one that is named cannot be read.
    """
    found, left_out = [], []
    for task in tasks:
        try:
            if not (flags.data_dir / task.data_set).is_dir():
                raise UserError(f"{flags.data_dir / task.data_set} is not there (--check-data)")
            data = checked(task.read(flags.data_dir, flags.protocol), task, flags.max_missing)
        except UserError as error:
            if not _asks_for_all(flags):
                raise
            left_out.append(f"{task.name}: left out, {error}")
            say(left_out[-1])
            continue
        for note in data.notes:
            say(f"{task.name}: {note}")
        found.append((task, data))
    if not found:
        raise UserError(
            f"--data_dir={flags.data_dir}: none of the data sets is there (--check-data says what goes there)"
        )
    return found, left_out


def _asks_for_all(flags: argparse.Namespace) -> bool:
    return flags.tasks.strip() == "all"


def _contestants(flags: argparse.Namespace) -> list[Contestant]:
    """Those that are given, and the baselines."""
    names = _baselines(flags.baselines)
    contestants = []
    loaded = {"precision": flags.precision, "download": flags.download}
    for argument in flags.checkpoint:
        name, path = _named(argument)
        encoder = encoders.checkpoint(path, weights=flags.weights, **loaded)
        trained = None if path.startswith(RANDOM) else 1
        contestants.append(Contestant(name, dataclasses.replace(encoder, name=name), trained, path))
    for argument in flags.encoder:
        name, function = _named(argument)
        contestants.append(Contestant(name, user_function(function)))
    for argument in flags.features:
        name, folder = _named(argument)
        contestants.append(Contestant(name, Path(folder).expanduser()))
    if "random" in names:
        contestants += _untrained(flags, loaded)
    contestants += [Contestant(encoders.BASELINES[n], encoders.baseline(n)) for n in names if n != "random"]
    twice = {c.name for c in contestants if sum(other.name == c.name for other in contestants) > 1}
    if twice:
        raise UserError(f"{min(twice)} is there twice: give names, as --checkpoint=NAME=PATH")
    return contestants


def _untrained(flags: argparse.Namespace, loaded: Mapping[str, Any]) -> list[Contestant]:
    """The first checkpoint before its training, or, where there is none, the paper's encoder."""
    given = [_named(argument) for argument in flags.checkpoint]
    if any(path.startswith(RANDOM) for _, path in given):
        return []
    name, path = given[0] if given else ("music2vec", "")
    encoder = encoders.untrained(path, **loaded) if given else encoders.checkpoint(UNTRAINED, **loaded)
    return [Contestant(f"{name}, untrained", encoder)]


def _named(argument: str) -> tuple[str, str]:
    """(name, what it names) of NAME=WHAT, or WHAT by its own name. A path that is there may have a = in it."""
    name, equals, what = argument.partition("=")
    if Path(argument).expanduser().exists():
        return argument.rstrip("/"), argument
    return (name, what) if equals and name and what else (argument.rstrip("/"), argument)


def _baselines(text: str) -> tuple[str, ...]:
    if text in ("all", "none"):
        return BASELINES if text == "all" else ()
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in BASELINES:
            raise UserError(f"--baselines: no baseline {name!r}; there are {', '.join(BASELINES)}, all and none")
    return names


def _print_plan(flags: argparse.Namespace, tasks: Sequence[Task]) -> None:
    """Of every encoder that is given, for data that need not be here."""
    here = {}
    for task in tasks:
        with contextlib.suppress(UserError):  # then it is planned for by its published size
            if (flags.data_dir / task.data_set).is_dir():
                here[task.name] = task.read(flags.data_dir, flags.protocol)
    passes = []
    for contestant in _contestants(flags):
        if isinstance(contestant.source, Path):
            continue
        layers = range(contestant.source.layers) if flags.beat_layers is None else flags.beat_layers
        passes += plan_features(contestant.source, tasks, flags.protocol, here, tuple(layers))
    print(json.dumps([one.to_json() for one in passes], indent=2) if flags.json else plan_table(passes))


def _output(flags: argparse.Namespace) -> Path:
    if not flags.output:
        raise UserError("--output is missing: the folder of results and report")
    return flags.output


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="musicssl evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    _what_is_asked(parser.add_argument_group("what is asked").add_argument)
    _who_is_asked(parser.add_argument_group("who is asked").add_argument)
    _how(parser.add_argument_group("how").add_argument)
    distributed_flags(parser)
    _instead(parser.add_argument_group("instead of evaluating").add_argument)
    return parser


def _what_is_asked(add: Callable[..., Any]) -> None:
    add("--data_dir", type=_folder, metavar="MIR", help="folder of the data sets")
    add("--tasks", default="all", help="names with commas between, or all that are there (default)")
    add("--protocol", choices=PROTOCOLS, default="ours", help="default %(default)s; see docs/tasks.md")
    add(
        "--max_missing",
        type=_share,
        default=0.05,
        help="share of any part of a task's recordings that may be missing (default .05)",
    )


def _who_is_asked(add: Callable[..., Any]) -> None:
    add("--checkpoint", nargs="+", action="extend", default=[], metavar="PATH", help="as musicssl embed takes")
    add(
        "--encoder",
        nargs="+",
        action="extend",
        default=[],
        metavar="MODULE:FUNCTION",
        help="(waveform, rate) -> (layers, frames, dims) of your own",
    )
    add("--features", nargs="+", action="extend", default=[], metavar="DIR", help="features that were made elsewhere")
    add("--baselines", default="all", help="mfcc, chroma, mel, random, with commas, all (default) or none")
    add("--weights", choices=("student", "teacher"), default="student", help="of data2vec")
    add("--precision", choices=("float32", "bfloat16"), help="of matrix products")
    add("--download", action="store_true", help="fetch an hf:OWNER/NAME that is not on this machine")


def _how(add: Callable[..., Any]) -> None:
    add("--output", type=_folder, metavar="RESULTS", help="folder of results and report")
    add("--cache", type=_folder, metavar="DIR", help="folder of the features (default RESULTS/features)")
    add("--seeds", type=_count, default=5, help="of the chosen probe (default %(default)s)")
    add(
        "--networks", type=_networks, default=NETWORKS, help="mlp, linear, knn; the first is the table's (default: all)"
    )
    add("--beat_layers", type=_layers, help="whose frames are kept for beats, as 0,6,12 (default: all)")
    add(
        "--pretraining_data",
        nargs="+",
        action="extend",
        default=[],
        metavar="DATA",
        help="shards that checkpoints were trained on, to find evaluation music in them (default: what a run says)",
    )


def _instead(add: Callable[..., Any]) -> None:
    add("--check-data", "--check_data", action="store_true", help="say what of the data is there")
    add("--plan", action="store_true", help="say what it will take")
    add("--compare", nargs="+", metavar="RESULTS", help="one report of several results")
    add("--json", action="store_true", help="--check-data, --plan: as JSON")


def _folder(text: str) -> Path:
    return Path(text).expanduser()


def _share(text: str) -> float:
    if not 0 <= (share := float(text)) <= 1:
        raise argparse.ArgumentTypeError(f"{text}: want a share, 0 to 1")
    return share


def _count(text: str) -> int:
    if not 1 <= (count := int(text)) <= 100:
        raise argparse.ArgumentTypeError(f"{text}: want 1 to 100")
    return count


def _layers(text: str) -> tuple[int, ...]:
    layers = tuple(sorted({int(part) for part in text.split(",")}))
    if layers[0] < 0:
        raise argparse.ArgumentTypeError(f"{text}: want numbers from 0 with commas between")
    return layers


def _networks(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    if set(names) - set(NETWORKS) or names[0] == "knn":
        raise argparse.ArgumentTypeError(f"{text}: want some of mlp, linear and knn, and not knn first")
    return names


if __name__ == "__main__":
    sys.exit(run_command(main))
