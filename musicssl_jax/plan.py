"""`python -m musicssl_jax.plan`: whether a training fits a machine, and what it will cost, before it is paid for.

    python -m musicssl_jax.plan --config=configs/music2vec.py:base --topology=v5e:4x4

The very train step is compiled for that machine, which need not be there: TPUs need their compiler alone
(pip install libtpu), GPUs that are not there are estimated and the screen says so. A base model takes minutes.
"""

import json
import sys
from argparse import Namespace
from typing import Any

from musicssl_jax.command import ArgumentParser, count_of, positive, run_command
from musicssl_jax.config import DEFAULT_FILE, load

PER_HOURS = 1000.0  # of music, that the disk's figure is for


def main(argv: list[str]) -> None:
    """The command: plans and prints. UserError: no such machine, or the config's mesh does not suit it."""
    config, flags = read_flags(argv)
    plan = make_plan(config, flags)
    from musicssl_jax.planning.facts import as_json
    from musicssl_jax.planning.screen import screen

    print(json.dumps(as_json(plan), indent=2) if flags.json else screen(plan))


def read_flags(argv: list[str]) -> tuple[Any, Namespace]:
    """The config and the other flags."""
    # `load` takes the demo where neither a variant nor data are named; a plan needs no data.
    config, rest = load(["--config.data.path=", *argv])
    return config, _parse(rest)


def make_plan(config: Any, flags: Namespace) -> Any:
    """The `Plan` of the config on the machine that the flags name."""
    # What works with JAX's devices is imported once it is known that there is something to plan.
    from musicssl_jax.planning.machine import open_machine
    from musicssl_jax.planning.planner import plan_on, scaled

    machine = open_machine(flags.topology, flags.gpu)
    planned = scaled(config, flags.clips_per_device, machine.count) if flags.clips_per_device else config
    return plan_on(
        planned,
        machine,
        config_clips=config.batch.clips,
        search=not flags.no_search,
        hours=flags.hours,
        utilisation=flags.utilisation,
        say=lambda text: print(text, file=sys.stderr, flush=True),
    )


def _parse(argv: list[str]) -> Namespace:
    from musicssl_jax.training.outlook import ASSUMED_UTILISATION

    parser = ArgumentParser(
        prog="musicssl plan",
        description="Compiles a training's update for a machine and says whether it fits and what it costs.",
        epilog=f"--config=FILE.py[:VARIANT] (default {DEFAULT_FILE}) names the settings, "
        "--config.FIELD=VALUE changes one.",
    )
    add = parser.add_argument
    add("--topology", required=True, metavar="MACHINE", help="v5e:16x16, v5p:2x2x1, v6e:4x4, ..., gpu:N or cpu:N")
    add("--gpu", default="h100", help="which GPUs gpu:N are: h100, h200 or a100 (default %(default)s)")
    add(
        "--clips_per_device",
        type=count_of("clips"),
        metavar="N",
        help="a global batch of N clips a device: another training",
    )
    add(
        "--no_search",
        action="store_true",
        help="do not look for the largest micro-batch, for which it compiles twice more",
    )
    add("--hours", type=positive(1e9), default=PER_HOURS, help="of music, for the disk's figure (default %(default)g)")
    add(
        "--utilisation",
        type=positive(1.0),
        default=ASSUMED_UTILISATION,
        help="share of the peak FLOP/s that is assumed to be reached (default %(default)s)",
    )
    add("--json", action="store_true", help="print one JSON object")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(run_command(main))
