"""`musicssl COMMAND ...`: one name for all commands. Only the command that is asked for is imported."""

import difflib
import importlib
import sys

from musicssl_jax import __version__
from musicssl_jax.command import run_command
from musicssl_jax.errors import UserError

COMMANDS = {
    "build": ("data_pipelines.build", "audio files -> shards that training reads"),
    "train": ("musicssl_jax.train", "pre-train an encoder; the same command again resumes"),
    "cluster": ("musicssl_jax.cluster", "fit the codebooks of musicHuBERT ahead of its training"),
    "label": ("musicssl_jax.label", "labels of whole tracks, computed once, for dear targets"),
    "iterate": ("musicssl_jax.iterate", "musicHuBERT's two iterations, one after the other"),
    "convert": ("musicssl_jax.convert", "models to and from PyTorch: transformers folders, fairseq files"),
    "evaluate": ("musicssl_jax.evaluate", "frozen encoders on 13 music tasks, in one table"),
    "plan": ("musicssl_jax.plan", "whether a training fits a machine, and its time and cost"),
    "study": ("musicssl_jax.study", "the paper's twelve configs, trained and evaluated, in one table"),
    "embed": ("musicssl_jax.embed", "features of your audio files from a trained encoder"),
    "demo": ("musicssl_jax.demo", "synthetic music, a small run, probes: one screen of results"),
    "demo-tasks": ("musicssl_jax.demo_tasks", "the 13 tasks on small synthetic data sets"),
    "doctor": ("musicssl_jax.doctor", "what this machine has, and what is missing for what"),
}


def main() -> int:
    return run_command(dispatch)


def dispatch(argv: list[str]) -> int | None:
    """Runs the command that `argv` names. UserError: there is no such command."""
    name, *rest = argv or ["--help"]
    if name in ("-h", "--help", "help"):
        print(_help())
        return None
    if name == "--version":
        print(__version__)
        return None
    if name not in COMMANDS:
        raise UserError(f"there is no command {name!r}{_suggestion(name)}")
    module, _ = COMMANDS[name]
    return importlib.import_module(module).main(rest)


def _help() -> str:
    lines = [f"  {name:10} {summary}" for name, (_, summary) in COMMANDS.items()]
    return "\n".join(["usage: musicssl COMMAND [...]   (musicssl COMMAND --help: its options)", "", *lines])


def _suggestion(name: str) -> str:
    near = difflib.get_close_matches(name, COMMANDS, n=1)
    return f"; did you mean {near[0]}?" if near else f"; there are {', '.join(COMMANDS)}"


if __name__ == "__main__":
    sys.exit(main())
