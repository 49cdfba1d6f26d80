"""Training on a TPU slice of a GKE cluster, as a JobSet that restarts itself; submitted, watched, deleted.

    python launch/gke.py --name=mv-base --accelerator=v5e --topology=4x4 --image=REGION-docker.pkg.dev/P/R/musicssl:1 \
        --service-account=train -- train --config=configs/music2vec.py:base --config.data.path=gs://B/DATA \
        --workdir=gs://B/RUN

What stands behind -- goes to the image's entry point, which is `musicssl` (Dockerfile). The cluster has JobSet
installed and a node pool of that accelerator and topology. Kubernetes itself restarts the run on all exit codes but
0, 2 and 4; this launcher only watches, and Ctrl-C leaves the run alone. --delete ends it: its pods get SIGTERM and
save. --render prints the YAML. The launcher ends with the run's exit code.

Costs: chips x hours the nodes exist x the price of a chip-hour, plus the cluster's fee: a node pool that does not scale
to zero costs whether or not anything runs. Prices differ by region and for Spot, and change:
https://cloud.google.com/tpu/pricing, https://cloud.google.com/kubernetes-engine/pricing
"""

import json
import math
import re
import string
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from commands import Answer, Commands, LaunchError, Parser, launch, need_command
from supervise import DONE, group_code

TEMPLATE = Path(__file__).resolve().with_name("gke_jobset.yaml")

# https://cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus: label of the nodes, dimensions of a topology.
ACCELERATORS = {
    "v4": ("tpu-v4-podslice", 3),
    "v5e": ("tpu-v5-lite-podslice", 2),
    "v5p": ("tpu-v5p-slice", 3),
    "v6e": ("tpu-v6e-slice", 2),
}

# Kubernetes' rule for what becomes part of a host name, and JobSet's own additions need room behind it.
NAME = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")

GAVE_UP = 1


def chips_of(topology: str, dimensions: int) -> int:
    """Raises LaunchError unless it is as many numbers as the accelerator has dimensions, as in 4x4."""
    if not re.fullmatch(r"[1-9][0-9]*(x[1-9][0-9]*)*", topology) or topology.count("x") + 1 != dimensions:
        raise LaunchError(f"--topology={topology}: {dimensions} numbers are wanted, as {'x'.join('4' * dimensions)}")
    return math.prod(int(number) for number in topology.split("x"))


def hosts_of(chips: int, chips_per_host: int) -> int:
    if chips % chips_per_host:
        raise LaunchError(f"{chips} chips are not a whole number of hosts with {chips_per_host}; see --chips-per-host")
    return chips // chips_per_host


