"""`--distributed` joins what the cluster or the user says, and objects in one line."""

import pytest

from musicssl_jax import distributed
from musicssl_jax.errors import UserError

TWO = {"MUSICSSL_NUM_PROCESSES": "2", "MUSICSSL_PROCESS_ID": "1"}


def test_by_hand():
    assert distributed.by_hand("host:1234", TWO) == {
        "coordinator_address": "host:1234",
        "num_processes": 2,
        "process_id": 1,
    }


@pytest.mark.parametrize(
    ("address", "environment", "said"),
    [
        ("on", TWO, "want auto, off, or HOST:PORT"),
        ("host:port", TWO, "want auto, off, or HOST:PORT"),
        ("host:1", {}, "set MUSICSSL_NUM_PROCESSES"),
        ("host:1", {"MUSICSSL_NUM_PROCESSES": "2"}, "set MUSICSSL_PROCESS_ID"),
        ("host:1", TWO | {"MUSICSSL_PROCESS_ID": "2"}, "the last process is 1"),
    ],
)
def test_mistakes_are_named(address, environment, said):
    with pytest.raises(UserError, match=said):
        distributed.by_hand(address, environment)


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({}, ""),
        ({"SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "3"}, "Slurm"),
        ({"SLURM_STEP_NUM_TASKS": "1"}, ""),
        ({"SLURM_NTASKS": "8"}, ""),  # the batch script itself
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "Open MPI"),
        ({"JOB_COMPLETION_INDEX": "0"}, ""),
    ],
)
def test_clusters_are_known_by_their_variables(environment, name):
    assert distributed.cluster(environment | {"JAX_PLATFORMS": "cpu"}) == name


def test_alone_nothing_happens():
    distributed.join("auto")
    distributed.join("off")
    with pytest.raises(UserError, match="heartbeat"):
        distributed.join("off", 0)
