"""Cloud TPU VMs, against a stand-in for gcloud whose workers are folders in which the commands really run."""

import os
import shlex
import signal
import subprocess
import sys
import time

import pytest
from launch_fakes import check_line
from launch_fixtures import LAUNCH, make_place

SLICE = ["--name=mv", "--zone=us-west4-a", "--type=v5litepod-8"]
QUICK = ["--wait-seconds=0.01", "--poll-seconds=0.1", "--ssh-tries=2", "--longest-wait-seconds=0.02"]
RUN = [*SLICE, *QUICK, "--spot", "--package=musicssl_jax[tpu,gcs]"]


@pytest.fixture
def place(tmp_path):
    return make_place(tmp_path)


def until(true, seconds=20.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def test_a_run_from_creating_the_slice_to_deleting_it(place):
    place.play(slices=[["WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]])
    told = place.launch("tpu_vm.py", *RUN, "--valid-until-duration=6h", "--", *place.command("0"))
    assert told.returncode == 0, told.stderr
    assert place.gcloud() == ["describe", "create", "describe", "ssh", "describe", "ssh", "delete"]
    assert (place.starts(0), place.starts(1)) == (1, 1)
    create = next(call for call in place.calls() if "create" in call)
    assert create[3:] == [
        *("queued-resources", "create", "mv", "--zone=us-west4-a", "--accelerator-type=v5litepod-8", "--node-id=mv"),
        *("--runtime-version=v2-alpha-tpuv5-lite", "--valid-until-duration=6h", "--spot", "--quiet"),
    ]
    assert "8 chips are held" in told.stderr and "chip-hours" in told.stderr


def test_a_wheel_is_copied_to_all_workers_and_installed_with_its_extras(place):
    wheel = place.path / "musicssl_jax-1-py3-none-any.whl"
    wheel.touch()
    told = place.launch("tpu_vm.py", *SLICE, *QUICK, f"--wheel={wheel}", "--", *place.command("0"))
    assert told.returncode == 0, told.stderr
    copied = next(call for call in place.calls() if "scp" in call)
    assert copied[5:] == [str(wheel), "mv:", "--zone=us-west4-a", "--worker=all", "--quiet"]
    installed = next(call[-1] for call in place.calls() if "pip install" in call[-1])
    assert '"$HOME/musicssl_jax-1-py3-none-any.whl[tpu,gcs]"' in installed and "--python 3.12" in installed


@pytest.mark.parametrize("direct", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_preempted_slice_is_made_anew_for_the_same_run(place, direct):
    ready, gone = ("READY", "PREEMPTED") if direct else ("ACTIVE", "SUSPENDED")
    place.play(slices=[[ready, ready, gone], [ready]])
    told = place.launch("tpu_vm.py", *RUN, *["--direct"] * direct, "--", *place.command("wait,0"))
    assert told.returncode == 0, told.stderr
    assert [verb for verb in place.gcloud() if verb in ("create", "delete")] == ["create", "delete"] * 2
    assert (place.starts(0), place.starts(1)) == (2, 2)
    assert sum("pip install" in call[-1] for call in place.calls()) == 2, "a new slice has nothing on it"
    assert "it was preempted" in told.stderr


@pytest.mark.long
def test_preemption_while_it_is_queued(place):
    place.play(slices=[["WAITING_FOR_RESOURCES", "FAILED"], ["SUSPENDED"], ["ACTIVE"]])
    told = place.launch("tpu_vm.py", *RUN, "--", *place.command("0"))
    assert told.returncode == 0, told.stderr
    assert [verb for verb in place.gcloud() if verb in ("create", "delete")] == ["create", "delete"] * 3


def test_no_capacity_is_tried_again(place):
    full = "ERROR: (gcloud.compute.tpus.tpu-vm.create) There is no more capacity in the zone"
    place.play(create=[full, full, ""], slices=[["READY"]])
    told = place.launch("tpu_vm.py", *RUN, "--direct", "--", *place.command("0"))
    assert told.returncode == 0, told.stderr
    assert place.gcloud().count("create") == 3


@pytest.mark.long
def test_no_capacity_for_too_long(place):
    place.play(create=["ERROR: RESOURCE_EXHAUSTED: no more capacity"])
    told = place.launch("tpu_vm.py", *RUN, "--direct", "--create-tries=2", "--", *place.command("0"))
    assert told.returncode == 1
    assert told.stderr.splitlines()[-1] == "error: mv: no capacity in us-west4-a, tried 2 times"


@pytest.mark.long
def test_a_request_that_has_expired(place):
    place.play(slices=[["WAITING_FOR_RESOURCES", "FAILED"]])
    told = place.launch("tpu_vm.py", *RUN, "--valid-until-duration=1h", "--", *place.command("0"))
    assert (told.returncode, place.gcloud()[-1]) == (1, "delete")
    assert "not granted within 1h" in told.stderr


@pytest.mark.parametrize(
    "error",
    [
        "ERROR: PERMISSION_DENIED: Permission 'tpu.nodes.create' denied",
        "ERROR: RESOURCE_EXHAUSTED: Quota limit 'TPUV5sLitepod' has been exceeded",
        "ERROR: INVALID_ARGUMENT: no such accelerator type",
    ],
)
def test_what_waiting_does_not_mend_ends_it(place, error):
    place.play(create=[error])
    told = place.launch("tpu_vm.py", *RUN, "--", *place.command("0"))
    assert (told.returncode, told.stderr.splitlines()[-1]) == (2, f"error: gcloud: {error}")
    assert place.gcloud() == ["describe", "create", "delete"]


def test_without_a_login_nothing_is_made_or_deleted(place):
    advice = "Please run:\n\n  $ gcloud auth login\n\nto select an already authenticated account to use."
    place.play(describe_fails=f"ERROR: (gcloud) You do not currently have an active account selected.\n{advice}")
    told = place.launch("tpu_vm.py", *RUN, "--", *place.command("0"))
    assert (told.returncode, place.gcloud()) == (2, ["describe"])
    assert told.stderr == "error: gcloud: ERROR: (gcloud) You do not currently have an active account selected.\n"


def test_ssh_that_is_refused_at_first(place):
    place.play(ssh_refused=1)
    told = place.launch("tpu_vm.py", *RUN, "--", *place.command("0"))
    assert (told.returncode, place.gcloud().count("create")) == (0, 1), told.stderr


@pytest.mark.long
def test_a_slice_that_never_answers_is_replaced_a_few_times(place):
    place.play(ssh_refused=99)
    told = place.launch("tpu_vm.py", *RUN, "--max-failures=1", "--", *place.command("0"))
    assert told.returncode == 255
    assert [verb for verb in place.gcloud() if verb in ("create", "delete")] == ["create", "delete"] * 2


def test_a_package_that_cannot_be_installed(place):
    place.play(install_fails="ERROR: No matching distribution found for musicssl_jax")
    told = place.launch("tpu_vm.py", *RUN, "--", *place.command("0"))
    assert (told.returncode, place.starts(), place.gcloud()[-1]) == (2, 0, "delete")
    assert "installing failed: ERROR: No matching distribution" in told.stderr.splitlines()[-1]


@pytest.mark.parametrize("codes", ["2/134", pytest.param("4/4", marks=pytest.mark.long)])
def test_the_users_fault_and_divergence_are_not_started_again(place, codes):
    told = place.launch("tpu_vm.py", *RUN, "--", *place.command(codes))
    assert (told.returncode, place.starts(), place.gcloud()[-1]) == (int(codes[0]), 1, "delete")


def test_a_lost_peer_is_started_again_on_the_same_slice(place):
    told = place.launch("tpu_vm.py", *RUN, "--grace-seconds=0.1", "--", *place.command("abort/hang,3,0"))
    assert told.returncode == 0, told.stderr
    assert (place.starts(0), place.starts(1)) == (3, 3)
    assert place.gcloud().count("create") == 1
    assert sum("pip install" in call[-1] for call in place.calls()) == 1


@pytest.mark.long
def test_quick_failures_end_it_and_the_slice_goes(place):
    told = place.launch("tpu_vm.py", *RUN, "--max-failures=1", "--", *place.command("1"))
    assert (told.returncode, place.starts(), place.gcloud()[-1]) == (1, 2, "delete")


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)])
def test_ctrl_c_lets_the_run_save_and_deletes_the_slice(place, number):
    process = place.start("tpu_vm.py", *RUN, "--", *place.command("wait"))
    until(lambda: place.starts(0) and place.starts(1))
    os.killpg(process.pid, number)
    _, told = process.communicate(timeout=20)
    assert (process.returncode, place.gcloud()[-1]) == (3, "delete"), told
    assert (place.path / "saved").exists()


def test_ctrl_c_while_it_is_queued_deletes_the_request(place):
    place.play(slices=[["WAITING_FOR_RESOURCES"]])
    process = place.start("tpu_vm.py", *RUN, "--", *place.command("0"))
    until(lambda: place.gcloud().count("describe") >= 2)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    assert (place.gcloud()[-1], "ssh" in place.gcloud()) == ("delete", False)


@pytest.mark.long
def test_a_second_ctrl_c_deletes_at_once(place):
    process = place.start("tpu_vm.py", *RUN, "--", *place.command("hang"))
    until(lambda: place.starts(0) and place.starts(1))
    process.send_signal(signal.SIGINT)
    until(lambda: any("kill -TERM" in call[-1] for call in place.calls()))
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    assert place.gcloud()[-1] == "delete"


@pytest.mark.long
def test_no_signal_keeps_it_from_deleting(place):
    place.play(delete_seconds=1)
    process = place.start("tpu_vm.py", *RUN, "--", *place.command("0"))
    until(lambda: place.gcloud()[-1:] == ["delete"])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
        os.killpg(process.pid, number)
        time.sleep(0.1)
    assert process.wait(20) == 0
    assert '"exists": false' in (place.path / "state.json").read_text()


@pytest.mark.long
def test_a_slice_that_cannot_be_deleted_is_not_kept_quiet(place):
    place.play(delete=["ERROR: UNAVAILABLE"])
    told = place.launch("tpu_vm.py", *RUN, "--", *place.command("0"))
    assert told.returncode == 1
    assert "goes on to cost: gcloud compute tpus queued-resources delete mv --zone=us-west4-a --force" in told.stderr


@pytest.mark.long
def test_deleting_is_tried_again(place):
    place.play(delete=["ERROR: UNAVAILABLE", ""])
    assert place.launch("tpu_vm.py", *RUN, "--", *place.command("0")).returncode == 0


def test_a_new_launcher_takes_over_what_an_earlier_one_left_running(place):
    first = place.start("tpu_vm.py", *RUN, "--", *place.command("wait"))
    until(lambda: place.starts(0) and place.starts(1))
    first.kill()
    first.wait()
    second = place.start("tpu_vm.py", *RUN, "--", *place.command("wait"))
    calls = len(place.calls())
    until(lambda: len(place.calls()) > calls + 6)
    assert (place.starts(0), place.gcloud().count("create")) == (1, 1)
    assert sum("pip install" in call[-1] for call in place.calls()) == 1, "not under a run that goes on"
    second.send_signal(signal.SIGTERM)
    assert second.wait(20) == 3


@pytest.mark.long
def test_a_slice_that_somebody_deleted_is_not_made_again(place):
    place.play(slices=[["ACTIVE", "ACTIVE", "DELETING"]])
    told = place.launch("tpu_vm.py", *RUN, "--", *place.command("wait"))
    assert (told.returncode, place.gcloud().count("create")) == (1, 1)
    assert "deleted by somebody else" in told.stderr


def test_keep_and_delete(place):
    assert place.launch("tpu_vm.py", *RUN, "--keep", "--", *place.command("2")).returncode == 2
    assert "delete" not in place.gcloud()
    assert place.launch("tpu_vm.py", *SLICE, "--delete").returncode == 0
    assert place.gcloud()[-1] == "delete"
    assert place.launch("tpu_vm.py", *SLICE, "--delete").returncode == 0, "it is gone already"


@pytest.mark.parametrize("more", [["--direct", "--spot"], ["--reserved", "--project=p", "--runtime=r"]])
def test_a_dry_run_prints_what_would_be_run_and_runs_nothing(place, more):
    argv = [*SLICE, "--package=p[tpu]", *more]
    told = place.launch("tpu_vm.py", *argv, "--dry-run", "--", "musicssl", "train", "--x=it's")
    assert (told.returncode, told.stderr, place.calls()) == (0, "", [])
    lines = told.stdout.splitlines()
    for line in lines:
        check_line(line)
    assert [line.split()[4] for line in lines] == [
        *("describe", "create", "describe", "ssh", "ssh", "ssh", "describe", "ssh", "delete"),
    ]


def test_the_dry_run_is_what_a_smooth_run_does(place):
    argv = [*SLICE, *QUICK, "--package=p[tpu]"]
    command = place.command("0")
    dry = place.launch("tpu_vm.py", *argv, "--dry-run", "--", *command).stdout.splitlines()
    assert place.launch("tpu_vm.py", *argv, "--", *command).returncode == 0
    done = [shlex.join(call) for call in place.calls()]
    assert [line for number, line in enumerate(done) if line != done[number - 1]] == dry or done == dry


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ([*SLICE, "--package=p"], "nothing to start"),
        ([*SLICE, "--", "x"], "what should be installed?"),
        ([*SLICE, "--wheel=no.whl", "--", "x"], "--wheel=no.whl: no such file"),
        ([*SLICE[:2], "--type=tpu", "--package=p", "--", "x"], "--type=tpu: no such thing"),
        ([*SLICE, "--package=p", "--direct", "--valid-until-duration=1h", "--", "x"], "is for queued requests"),
        ([*SLICE, "--package=p", "--spot", "--reserved", "--", "x"], "not allowed with"),
        (["--name=mv", "--", "x"], "the following arguments are required: --zone, --type"),
    ],
)
def test_mistakes_are_one_line_and_2(place, argv, line):
    told = place.launch("tpu_vm.py", *argv)
    assert (told.returncode, told.stderr.count("\n"), place.calls()) == (2, 1, [])
    assert told.stderr.startswith("error: ") and line in told.stderr


def test_without_gcloud(place):
    (place.path / "bin" / "gcloud").unlink()
    process = place.environment() | {"PATH": str(place.path / "bin")}
    told = subprocess.run(
        [sys.executable, LAUNCH / "tpu_vm.py", *RUN, "--", "x"], env=process, capture_output=True, text=True
    )
    assert (told.returncode, told.stderr.count("\n")) == (2, 1)
    assert "gcloud was not found" in told.stderr