def read_flags(argv: Sequence[str]):
    parser = Parser(__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--namespace", default="default")
    parser.add_argument("--context", help="of kubectl (default: its current one)")
    parser.add_argument("--accelerator", choices=sorted(ACCELERATORS), default="v5e")
    parser.add_argument("--topology", default="2x2", help="of the slice, as the node pool was made")
    parser.add_argument("--chips-per-host", type=int, help="default 4, or all of a smaller slice; 8 on ...-8t machines")
    parser.add_argument("--image", help="made from the Dockerfile with ACCELERATOR=tpu")
    parser.add_argument("--service-account", default="default", help="of Kubernetes; it must be let into the bucket")
    parser.add_argument("--user", type=int, default=0, help="1000, the image's own, where nodes allow it TPU devices")
    parser.add_argument("--spot", action="store_true", help="Spot nodes only")
    parser.add_argument("--reservation", help="nodes of this reservation only")
    parser.add_argument("--max-restarts", type=int, default=50, help="preemptions and failures together")
    parser.add_argument("--grace-seconds", type=int, default=180, help="for a checkpoint")
    parser.add_argument("--keep-seconds", type=int, default=7 * 24 * 3600, help="a finished JobSet, and its logs")
    parser.add_argument("--output", type=Path, help="the YAML's file (default: NAME.yaml)")
    parser.add_argument("--poll-seconds", type=float, default=30)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--render", action="store_true", help="only print the YAML")
    what.add_argument("--detach", action="store_true", help="submit, and do not watch")
    what.add_argument("--delete", action="store_true", help="only delete it")
    flags, command = parser.split(argv)
    if not NAME.fullmatch(flags.name):
        parser.error(f"--name={flags.name}: small letters, digits and dashes, at most 40")
    if flags.reservation and flags.spot:
        parser.error("--spot or --reservation, not both")
    return flags, command


def check_command(command: list[str]) -> list[str]:
    """Raises LaunchError for what would fail on every node, or lose the run."""
    need_command(command)
    if command[0] == "musicssl":
        raise LaunchError("leave `musicssl` out behind --: it is the image's entry point")
    folder = [word.partition("=")[2] for word in command if word.startswith("--workdir=")]
    if command[0] == "train" and not (folder and folder[0].startswith("gs://")):
        raise LaunchError("--workdir=gs://...: checkpoints in a pod's own files are gone with it")
    return command


def render(flags, command: Sequence[str]) -> str:
    """The JobSet. Values are written as JSON, which is YAML that needs no further quoting. Raises LaunchError."""
    if not flags.image:
        raise LaunchError("--image=IMAGE: what `docker build --build-arg ACCELERATOR=tpu` made, and pushed")
    label, dimensions = ACCELERATORS[flags.accelerator]
    chips = chips_of(flags.topology, dimensions)
    per_host = flags.chips_per_host or min(4, chips)
    nodes = {"cloud.google.com/gke-tpu-accelerator": label, "cloud.google.com/gke-tpu-topology": flags.topology}
    if flags.spot:
        nodes["cloud.google.com/gke-spot"] = "true"
    if flags.reservation:
        nodes["cloud.google.com/reservation-name"] = flags.reservation
    values = {
        "name": flags.name,
        "namespace": flags.namespace,
        "max_restarts": flags.max_restarts,
        "keep_seconds": flags.keep_seconds,
        "hosts": hosts_of(chips, per_host),
        "grace_seconds": flags.grace_seconds,
        "user": flags.user,
        "service_account": flags.service_account,
        "node_selector": nodes,
        "image": flags.image,
        "arguments": list(command),
        "chips_per_host": per_host,
    }
    return string.Template(TEMPLATE.read_text()).substitute({name: json.dumps(value) for name, value in values.items()})


class JobSet:
    """One JobSet by its name, through kubectl."""

    def __init__(self, commands: Commands, flags):
        self.commands = commands
        self.name = flags.name
        context = [f"--context={flags.context}"] if flags.context else []
        self.kubectl = ["kubectl", *context, f"--namespace={flags.namespace}"]

    def must(self, *words: str, dry: str = "") -> str:
        answer = self.commands.run([*self.kubectl, *words], dry=Answer(out=dry))
        if answer.code:
            raise LaunchError(f"kubectl: {answer.complaint}")
        return answer.out

    def delete(self) -> None:
        """And waits until it is gone, with its pods."""
        self.must("delete", "jobset", self.name, "--ignore-not-found", "--cascade=foreground", "--wait=true")

    def status(self, dry: str = "") -> dict | None:
        """As Kubernetes has it, which is empty at first; None if there is no such JobSet."""
        said = self.must("get", "jobset", self.name, "--ignore-not-found", "--output=json", dry=dry)
        return json.loads(said).get("status", {}) if said.strip() else None

    def submit(self, file: Path) -> None:
        """A finished one of the same name makes room first: applying it again would change nothing."""
        if ended(self.status() or {}):
            self.delete()
        self.must("apply", f"--filename={file}")

    def exit_code(self) -> int:
        """Of the pods that are left of a failed one: kubectl keeps those that failed."""
        label = f"--selector=jobset.sigs.k8s.io/jobset-name={self.name}"
        pods = json.loads(self.must("get", "pods", label, "--output=json", dry='{"items": []}'))["items"]
        statuses = [one for pod in pods for one in pod.get("status", {}).get("containerStatuses", [])]
        ends = [one["state"]["terminated"] for one in statuses if "terminated" in one.get("state", {})]
        return group_code([end["exitCode"] for end in ends]) or GAVE_UP


def ended(status: dict) -> str:
    """Completed or Failed, or nothing while it may go on."""
    true = [one["type"] for one in status.get("conditions", []) if one.get("status") == "True"]
    return next((kind for kind in true if kind in ("Completed", "Failed")), "")


def watch(jobset: JobSet, poll_seconds: float) -> int:
    """Until the JobSet is over; a restart is told. Raises LaunchError if it was deleted."""
    restarts = 0
    done = json.dumps({"status": {"conditions": [{"type": "Completed", "status": "True"}]}})
    while True:
        status = jobset.status(dry=done)
        if status is None:
            raise LaunchError(f"JobSet {jobset.name} was deleted by somebody else; the run's checkpoints are left", 1)
        if status.get("restarts", 0) > restarts:
            restarts = status["restarts"]
            jobset.commands.say(f"{jobset.name}: restarted, {restarts} times by now")
        if end := ended(status):
            jobset.commands.say(f"{jobset.name}: {end}")
            return DONE if end == "Completed" else jobset.exit_code()
        time.sleep(poll_seconds)


def main(argv: list[str]) -> int:
    flags, command = read_flags(argv)
    jobset = JobSet(Commands(flags.dry_run), flags)
    if flags.delete:
        jobset.delete()
        return DONE
    text = render(flags, check_command(command))
    if flags.render:
        print(text, end="")
        return DONE
    file = flags.output or Path(f"{flags.name}.yaml")
    if not flags.dry_run:
        file.write_text(text)
    jobset.submit(file)
    logs = f"{' '.join(jobset.kubectl)} logs --follow --selector=jobset.sigs.k8s.io/jobset-name={flags.name}"
    jobset.commands.say(f"{flags.name}: submitted; its log: {logs}; to end it: the same line with --delete")
    return DONE if flags.detach else watch(jobset, flags.poll_seconds)


if __name__ == "__main__":
    sys.exit(launch(main))
