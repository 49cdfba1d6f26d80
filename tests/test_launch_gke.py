"""GKE: the JobSet against a strict schema of every field that is used, and kubectl by a stand-in."""

import re

import pytest
import yaml
from launch_fakes import check_line
from launch_fixtures import make_place

RUN = ["train", "--config=configs/music2vec.py:base", "--config.data.path=gs://b/data", "--workdir=gs://b/run"]
JOB = ["--name=mv", "--image=r/musicssl:1", "--topology=4x4", "--poll-seconds=0.01"]
COMPLETED = {"conditions": [{"type": "Completed", "status": "True"}]}
FAILED = {"conditions": [{"type": "Failed", "status": "True"}], "restarts": 1}


@pytest.fixture
def place(tmp_path):
    return make_place(tmp_path)


def rendered(place, *more, command=RUN):
    told = place.launch("gke.py", *JOB, *more, "--render", "--", *command)
    assert told.returncode == 0, told.stderr
    return yaml.safe_load(told.stdout)


def pod(jobset):
    return jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]


# A schema: a type, a set of allowed values, a pattern, [schema of items], or a dictionary of all fields, each of which
# is required unless its name ends with `?`. After the CRD of JobSet v1alpha2, batch/v1 Job and core/v1 Pod.
NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
POD = {
    "restartPolicy": {"Never"},  # podFailurePolicy asks for it
    "terminationGracePeriodSeconds": int,
    "serviceAccountName": NAME,
    "nodeSelector": {
        "cloud.google.com/gke-tpu-accelerator": re.compile(r"tpu-v(4-podslice|5-lite-podslice|5p-slice|6e-slice)"),
        "cloud.google.com/gke-tpu-topology": re.compile(r"\d+(x\d+){1,2}"),
        "cloud.google.com/gke-spot?": {"true"},
        "cloud.google.com/reservation-name?": NAME,
    },
    "tolerations": [
        {"key": str, "operator": {"Exists", "Equal"}, "value?": str, "effect": {"NoSchedule", "NoExecute"}}
    ],
    "securityContext": {"runAsUser": int},
    "containers": [
        {
            "name": NAME,
            "image": str,
            "args": [str],
            "ports": [{"containerPort": int}],
            "resources": {"requests": {"google.com/tpu": int}, "limits": {"google.com/tpu": int}},
        }
    ],
}
ON_EXIT = {"containerName": NAME, "operator": {"In", "NotIn"}, "values": [int]}
JOB_SPEC = {
    "completionMode": {"Indexed"},
    "completions": int,
    "parallelism": int,
    "backoffLimit": int,
    "podFailurePolicy": {
        "rules": [{"action": {"FailJob", "Ignore", "Count", "FailIndex"}, "onExitCodes": ON_EXIT}],
    },
    "template": {"spec": POD},
}
ACTIONS = {"FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"}
REASONS = {"BackoffLimitExceeded", "DeadlineExceeded", "PodFailurePolicy"}
JOBSET = {
    "apiVersion": {"jobset.x-k8s.io/v1alpha2"},
    "kind": {"JobSet"},
    "metadata": {
        "name": NAME,
        "namespace": NAME,
        "annotations": {"alpha.jobset.sigs.k8s.io/exclusive-topology": {"cloud.google.com/gke-nodepool"}},
    },
    "spec": {
        "failurePolicy": {
            "maxRestarts": int,
            "restartStrategy": {"Recreate", "BlockingRecreate"},
            "rules": [{"name": str, "action": ACTIONS, "onJobFailureReasons": [REASONS]}],
        },
        "ttlSecondsAfterFinished": int,
        "replicatedJobs": [{"name": NAME, "replicas": int, "template": {"spec": JOB_SPEC}}],
    },
}


