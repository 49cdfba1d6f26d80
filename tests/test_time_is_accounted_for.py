"""Every second of a run is in one account, over restarts too."""

import time

import numpy as np

from musicssl_jax.training.ledger import ACCOUNTS, Ledger


def test_accounts_add_up_and_nest():
    began = time.monotonic()
    ledger = Ledger(began)
    time.sleep(0.02)
    ledger.open("step")
    time.sleep(0.03)
    with ledger.account("validation"):
        time.sleep(0.01)
        with ledger.account("data_wait"):
            time.sleep(0.02)
        time.sleep(0.01)
    row = ledger.read(1)
    assert abs(row["time/total"] - (time.monotonic() - began)) < 0.01
    assert abs(sum(row[f"time/{name}"] for name in ACCOUNTS) - row["time/total"]) < 1e-9
    expected = {"startup": 0.02, "step": 0.03, "validation": 0.02, "data_wait": 0.02}
    for name, seconds in expected.items():
        assert seconds <= row[f"time/{name}"] < seconds + 0.05
    assert row["time/goodput"] == row["time/step"] / row["time/total"]


def test_steps_are_timed_without_what_interrupts_them():
    ledger = Ledger(time.monotonic() - 100)
    ledger.open("step")
    ledger.read(10)
    time.sleep(0.04)
    with ledger.account("checkpoint"):
        time.sleep(0.2)
    assert 0.02 <= ledger.read(12)["perf/step_seconds"] < 0.06


def test_a_restart_carries_on_and_counts_what_it_lost():
    """Saved at step 4 and killed at step 6, 30 s before this start, 10 s after step 4."""
    now = time.time()
    accounts = {f"time/{name}": (np.array([2, 4, 6]), np.array([1.0, 2.0, 3.0])) for name in ACCOUNTS}
    series = accounts | {"time/clock": (np.array([2, 4, 6]), now - np.array([50.0, 40.0, 30.0]))}
    ledger = Ledger(time.monotonic())
    ledger.go_on(series, 4)
    row = ledger.read(4)
    assert abs(row["time/lost"] - 42) < 1
    assert row["time/step"] == 2
    assert row["perf/step_seconds"] == 0


def test_a_new_run_has_lost_nothing():
    ledger = Ledger(time.monotonic())
    ledger.go_on({}, 0)
    assert ledger.read(0)["time/lost"] == 0


def test_laps_of_the_start_add_up_to_it():
    ledger = Ledger(time.monotonic() - 2)
    ledger.lap("imports")
    time.sleep(0.2)
    ledger.lap("compiling")
    imports, compiling = ledger.laps().split(", ")
    assert imports == "imports 2.0"
    assert compiling in ("compiling 0.2", "compiling 0.3")
