"""Sides that are timed, machines and programs that rows are of, and profiles: what a figure in the docs rests on."""

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import machine
from benchmarks.profile import own_times
from benchmarks.rows import append, is_from_here, origin, rows_of
from benchmarks.turns import Side
from musicssl_jax.errors import TrainingStopped, UserError

SERVED = """
import time
from benchmarks.turns import serve
serve({"nap": lambda seconds: time.sleep(seconds), "fail": lambda: 1 / 0, "end": lambda: exit(3)})
"""


@pytest.fixture
def napping(tmp_path, monkeypatch):
    """Name of a module that is a side."""
    (tmp_path / "napping_side.py").write_text(SERVED)
    root = Path(machine.__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(root)]))
    return "napping_side"


def test_a_side_that_takes_too_long_is_ended(napping):
    began = time.monotonic()
    with Side(napping, until=began + 2) as side, pytest.raises(TrainingStopped, match="time is up"):
        side.ask("nap", seconds=60)
    assert time.monotonic() - began < 30


def test_a_side_that_fails_says_so_and_goes_on(napping):
    with Side(napping) as side:
        with pytest.raises(UserError, match="napping_side: ZeroDivisionError"):
            side.ask("fail")
        side.ask("nap", seconds=0)
        with pytest.raises(UserError, match="ended with code 3"):
            side.ask("end")


def test_a_row_is_of_its_machine_versions_and_program(tmp_path):
    append(origin(["jax"], "cpu"), tmp_path / "rows.jsonl")
    [row] = rows_of(tmp_path / "rows.jsonl")
    assert is_from_here(row, ["jax"], "cpu")
    assert not is_from_here(row, ["jax", "numpy"], "cpu")
    assert not is_from_here(row, ["jax"], "NVIDIA H200")
    assert not is_from_here(row | {"program": "0" * 12}, ["jax"], "cpu")
    assert not is_from_here(row | {"machine": row["machine"] | {"processor": "another"}}, ["jax"], "cpu")


def test_another_source_is_another_program(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    source = tmp_path / "musicssl_jax" / "step.py"
    source.parent.mkdir()
    source.write_text("a = 1\n")
    before = machine.program()
    assert machine.program() == before
    source.write_text("a = 2\n")
    assert machine.program() != before


@st.composite
def nested(draw, begin=0, end=1000, depth=0):
    """Calls as a thread makes them, in whole seconds: one after the other, and in each other."""
    calls = []
    while begin < end and draw(st.booleans()):
        start = draw(st.integers(begin, end - 1))
        stop = draw(st.integers(start + 1, end))
        calls.append((draw(st.sampled_from("abc")), start, stop))
        if depth < 3:
            calls += draw(nested(start, stop, depth + 1))
        begin = stop
    return calls


@given(nested())
def test_own_times_add_up_to_the_time_that_anything_ran(calls):
    busy = {second for _, start, stop in calls for second in range(start, stop)}
    own = own_times(calls)
    assert sum(own.values()) == len(busy)
    assert all(seconds >= 0 for seconds in own.values())


def test_a_loop_has_the_time_that_its_body_leaves():
    assert own_times([("dot", 2, 5), ("while", 0, 10), ("dot", 6, 8)]) == {"while": 5, "dot": 5}