def faults(value, schema, where="") -> list[str]:
    """Where `value` is not as `schema` says; fields that it does not name are faults."""
    if isinstance(schema, dict):
        if not isinstance(value, dict):
            return [f"{where}: not an object"]
        fields = {name.removesuffix("?"): (inner, name.endswith("?")) for name, inner in schema.items()}
        found = [f"{where}.{name}: unknown" for name in value if name not in fields]
        found += [f"{where}.{name}: missing" for name, (_, free) in fields.items() if not free and name not in value]
        return found + [
            fault
            for name, inner in value.items()
            if name in fields
            for fault in faults(inner, fields[name][0], f"{where}.{name}")
        ]
    if isinstance(schema, list):
        if not isinstance(value, list) or not value:
            return [f"{where}: not a list of one or more"]
        return [fault for at, item in enumerate(value) for fault in faults(item, schema[0], f"{where}[{at}]")]
    if isinstance(schema, set):
        fits = value in schema
    elif isinstance(schema, re.Pattern):
        fits = isinstance(value, str) and schema.fullmatch(value) is not None
    else:
        fits = type(value) is schema and (schema is not int or value >= 0)
    return [] if fits else [f"{where}: {value!r}"]


@pytest.mark.parametrize(
    "more",
    [
        [],
        ["--accelerator=v6e", "--topology=16x16", "--spot", "--namespace=music"],
        ["--accelerator=v5p", "--topology=2x2x4", "--reservation=r", "--service-account=train"],
        ["--topology=1x1", "--max-restarts=0", "--user=1000"],
    ],
)
def test_the_jobset_follows_its_schema(place, more):
    jobset = rendered(place, *more)
    assert faults(jobset, JOBSET) == []
    assert [rule["key"] for rule in pod(jobset)["tolerations"]] == ["google.com/tpu", "cloud.google.com/gke-spot"]


def test_the_schema_sees_faults(place):
    jobset = rendered(place)
    jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["backOffLimit"] = 0
    pod(jobset)["nodeSelector"]["cloud.google.com/gke-tpu-topology"] = 4
    del pod(jobset)["containers"][0]["image"]
    assert len(faults(jobset, JOBSET)) == 3


@pytest.mark.parametrize(
    ("more", "hosts", "chips"),
    [
        (["--topology=1x1"], 1, 1),
        (["--topology=2x4"], 2, 4),
        (["--topology=2x4", "--chips-per-host=8"], 1, 8),
        (["--topology=16x16"], 64, 4),
    ],
)
def test_one_pod_a_host_and_all_its_chips(place, more, hosts, chips):
    jobset = rendered(place, *more)
    job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert (job["completions"], job["parallelism"]) == (hosts, hosts)
    wanted = {"google.com/tpu": chips}
    assert pod(jobset)["containers"][0]["resources"] == {"requests": wanted, "limits": wanted}


def test_2_and_4_fail_at_once_and_all_else_restarts_together(place):
    spec = rendered(place, "--max-restarts=7")["spec"]
    job = spec["replicatedJobs"][0]["template"]["spec"]
    assert job["backoffLimit"] == 0, "one pod that fails must end the Job"
    assert job["podFailurePolicy"]["rules"] == [
        {"action": "FailJob", "onExitCodes": {"containerName": "musicssl", "operator": "In", "values": [2, 4]}}
    ]
    assert job["template"]["spec"]["containers"][0]["name"] == "musicssl"
    policy = spec["failurePolicy"]
    assert [(rule["action"], rule["onJobFailureReasons"]) for rule in policy["rules"]] == [
        ("FailJobSet", ["PodFailurePolicy"])
    ]
    assert (policy["maxRestarts"], policy["restartStrategy"]) == (7, "BlockingRecreate")


def test_arguments_reach_the_container_as_they_are(place):
    odd = ["train", "--workdir=gs://b/r", "a: b", "it's $HOME", '"', "yes", "1", "${x}", "#", "\\n"]
    assert pod(rendered(place, command=odd))["containers"][0]["args"] == odd


def test_a_run_is_submitted_and_watched_to_its_end(place):
    place.play(statuses=[{}, {"restarts": 1}, {"restarts": 1}, COMPLETED])
    told = place.launch("gke.py", *JOB, "--", *RUN)
    assert told.returncode == 0, told.stderr
    assert "restarted, 1 times" in told.stderr
    assert yaml.safe_load((place.path / "applied.yaml").read_text()) == rendered(place)


