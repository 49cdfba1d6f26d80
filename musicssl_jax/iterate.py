"""`python -m musicssl_jax.iterate`: HuBERT's two iterations unattended.

    python -m musicssl_jax.iterate --first=configs/musichubert.py:k2000_iter1 \
        --second=configs/musichubert.py:k2000_iter2 --layer=6 --workdir=RUNS --config.data.path=DATA

Trains the first config in RUNS/iteration1, fits codebooks to the hidden states of its layer, and trains the second on
them in RUNS/iteration2, from scratch or, with --keep_encoder, from the first one's encoder. Fields given as
--config.FIELD=VALUE hold for both. The same command again goes on where it was stopped, in either iteration or between.
"""

import sys
from pathlib import Path

from musicssl_jax.command import ArgumentParser, run_command
from musicssl_jax.config import load
from musicssl_jax.errors import UserError
from musicssl_jax.train import train


def main(argv: list[str]) -> None:
    """The command. Both configs are checked before the first is trained."""
    flags, fields = _parser().parse_known_args(argv)
    workdirs = [Path(flags.workdir).expanduser().resolve() / f"iteration{n}" for n in (1, 2)]
    first = _config([f"--config={flags.first}", *fields])
    second = [f"--config={flags.second}", *fields, f"--config.targets=layer:{flags.layer}@{workdirs[0]}"]
    if flags.keep_encoder:
        second.append(f"--config.init_from={workdirs[0]}")
    if not 1 <= flags.layer <= first.model.layers:
        raise UserError(f"--layer={flags.layer}: {flags.first} has layers 1 to {first.model.layers}")
    for config, workdir in zip((first, _config(second)), workdirs, strict=True):
        train(config, workdir)


def _config(argv: list[str]):
    config, rest = load(argv)
    if rest:
        raise UserError(f"unrecognized arguments: {' '.join(rest)} (see musicssl iterate --help)")
    return config


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="musicssl iterate",
        description="Runs HuBERT's first and second iteration.",
        epilog="--config.FIELD=VALUE changes a field of both configs.",
    )
    parser.add_argument("--first", default="configs/musichubert.py:k2000_iter1", help="config (default %(default)s)")
    parser.add_argument("--second", default="configs/musichubert.py:k2000_iter2", help="config (default %(default)s)")
    parser.add_argument("--layer", type=int, default=6, help="of the first, which the second predicts (default 6)")
    parser.add_argument("--keep_encoder", action="store_true", help="begin the second with the first one's encoder")
    parser.add_argument("--workdir", required=True, help="folder of both runs")
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main))
