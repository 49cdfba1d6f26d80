"""Stand-ins for gcloud, kubectl, sbatch, srun and scontrol: strict about arguments, and they fail as told.

`main` plays the PROGRAM of `PROGRAM ARGUMENTS...`. Its folder LAUNCH_FAKES holds `script.json` (what should
happen), `state.json` (what has happened) and `calls.jsonl` (one argv a line). What may be passed is what the synopses
of the real programs list: Google Cloud SDK 528, kubectl 1.32, Slurm 22.05. They start often, so they import what only
some need where they need it.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

WHERE = {"--zone", "--project", "--quiet"}
CREATE = {
    *WHERE,
    *("--accelerator-type", "--spot", "--reserved", "--network", "--subnetwork", "--service-account", "--labels"),
}
SSH = {*WHERE, "--worker", "--internal-ip"}

# Of each gcloud command: the flags that may be passed, those that must be, and the number of other words.
GCLOUD = {
    ("queued-resources", "create"): (
        {*CREATE, "--node-id", "--runtime-version", "--valid-until-duration"},
        {"--zone", "--accelerator-type", "--node-id", "--runtime-version"},
        1,
    ),
    ("queued-resources", "describe"): ({*WHERE, "--format"}, {"--zone", "--format"}, 1),
    ("queued-resources", "delete"): ({*WHERE, "--force", "--async"}, {"--zone", "--quiet", "--force"}, 1),
    ("tpu-vm", "create"): ({*CREATE, "--version"}, {"--zone", "--accelerator-type", "--version"}, 1),
    ("tpu-vm", "describe"): ({*WHERE, "--format"}, {"--zone", "--format"}, 1),
    ("tpu-vm", "delete"): ({*WHERE, "--async"}, {"--zone", "--quiet"}, 1),
    ("tpu-vm", "ssh"): ({*SSH, "--command"}, {"--zone", "--worker", "--command"}, 1),
    ("tpu-vm", "scp"): ({*SSH, "--recurse"}, {"--zone", "--worker"}, 2),
}
SWITCHES = {"--spot", "--reserved", "--quiet", "--force", "--async", "--internal-ip", "--recurse"}

KUBECTL = {
    ("apply",): {"--filename"},
    ("get", "jobset"): {"--ignore-not-found", "--output"},
    ("get", "pods"): {"--selector", "--output"},
    ("delete", "jobset"): {"--ignore-not-found", "--cascade", "--wait"},
}

SBATCH = {
    *("--parsable", "--requeue", "--job-name", "--nodes", "--ntasks-per-node", "--gpus-per-node", "--cpus-per-task"),
    *("--time", "--partition", "--account", "--signal", "--export", "--exclusive", "--mem", "--open-mode", "--output"),
}
SRUN = {"--kill-on-bad-exit", "--wait", "--gpu-bind", "--container-image"}

MOST_REQUEUES = 9


class Refused(Exception):
    """The real program would have refused these arguments."""


class Fails(Exception):
    """A failure that was asked for: the line on stderr, and exit code 1."""


class Folder:
    """What a test and the stand-ins share."""

    def __init__(self, folder: str):
        self.path = Path(folder)
        file = self.path / "script.json"
        self.script = json.loads(file.read_text()) if file.exists() else {}

    def note(self, argv: list[str]) -> None:
        with (self.path / "calls.jsonl").open("a") as calls:
            calls.write(json.dumps(argv) + "\n")

    def state(self) -> dict:
        file = self.path / "state.json"
        return json.loads(file.read_text()) if file.exists() else {}

    def keep(self, state: dict) -> None:
        (self.path / "state.json").write_text(json.dumps(state))

    def next_of(self, name: str, default):
        """The next of a list in the script; its last one stays."""
        state = self.state()
        number = state.get(name, 0)
        self.keep(state | {name: number + 1})
        steps = self.script.get(name, [default])
        return steps[min(number, len(steps) - 1)]


def parse(words: list[str], allowed: set[str], switches: set[str]) -> tuple[dict[str, str], list[str]]:
    """Flags and other words; every value is joined by `=`, as the launchers write it. Raises Refused."""
    flags: dict[str, str] = {}
    others = []
    for word in words:
        name, equals, value = word.partition("=")
        if not word.startswith("--"):
            others.append(word)
        elif name not in allowed or name in flags or bool(equals) == (name in switches) or (equals and not value):
            raise Refused(f"bad flag: {word}")
        else:
            flags[name] = value
    return flags, others


def check_gcloud(argv: list[str]) -> tuple[tuple[str, str], dict[str, str], list[str]]:
    if argv[:2] != ["compute", "tpus"] or tuple(argv[2:4]) not in GCLOUD:
        raise Refused(f"no such command: {argv[:4]}")
    what = (argv[2], argv[3])
    allowed, needed, count = GCLOUD[what]
    flags, others = parse(argv[4:], allowed, SWITCHES)
    if missing := needed - set(flags):
        raise Refused(f"missing {sorted(missing)}")
    if len(others) != count:
        raise Refused(f"{count} names are wanted: {others}")
    if {"--spot", "--reserved"} <= set(flags):
        raise Refused("spot and reserved exclude each other")
    if flags.get("--format", "value(state.state)" if "queued" in what[0] else "value(state)") != (
        "value(state.state)" if "queued" in what[0] else "value(state)"
    ):
        raise Refused(f"no such field: {flags['--format']}")
    return what, flags, others


def gcloud(argv: list[str], folder: Folder) -> int:
    """A slice is ABSENT until `create`; each slice goes through the states of the script's `slices`, one a describe."""
    what, flags, _ = check_gcloud(argv)
    state = folder.state()
    if what[1] == "create":
        failure = folder.next_of("create", "")
        if failure:
            raise Fails(failure)
        state = folder.state()
        if state.get("exists"):
            raise Fails("ERROR: ALREADY_EXISTS")
        folder.keep(state | {"exists": True, "slice": state.get("slice", 0) + 1, "asked": 0, "refused": 0})
    elif what[1] == "describe":
        if folder.script.get("describe_fails"):
            raise Fails(folder.script["describe_fails"])
        if not state.get("exists"):
            raise Fails("ERROR: (gcloud.compute.tpus.describe) NOT_FOUND: Resource was not found")
        ready = "ACTIVE" if "queued" in what[0] else "READY"
        slices = folder.script.get("slices", [[ready]])
        states = slices[min(state["slice"], len(slices)) - 1]
        folder.keep(state | {"asked": state["asked"] + 1})
        print(states[min(state["asked"], len(states) - 1)])
    elif what[1] == "delete":
        time.sleep(folder.script.get("delete_seconds", 0))
        if failure := folder.next_of("delete", ""):
            raise Fails(failure)
        if not state.get("exists"):
            raise Fails("ERROR: NOT_FOUND: Resource was not found")
        end_workers(folder, state["slice"])
        folder.keep(folder.state() | {"exists": False})
    elif what[1] == "ssh":
        return ssh(flags["--command"], folder, state)
    return 0