@pytest.mark.parametrize(("codes", "code"), [([2, 134], 2), ([134, 4], 4), ([1, 134], 1), ([], 1)])
def test_a_failed_run_ends_with_the_pods_exit_code(place, codes, code):
    pods = [{"status": {"containerStatuses": [{"state": {"terminated": {"exitCode": each}}}]}} for each in codes]
    pods.append({"status": {"containerStatuses": [{"state": {"running": {}}}]}})
    place.play(statuses=[FAILED], pods=pods)
    assert place.launch("gke.py", *JOB, "--", *RUN).returncode == code


def test_a_finished_run_makes_room_for_the_same_command(place):
    place.play(before=FAILED, statuses=[COMPLETED])
    assert place.launch("gke.py", *JOB, "--", *RUN).returncode == 0
    assert [call[2:4] for call in place.calls()][:3] == [
        ["get", "jobset"],
        ["delete", "jobset"],
        ["apply", "--filename=mv.yaml"],
    ]


def test_a_running_one_is_left_alone_and_watched(place):
    place.play(before={"restarts": 0}, statuses=[COMPLETED])
    assert place.launch("gke.py", *JOB, "--", *RUN).returncode == 0
    assert ["delete", "jobset"] not in [call[2:4] for call in place.calls()]


def test_detach_and_delete(place):
    assert place.launch("gke.py", *JOB, "--detach", "--", *RUN).returncode == 0
    assert [call[2] for call in place.calls()] == ["get", "apply"]
    assert place.launch("gke.py", "--name=mv", "--delete").returncode == 0
    assert place.calls()[-1][2:] == [
        "delete",
        "jobset",
        "mv",
        "--ignore-not-found",
        "--cascade=foreground",
        "--wait=true",
    ]


def test_a_run_that_somebody_deleted(place):
    place.play(statuses=[{}, None])
    told = place.launch("gke.py", *JOB, "--", *RUN)
    assert told.returncode == 1
    assert "deleted by somebody else" in told.stderr


def test_a_dry_run_prints_what_would_be_run_and_runs_nothing(place):
    told = place.launch("gke.py", *JOB, "--context=c", "--dry-run", "--", *RUN)
    assert (told.returncode, told.stderr, place.calls()) == (0, "", [])
    assert not list(place.path.glob("*.yaml"))
    lines = told.stdout.splitlines()
    for line in lines:
        check_line(line)
    assert lines[1] == "kubectl --context=c --namespace=default apply --filename=mv.yaml"


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ([*JOB], "nothing to start"),
        ([*JOB, "--", "musicssl", "train"], "leave `musicssl` out"),
        ([*JOB, "--", "train", "--workdir=runs/x"], "--workdir=gs://"),
        ([*JOB, "--topology=4x4x4", "--", *RUN], "--topology=4x4x4: 2 numbers are wanted, as 4x4"),
        ([*JOB, "--topology=2x3", "--", *RUN], "6 chips are not a whole number of hosts with 4"),
        ([*JOB, "--name=Mv", "--", *RUN], "--name=Mv: small letters"),
        (["--name=mv", "--", *RUN], "--image=IMAGE"),
        ([*JOB, "--spot", "--reservation=r", "--", *RUN], "not both"),
    ],
)
def test_mistakes_are_one_line_and_2(place, argv, line):
    told = place.launch("gke.py", *argv)
    assert (told.returncode, told.stderr.count("\n"), place.calls()) == (2, 1, [])
    assert told.stderr.startswith("error: ") and line in told.stderr


def test_what_kubectl_refuses_is_told(place):
    place.play(apply_fails='error: no matches for kind "JobSet" in version "jobset.x-k8s.io/v1alpha2"')
    told = place.launch("gke.py", *JOB, "--", *RUN)
    assert (told.returncode, told.stderr.count("\n")) == (2, 1)
    assert 'no matches for kind "JobSet"' in told.stderr
