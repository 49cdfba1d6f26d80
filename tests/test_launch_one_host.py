"""One host: real processes, the exit-code policy, and signals that reach them once."""

import os
import signal
import sys
import textwrap
import time

import pytest
from launch_fixtures import make_place

QUICK = ["--wait-seconds=0.01", "--poll-seconds=0.01"]
TWO = ["--processes=2", "--platform=cpu", *QUICK]


@pytest.fixture
def place(tmp_path):
    return make_place(tmp_path)


def until(true, seconds=10.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def test_one_process_drives_all_devices_and_its_command_is_left_alone(place):
    told = place.launch("one_host.py", "--dry-run", "--", "musicssl", "train", "--workdir=a b")
    assert (told.returncode, told.stdout) == (0, "musicssl train '--workdir=a b'\n")


def test_several_processes_share_the_gpus_and_know_their_number(place):
    told = place.launch(
        "one_host.py", "--processes=2", "--gpus=0,1,2,3", "--port=4000", "--dry-run", "--", "musicssl", "train"
    )
    assert told.stdout.splitlines() == [
        "env MUSICSSL_NUM_PROCESSES=2 MUSICSSL_PROCESS_ID=0 CUDA_VISIBLE_DEVICES=0,1 "
        "musicssl train --distributed=127.0.0.1:4000",
        "env MUSICSSL_NUM_PROCESSES=2 MUSICSSL_PROCESS_ID=1 CUDA_VISIBLE_DEVICES=2,3 "
        "musicssl train --distributed=127.0.0.1:4000",
    ]


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["--processes=3", "--gpus=0,1,2,3", "--", "x"], "3 processes cannot share 4 GPUs equally"),
        (["--processes=2", "--platform=cpu", "--", "x", "--distributed=auto"], "leave --distributed out"),
        (["--processes=0", "--", "x"], "--processes=0: at least 1"),
        (["--processes=2"], "nothing to start"),
        (["--process=2", "--", "x"], "unrecognized arguments: --process=2"),
        (["--", "no-such-program"], "no-such-program cannot be started"),
    ],
)
def test_mistakes_are_one_line_and_2(place, argv, line):
    told = place.launch("one_host.py", *argv)
    assert told.returncode == 2
    assert told.stderr.count("\n") == 1 and line in told.stderr and told.stderr.startswith("error: ")


@pytest.mark.parametrize(
    ("codes", "code", "starts"),
    [
        ("2/134", 2, 1),
        ("134/4", 4, 1),
        ("1/2", 2, 1),
        ("3/0,0", 0, 2),
        ("abort/134,abort,0", 0, 3),
        ("1,3,1,3,0", 0, 5),
    ],
)
def test_all_but_0_2_and_4_are_started_again(place, codes, code, starts):
    told = place.launch("one_host.py", *TWO, "--", *place.command(codes))
    assert (told.returncode, place.starts(0), place.starts(1)) == (code, starts, starts), told.stderr


def test_preemptions_are_no_failures(place):
    told = place.launch("one_host.py", *QUICK, "--max-failures=1", "--", *place.command("1,3,1,0"))
    assert (told.returncode, place.starts()) == (0, 4)


def test_quick_failures_in_a_row_end_it(place):
    told = place.launch("one_host.py", *QUICK, "--max-failures=2", "--", *place.command("1"))
    assert (told.returncode, place.starts()) == (1, 3)
    assert "given up after" in told.stderr


@pytest.mark.long
def test_failures_of_runs_that_went_well_for_a_while_do_not_add_up(place):
    told = place.launch(
        "one_host.py", *QUICK, "--max-failures=1", "--healthy-seconds=0", "--", *place.command("1,1,1,0")
    )
    assert (told.returncode, place.starts()) == (0, 4)


def test_those_that_wait_for_a_lost_peer_are_killed(place):
    told = place.launch("one_host.py", *TWO, "--grace-seconds=0.1", "--", *place.command("134/hang,0"))
    assert (told.returncode, place.starts(0), place.starts(1)) == (0, 2, 2), told.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_handed_on_and_the_checkpoint_waited_for(place, number):
    process = place.start("one_host.py", *TWO, "--", *place.command("wait"))
    until(lambda: place.starts(0) and place.starts(1))
    os.killpg(process.pid, number)  # as a terminal does
    assert process.wait(10) == 3
    assert (place.path / "saved").exists()
    assert place.starts(0) == 1


@pytest.mark.long
def test_a_second_signal_does_not_wait(place):
    process = place.start("one_host.py", *TWO, "--", *place.command("hang"))
    until(lambda: place.starts(0) and place.starts(1))
    process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 137


def test_a_signal_between_two_starts_ends_it(place):
    process = place.start("one_host.py", "--wait-seconds=60", "--poll-seconds=0.01", "--", *place.command("1"))
    until(lambda: place.starts())
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 1
    assert place.starts() == 1


@pytest.mark.long
def test_two_processes_find_each_other_through_jax(place):
    program = place.path / "sum.py"
    program.write_text(
        textwrap.dedent("""
        import os, sys
        import jax
        address = sys.argv[-1].removeprefix("--distributed=")
        jax.distributed.initialize(
            address, int(os.environ["MUSICSSL_NUM_PROCESSES"]), int(os.environ["MUSICSSL_PROCESS_ID"])
        )
        from jax.experimental.multihost_utils import process_allgather
        assert process_allgather(jax.numpy.array([1 + jax.process_index()])).sum() == 3
        """)
    )
    told = place.launch("one_host.py", *TWO, "--max-failures=0", "--", sys.executable, str(program))
    assert told.returncode == 0, told.stderr
