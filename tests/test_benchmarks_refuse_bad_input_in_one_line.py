"""The benchmarks beside a peer end with one line where a flag is no such number, or the peer is not installed."""

import importlib

import pytest

from benchmarks.comparison import best_of, need
from musicssl_jax.errors import UserError


@pytest.mark.parametrize(
    ("module", "flag"),
    [
        *(
            ("data", flag)
            for flag in ("--record_seconds=abc", "--record_seconds=0", "--record_seconds=2,", "--tracks=0")
        ),
        *(("data", flag) for flag in ("--crop_seconds=-1", "--crop_seconds=nan", "--crop_seconds=150")),
        *(("data", flag) for flag in ("--threads=-1", "--repeats=0", "--repeats=two")),
        *(("data", flag) for flag in ("--audio_seconds=0", "--audio_seconds=inf", "--audio_seconds=x")),
        *(("codebook", flag) for flag in ("--clusters=abc", "--clusters=0", "--clusters=100,-5", "--clusters=30001")),
        *(("codebook", flag) for flag in ("--repeats=0", "--tracks=4", "--tracks=many", "--peer_threads=0")),
        *(("embed", flag) for flag in ("--files=0", "--seconds=29", "--seconds=nan", "--repeats=-1", "--repeats=1.5")),
        *(("embed", flag) for flag in ("--peer_threads=0", "--peer_threads=1,x", "--peer_batch=0")),
        *(("probe", f"--{name}={value}") for name in ("train", "valid", "test", "width") for value in (0, -1, "x")),
        *(("probe", flag) for flag in ("--layers=2", "--outputs=1", "--epochs=0", "--repeats=0", "--peer_threads=0")),
    ],
)
def test_numbers(module, flag):
    with pytest.raises(UserError, match=flag.split("=")[0]):
        importlib.import_module(f"benchmarks.{module}").parse([flag, "--results="])


def test_a_measurement_shorter_than_a_crop():
    with pytest.raises(UserError, match="--audio_seconds=20: less than a crop"):
        importlib.import_module("benchmarks.data").parse(["--audio_seconds=20"])


def test_a_peer_that_is_not_installed():
    with pytest.raises(UserError, match="--peer=torch: no_such_package missing.*--peer=none"):
        need("torch", ("numpy", "no_such_package"))


def test_a_peer_that_never_works():
    settings = [{"threads": 1, "failed": "out of memory"}, {"threads": 2, "failed": "also"}]
    with pytest.raises(UserError, match="out of memory"):
        best_of(settings)
    assert best_of([*settings, {"threads": 3, "seconds": 2.0}, {"threads": 4, "seconds": 1.0}]) == {"threads": 4}
