"""The table of the 13 tasks on synthetic music: small data sets in the official layouts, and all that evaluation does.

    musicssl demo-tasks [--workdir=runs/demo_tasks] [--checkpoint=RUN]

Writes data sets of musicbox sounds in the layouts of the 13 tasks, trains `configs/music2vec.py:demo` unless a
checkpoint is given, and evaluates it beside the same encoder before its first update and the baselines: some 70 minutes
of processor time, 350 MB. The scores say that everything works and how it looks; of real music they say nothing. The
same command again goes on.
"""

import subprocess
import sys
from pathlib import Path

from data_pipelines.musicbox.official_layouts import SIZES, write_task_sets
from musicssl_jax.command import ArgumentParser, run_command
from musicssl_jax.errors import DIVERGED, DONE, UserError

CONFIG = "configs/music2vec.py:demo"
SEED = 5
MISSING = "0.99"  # the sets are small: GTZAN's list names recordings that they do not have


def main(argv: list[str]) -> int:
    flags = _parser().parse_args(argv)
    workdir = Path(flags.workdir).expanduser()
    data_dir = workdir / "data" / flags.size
    if not (data_dir / "complete").exists():
        print(f"writing small data sets in the official layouts to {data_dir}", flush=True)
        write_task_sets(data_dir, seed=SEED, size=flags.size)
        (data_dir / "complete").touch()
    checkpoint = flags.checkpoint or str(workdir / "music2vec")
    if not flags.checkpoint:
        _run(["musicssl_jax.train", f"--config={CONFIG}", f"--workdir={checkpoint}"], may_end_with=DIVERGED)
    return _run(
        [
            "musicssl_jax.evaluate",
            f"--checkpoint={checkpoint}",
            f"--data_dir={data_dir}",
            f"--output={workdir / 'results'}",
            f"--max_missing={MISSING}",
            *([f"--tasks={flags.tasks}"] if flags.tasks else []),
        ]
    )


def _run(command: list[str], may_end_with: int = DONE) -> int:
    """Runs a command as a user would; UserError: it failed."""
    print("$ python -m", *command, flush=True)
    code = subprocess.run([sys.executable, "-m", *command], check=False).returncode
    if code not in (DONE, may_end_with):
        raise UserError(f"that command ended with exit code {code}: see what it says above")
    return code


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="musicssl demo-tasks", description="The 13 tasks on small synthetic data sets.")
    parser.add_argument("--workdir", default="runs/demo_tasks", help="folder of everything (default %(default)s)")
    parser.add_argument("--checkpoint", help="as musicssl evaluate takes (default: a small one is trained)")
    parser.add_argument("--size", choices=SIZES, default="demo", help="of the data sets (default %(default)s)")
    parser.add_argument("--tasks", help="some of the 13 (default: all)")
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main))
