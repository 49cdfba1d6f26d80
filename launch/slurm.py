"""Submits a training run to Slurm as a job that requeues itself when it was preempted or crashed.

    python launch/slurm.py --nodes=2 --gpus-per-node=8 --time=24:00:00 --partition=gpu \
        -- musicssl train --config=configs/music2vec.py:base --config.data.path=DATA --workdir=RUN

This writes one `sbatch` line (see it with --dry-run) that hands the command to slurm.sbatch beside this file, which
says how the job runs and when it is requeued. One task a GPU, which is what JAX expects under Slurm; --cpus-only makes
it --tasks-per-node tasks on CPUs, for trying out. RUN and DATA must be on a file system that all nodes share.

Costs: nodes x GPUs a node x hours x your site's price of a GPU-hour, or its share of your allocation; a job that waits
in the queue costs nothing. `sacct -j JOB -o JobID,Elapsed,AllocTRES` says what was used, over all requeues with -D.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from commands import Answer, Commands, LaunchError, Parser, launch, need_command
from supervise import RestartPolicy

SCRIPT = Path(__file__).resolve().with_name("slurm.sbatch")


def read_flags(argv: Sequence[str]):
    policy = RestartPolicy()
    parser = Parser(__doc__)
    parser.add_argument("--name", default="musicssl")
    parser.add_argument("--nodes", type=int, default=1)
    tasks = parser.add_mutually_exclusive_group(required=True)
    tasks.add_argument("--gpus-per-node", type=int, help="one task for each")
    tasks.add_argument("--cpus-only", action="store_true", help="no GPUs: --tasks-per-node tasks")
    parser.add_argument("--tasks-per-node", type=int, default=1, help="with --cpus-only")
    parser.add_argument("--cpus-per-task", type=int, help="for reading data: 8 or more where there are as many")
    parser.add_argument("--time", help="as 24:00:00; the job is requeued and goes on when it is over")
    parser.add_argument("--partition")
    parser.add_argument("--account")
    parser.add_argument("--save-seconds", type=int, default=120, help="SIGTERM this long before the time is over")
    parser.add_argument("--grace-seconds", type=int, default=180, help="for the others, once a task has ended")
    parser.add_argument("--max-failures", type=int, default=policy.max_failures, help="quick ones in a row")
    parser.add_argument("--healthy-seconds", type=int, default=int(policy.healthy_seconds))
    parser.add_argument("--sbatch", action="append", default=[], metavar="OPTION", help="more, as --sbatch=--exclusive")
    parser.add_argument("--srun", action="append", default=[], metavar="OPTION", help="as --srun=--container-image=X")
    flags, command = parser.split(argv)
    for name in ("nodes", "gpus_per_node", "tasks_per_node", "cpus_per_task", "save_seconds"):
        value = getattr(flags, name)
        if value is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')}={value}: at least 1")
    return flags, need_command(command)


def exports(flags) -> str:
    """What slurm.sbatch reads from its environment. Raises LaunchError."""
    values = {
        "MUSICSSL_MAX_FAILURES": str(flags.max_failures),
        "MUSICSSL_HEALTHY_SECONDS": str(flags.healthy_seconds),
        "MUSICSSL_GRACE_SECONDS": str(flags.grace_seconds),
    }
    if flags.srun:
        values["MUSICSSL_SRUN"] = " ".join(flags.srun)
    for option in flags.srun:
        # sbatch splits --export at commas, and the script splits its variable at blanks.
        if any(character in option for character in ", \t\n'\""):
            raise LaunchError(
                f"--srun={option}: no commas, blanks or quotes here; edit a copy of {SCRIPT.name} and submit that"
            )
    return ",".join(["ALL", *(f"{name}={value}" for name, value in values.items())])


def sbatch_line(flags, command: Sequence[str]) -> list[str]:
    """The one command; options override the #SBATCH lines of the script."""
    gpus = flags.gpus_per_node
    line = ["sbatch", "--parsable", f"--job-name={flags.name}", f"--nodes={flags.nodes}"]
    line += [f"--ntasks-per-node={gpus or flags.tasks_per_node}"]
    line += [f"--gpus-per-node={gpus}"] if gpus else []
    for name in ("cpus_per_task", "time", "partition", "account"):
        if (value := getattr(flags, name)) is not None:
            line.append(f"--{name.replace('_', '-')}={value}")
    line += [f"--signal=TERM@{flags.save_seconds}", "--requeue", f"--export={exports(flags)}", *flags.sbatch]
    return [*line, str(SCRIPT), *command]


def main(argv: list[str]) -> int:
    flags, command = read_flags(argv)
    commands = Commands(flags.dry_run)
    answer = commands.run(sbatch_line(flags, command), dry=Answer(out="JOB"))
    if answer.code:
        raise LaunchError(f"sbatch: {answer.complaint}")
    job = answer.out.strip().split(";")[0]  # JOB;CLUSTER where there are several
    commands.say(f"job {job}: squeue -j {job}; tail -f {flags.name}-{job}.log; to end it: scancel {job}")
    if not flags.dry_run:
        print(job)
    return 0


if __name__ == "__main__":
    sys.exit(launch(main))