def homes(folder: Folder, number: int) -> list[Path]:
    each = [folder.path / f"slice{number}" / f"worker{worker}" for worker in range(folder.script.get("workers", 2))]
    for home in each:
        home.mkdir(parents=True, exist_ok=True)
    return each


def ssh(line: str, folder: Folder, state: dict) -> int:
    """Runs the line with sh on every worker, each with a home of its own. Installing is only read, and noted."""
    import subprocess

    if not state.get("exists"):
        raise Fails("ERROR: NOT_FOUND: Resource was not found")
    if state["refused"] < folder.script.get("ssh_refused", 0):
        folder.keep(state | {"refused": state["refused"] + 1})
        raise Fails("ERROR: [SSH] exited with return code [255]")
    code = 0
    for worker, home in enumerate(homes(folder, state["slice"])):
        reading = ["-n"] if "pip install" in line else []
        environment = os.environ | {"HOME": str(home), "WORKER": str(worker)}
        shell = subprocess.Popen(
            ["sh", *reading, "-c", line], env=environment, stdout=subprocess.PIPE, start_new_session=True, text=True
        )
        print(shell.communicate()[0], end="")
        code = shell.returncode or code
        try:
            os.killpg(shell.pid, signal.SIGKILL)  # the connection is closed: what did not detach itself ends
        except ProcessLookupError:
            continue
    if "pip install" in line and folder.script.get("install_fails"):
        raise Fails(folder.script["install_fails"])
    return code


def end_workers(folder: Folder, number: int) -> None:
    """A slice that is deleted takes its processes along."""
    for home in homes(folder, number):
        file = home / "musicssl-launch" / "pid"
        if file.exists() and file.read_text().strip():
            pid = int(file.read_text())
            if os.path.exists(f"/proc/{pid}"):
                os.kill(pid, signal.SIGKILL)


def kubectl(argv: list[str], folder: Folder) -> int:
    """JobSets go through the script's `statuses`, one a `get jobset`; `pods` is what is left of a failed one."""
    words = [word for word in argv if not word.startswith(("--context=", "--namespace="))]
    kind = next((kind for kind in KUBECTL if tuple(words[: len(kind)]) == kind), None)
    if kind is None:
        raise Refused(f"no such command: {words[:2]}")
    flags, others = parse(words[len(kind) :], KUBECTL[kind], {"--ignore-not-found"})
    if len(others) != (kind in (("get", "jobset"), ("delete", "jobset"))):
        raise Refused(f"names: {others}")
    state = folder.state()
    if kind == ("apply",):
        if failure := folder.script.get("apply_fails"):
            raise Fails(failure)
        (folder.path / "applied.yaml").write_text(Path(flags["--filename"]).read_text())
        folder.keep(state | {"exists": True})
    elif kind == ("delete", "jobset"):
        folder.keep(state | {"exists": False})
    elif kind == ("get", "jobset"):
        before = folder.script.get("before")
        if state.get("exists") is None and before:
            print(json.dumps({"status": before}))
        elif state.get("exists"):
            status = folder.next_of("statuses", {})
            print(json.dumps({"status": status}) if status is not None else "", end="")
    else:
        print(json.dumps({"items": folder.script.get("pods", [])}))
    return 0


