"""Training on a Cloud TPU slice, from creating it to deleting it; recreated with the same run when it is preempted.

    python launch/tpu_vm.py --name=mv-base --zone=us-west4-a --type=v5litepod-16 --spot --wheel=dist/WHEEL \
        -- musicssl train --config=configs/music2vec.py:base --config.data.path=gs://B/DATA --workdir=gs://B/RUN

Queues the slice (queued-resources; --direct creates it at once or fails), installs the wheel (or --package, a pip
requirement) with [tpu,gcs] on every worker, starts the command on all of them, polls state and exit codes, and deletes
the slice at the end, also after a failure or Ctrl-C, which first lets the run save (--keep leaves the slice). A
preempted slice is deleted, created anew and the same command started again; so are all exit codes but 0, 2 and 4. The
launcher ends with the command's exit code. It only watches: if it dies, the run goes on, and the same line again takes
over. DATA and RUN are on gs://, since a slice's disks go with it.

Costs: chips x hours held x the price of a chip-hour, from ACTIVE until the delete is through, whether or not anything
runs; the launcher prints the first two. Prices differ by zone and by --spot, and change:
https://cloud.google.com/tpu/pricing. v4 to v6e only: Google's newer TPUs are had through GKE (launch/gke.py).
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from commands import Commands, LaunchError, Parser, launch, need_command
from supervise import add_policy_flags, policy_from
from tpu_run import TpuRun
from tpu_slice import RUNTIMES, TpuSlice, chips_of


def read_flags(argv: Sequence[str]):
    parser = Parser(__doc__)
    parser.add_argument("--name", required=True, help="of the slice and of its request")
    parser.add_argument("--zone", required=True)
    parser.add_argument("--project", help="(default: gcloud's own)")
    parser.add_argument("--type", required=True, help="as v5litepod-16, v6e-16, v5p-32")
    parser.add_argument("--runtime", help="the VM's image (default: " + ", ".join(sorted(set(RUNTIMES.values()))) + ")")
    price = parser.add_mutually_exclusive_group()
    price.add_argument("--spot", action="store_true", help="cheaper, and may be taken away (default: on demand)")
    price.add_argument("--reserved", action="store_true", help="from your reservation")
    parser.add_argument("--direct", action="store_true", help="tpu-vm create, not a queued request")
    parser.add_argument("--valid-until-duration", help="the request ends unfulfilled after this, as 6h (queued only)")
    parser.add_argument("--create-flag", action="append", default=[], metavar="FLAG", help="more, as --network=N")
    package = parser.add_mutually_exclusive_group()
    package.add_argument("--wheel", type=Path, help="made by `python -m build --wheel`")
    package.add_argument("--package", help="a pip requirement with its extras")
    parser.add_argument("--extras", default="tpu,gcs", help="of the wheel")
    parser.add_argument("--python", default="3.12", help="on the workers, which come with one that is too old")
    parser.add_argument("--keep", action="store_true", help="leave the slice at the end; it goes on to cost")
    parser.add_argument("--delete", action="store_true", help="only delete it")
    parser.add_argument("--poll-seconds", type=float, default=60)
    parser.add_argument("--grace-seconds", type=float, default=180, help="for a checkpoint")
    parser.add_argument("--ssh-tries", type=int, default=10, help="in a row; they fail while a slice comes up")
    parser.add_argument("--create-tries", type=int, default=20, help="while there is no capacity (--direct)")
    add_policy_flags(parser)
    flags, command = parser.split(argv)
    check(flags)
    return flags, command


def check(flags) -> None:
    """Raises LaunchError for what would only fail on machines that already cost."""
    chips_of(flags.type)
    if flags.delete:
        return
    if not (flags.wheel or flags.package):
        raise LaunchError("what should be installed? --wheel=FILE, or --package='musicssl_jax[tpu,gcs]'")
    if flags.wheel and not flags.wheel.is_file():
        raise LaunchError(f"--wheel={flags.wheel}: no such file; `python -m build --wheel` makes one in dist/")
    if flags.direct and flags.valid_until_duration:
        raise LaunchError("--valid-until-duration is for queued requests; leave it or --direct out")


def main(argv: list[str]) -> int:
    flags, command = read_flags(argv)
    commands = Commands(flags.dry_run)
    machine = TpuSlice(commands, flags)
    if flags.delete:
        machine.delete()
        return 0
    return TpuRun(commands, machine, flags, need_command(command)).supervised(policy_from(flags))


if __name__ == "__main__":
    sys.exit(launch(main))
