"""Slurm: the job script really runs, under stand-ins for sbatch, srun and scontrol that requeue it as Slurm does."""

import json

import pytest
from launch_fakes import check_line
from launch_fixtures import LAUNCH, make_place

CPUS = ["--cpus-only", "--tasks-per-node=2"]


@pytest.fixture
def place(tmp_path):
    return make_place(tmp_path)


def job(place) -> dict:
    return json.loads((place.path / "state.json").read_text())


def log(place) -> str:
    return (place.path / "musicssl-77.log").read_text()


def test_one_line_of_sbatch_with_a_task_for_each_gpu(place):
    argv = ["--nodes=2", "--gpus-per-node=8", "--cpus-per-task=12", "--time=24:00:00", "--partition=gpu", "--account=a"]
    told = place.launch("slurm.py", *argv, "--sbatch=--exclusive", "--dry-run", "--", "musicssl", "train", "--x=a b")
    assert (told.returncode, told.stderr, place.calls()) == (0, "", [])
    check_line(told.stdout.strip())
    assert told.stdout == (
        "sbatch --parsable --job-name=musicssl --nodes=2 --ntasks-per-node=8 --gpus-per-node=8 --cpus-per-task=12 "
        "--time=24:00:00 --partition=gpu --account=a --signal=TERM@120 --requeue "
        "--export=ALL,MUSICSSL_MAX_FAILURES=5,MUSICSSL_HEALTHY_SECONDS=600,MUSICSSL_GRACE_SECONDS=180 --exclusive "
        f"{LAUNCH}/slurm.sbatch musicssl train '--x=a b'\n"
    )


@pytest.mark.parametrize(
    ("codes", "code", "restarts"),
    [("2/134", 2, 0), ("134/4", 4, 0), ("abort/134,1,3,0", 0, 3)],
)
def test_all_but_0_2_and_4_are_requeued(place, codes, code, restarts):
    told = place.launch("slurm.py", *CPUS, "--", *place.command(codes))
    assert (told.returncode, told.stdout) == (0, "77\n"), told.stderr
    assert (job(place)["job_code"], job(place)["restarts"]) == (code, restarts), log(place)
    assert (place.starts(0), place.starts(1)) == (restarts + 1, restarts + 1)
    assert not list(place.path.glob("*.failures"))


def test_a_preempted_job_saves_and_is_requeued(place):
    place.play(preempt=[True, False])
    place.launch("slurm.py", *CPUS, "--", *place.command("wait,0"))
    assert (job(place)["job_code"], job(place)["restarts"]) == (0, 1), log(place)
    assert (place.path / "saved").exists()
    assert "exit code 3 after" in log(place)


def test_quick_failures_in_a_row_end_it(place):
    place.launch("slurm.py", *CPUS, "--max-failures=1", "--", *place.command("1,3,1"))
    assert (job(place)["job_code"], job(place)["restarts"]) == (1, 3)
    assert "given up after 1 quick failures" in log(place)


@pytest.mark.long
def test_failures_of_runs_that_went_well_for_a_while_do_not_add_up(place):
    place.launch("slurm.py", *CPUS, "--max-failures=1", "--healthy-seconds=0", "--", *place.command("1,1,1,0"))
    assert (job(place)["job_code"], job(place)["restarts"]) == (0, 3)


def test_a_job_that_cannot_be_requeued_says_how_to_go_on(place):
    place.play(requeue_fails="slurm_requeue error: Requested operation is presently disabled")
    place.launch("slurm.py", *CPUS, "--", *place.command("3,0"))
    assert (job(place)["job_code"], job(place)["restarts"]) == (3, 0)
    assert "submit the same command again" in log(place)


def test_arguments_reach_the_command_as_they_are(place):
    odd = ["a b", "it's", "$HOME", "*", '"', ""]
    program = "import sys, json; print(json.dumps(sys.argv[1:]))"
    place.launch("slurm.py", "--cpus-only", "--", "python3", "-c", program, *odd)
    assert json.loads(log(place).splitlines()[0]) == odd


def test_options_of_srun_reach_it(place):
    place.launch("slurm.py", *CPUS, "--srun=--container-image=a/b:1", "--grace-seconds=7", "--", *place.command("0"))
    called = next(call for call in place.calls() if call[0] == "srun")
    assert called[1:5] == ["--kill-on-bad-exit=0", "--wait=7", "--gpu-bind=none", "--container-image=a/b:1"]


def test_the_script_signals_the_tasks_and_not_itself():
    options = [line for line in (LAUNCH / "slurm.sbatch").read_text().splitlines() if line.startswith("#SBATCH")]
    assert {"#SBATCH --requeue", "#SBATCH --signal=TERM@120", "#SBATCH --open-mode=append"} <= set(options)


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["--", "x"], "one of the arguments --gpus-per-node --cpus-only is required"),
        (["--gpus-per-node=8"], "nothing to start"),
        (["--gpus-per-node=0", "--", "x"], "--gpus-per-node=0: at least 1"),
        (["--cpus-only", "--srun=--mounts=a,b", "--", "x"], "no commas"),
    ],
)
def test_mistakes_are_one_line_and_2(place, argv, line):
    told = place.launch("slurm.py", *argv)
    assert (told.returncode, told.stderr.count("\n"), place.calls()) == (2, 1, [])
    assert told.stderr.startswith("error: ") and line in told.stderr


def test_what_sbatch_refuses_is_told(place):
    place.play(sbatch_fails="sbatch: error: invalid partition specified: gpu")
    told = place.launch("slurm.py", *CPUS, "--partition=gpu", "--", "x")
    assert (told.returncode, told.stderr) == (2, "error: sbatch: sbatch: error: invalid partition specified: gpu\n")
