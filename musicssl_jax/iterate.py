"""`python -m musicssl_jax.iterate`: HuBERT's two iterations unattended.

    python -m musicssl_jax.iterate --first=configs/musichubert.py:k2000_iter1 \
        --second=configs/musichubert.py:k2000_iter2 --layer=6 --workdir=RUNS --config.data.path=DATA

Trains the first config in RUNS/iteration1, fits codebooks to the hidden states of its layer, and trains the second on
them in RUNS/iteration2, from scratch. Fields given as --config.FIELD=VALUE hold for both. The same command again goes
on where it was stopped, in either iteration or between them.
"""

import os
import sys

from musicssl_jax.command import ArgumentParser, run_command
from musicssl_jax.train import main as train


def main(argv: list[str]) -> None:
    """The command."""
    parser = ArgumentParser(prog="musicssl iterate", description="Runs HuBERT's first and second iteration.")
    parser.add_argument("--first", default="configs/musichubert.py:k2000_iter1", help="config (default %(default)s)")
    parser.add_argument("--second", default="configs/musichubert.py:k2000_iter2", help="config (default %(default)s)")
    parser.add_argument("--layer", type=int, default=6, help="of the first, which the second predicts (default 6)")
    parser.add_argument("--workdir", required=True, help="folder of both runs")
    fields = [argument for argument in argv if argument.startswith("--config.")]
    flags = parser.parse_args([argument for argument in argv if argument not in fields])
    first, second = (os.path.join(os.path.expanduser(flags.workdir), f"iteration{n}") for n in (1, 2))
    train([f"--config={flags.first}", *fields, f"--workdir={first}"])
    targets = f"--config.targets=layer:{flags.layer}@{first}"
    train([f"--config={flags.second}", *fields, targets, f"--workdir={second}"])


if __name__ == "__main__":
    sys.exit(run_command(main))