def sbatch(argv: list[str], folder: Folder) -> int:
    """Runs the job to its end, with all its requeues, and then prints its number."""
    import subprocess

    at = next((number for number, word in enumerate(argv) if not word.startswith("-")), len(argv))
    flags, _ = parse(argv[:at], SBATCH, {"--parsable", "--requeue", "--exclusive"})
    if failure := folder.script.get("sbatch_fails"):
        raise Fails(failure)
    script, *words = argv[at:]
    tasks = int(flags.get("--nodes", "1")) * int(flags.get("--ntasks-per-node", "1"))
    if "--requeue" not in Path(script).read_text() + " ".join(argv):
        raise Refused("such a job cannot be requeued")
    exported = dict(item.split("=", 1) for item in flags.get("--export", "ALL").split(",") if "=" in item)
    environment = os.environ | exported | {"SLURM_JOB_ID": "77", "SLURM_NTASKS": str(tasks)}
    log = folder.path / f"{flags.get('--job-name', 'musicssl')}-77.log"
    for restart in range(MOST_REQUEUES):
        counted = {"SLURM_RESTART_COUNT": str(restart)} if restart else {}
        (folder.path / "requeued").unlink(missing_ok=True)
        with log.open("a") as lines:
            done = subprocess.run(
                ["bash", script, *words], env=environment | counted, stdout=lines, stderr=lines, cwd=folder.path
            )
        if not (folder.path / "requeued").exists():
            break
    folder.keep(folder.state() | {"job_code": done.returncode, "restarts": restart})
    print("77;cluster")
    return 0


def srun(argv: list[str], folder: Folder) -> int:
    """The highest code of all tasks, which is what srun ends with."""
    import subprocess

    at = next((number for number, word in enumerate(argv) if not word.startswith("-")), len(argv))
    parse(argv[:at], SRUN, set())
    tasks = [
        subprocess.Popen(argv[at:], env=os.environ | {"SLURM_PROCID": str(number)}, start_new_session=True)
        for number in range(int(os.environ["SLURM_NTASKS"]))
    ]
    if folder.next_of("preempt", False):
        while not all((folder.path / f"starts{number}").exists() for number in range(len(tasks))):
            time.sleep(0.01)
        for task in tasks:  # every process of a task, the shell around the command too
            os.killpg(task.pid, signal.SIGTERM)
    codes = [task.wait() for task in tasks]
    return max(128 - code if code < 0 else code for code in codes)


def scontrol(argv: list[str], folder: Folder) -> int:
    if argv != ["requeue", os.environ["SLURM_JOB_ID"]]:
        raise Refused(f"scontrol {argv}")
    if failure := folder.script.get("requeue_fails"):
        raise Fails(failure)
    (folder.path / "requeued").touch()
    return 0


PROGRAMS = {"gcloud": gcloud, "kubectl": kubectl, "sbatch": sbatch, "srun": srun, "scontrol": scontrol}


def check_line(line: str) -> None:
    """That the real program would take a line of a dry run. Raises Refused."""
    import shlex

    program, *argv = shlex.split(line)
    if program == "gcloud":
        check_gcloud(argv)
    elif program == "kubectl":
        words = [word for word in argv if not word.startswith(("--context=", "--namespace="))]
        kind = next(kind for kind in KUBECTL if tuple(words[: len(kind)]) == kind)
        parse(words[len(kind) :], KUBECTL[kind], {"--ignore-not-found"})
    elif program == "sbatch":
        at = next(number for number, word in enumerate(argv) if not word.startswith("-"))
        parse(argv[:at], SBATCH, {"--parsable", "--requeue", "--exclusive"})
    else:
        raise Refused(f"no such program: {program}")


def main() -> int:
    program, *argv = sys.argv[1:]
    folder = Folder(os.environ["LAUNCH_FAKES"])
    folder.note([program, *argv])
    try:
        return PROGRAMS[program](argv, folder)
    except Refused as refused:
        print(f"ERROR: refused by the stand-in: {refused}", file=sys.stderr)
        return 64
    except Fails as failure:
        print(failure, file=sys.stderr)
        return 1
