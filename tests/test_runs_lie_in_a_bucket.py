"""Data, checkpoints, metrics and reports in gs://, against a server that stands in for Google Cloud Storage."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
from process_fixtures import ROOT, free_address
from run_fixtures import flags, hubert_flags

from musicssl_jax.errors import PREEMPTED, UserError
from musicssl_jax.object_store import copy_files, reach
from musicssl_jax.training.metrics import read_metrics

os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"  # as `reach` does; gcsfs reads it when it is imported
pytest.importorskip("gcsfs")
pytest.importorskip("gcp_storage_emulator")

# gcsfs, TensorStore and ArrayRecord have a client each.
CLIENTS = ("STORAGE_EMULATOR_HOST", "TENSORSTORE_GCS_HTTP_URL", "CLOUD_STORAGE_EMULATOR_ENDPOINT")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of a store with the empty bucket `bucket`."""
    host, port = free_address().split(":")
    command = ["start", f"--host={host}", f"--port={port}", "--in-memory", "--default-bucket=bucket"]
    log = (tmp_path_factory.mktemp("store") / "log").open("w")
    store = subprocess.Popen(
        [sys.executable, "tests/bucket_server.py", *command],
        cwd=ROOT,
        stdout=log,
        stderr=log,
    )
    address = f"http://{host}:{port}"
    until(lambda: answers(f"{address}/storage/v1/b/bucket"))
    yield address
    store.kill()
    store.wait()


def answers(address: str) -> bool:
    try:
        return urllib.request.urlopen(address, timeout=5).status == 200
    except (urllib.error.URLError, ConnectionError):
        return False


def until(happened, seconds: float = 400.0) -> None:
    began = time.monotonic()
    while not happened():
        assert time.monotonic() - began < seconds
        time.sleep(0.1)


@pytest.fixture
def bucket(server, monkeypatch):
    for name in CLIENTS:
        monkeypatch.setenv(name, server)
    return reach("gs://bucket", write=True)


def job(module: str, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen) -> tuple[int, str]:
    out, err = process.communicate(timeout=400)
    return process.returncode, out + err


@pytest.mark.long
def test_a_run_goes_on_from_a_bucket_as_from_a_disk(music, bucket, tmp_path):
    """Stopped by SIGTERM; with codebooks of its own. Another command then reads its newest checkpoint.

    A store has no rename: a writer that was killed leaves files under the final name, which do not count.
    """
    copy_files(music, bucket / "data")
    fields = {"steps": 200, "checkpoint__every": 20, "valid__every": 100}
    train = ["musicssl_jax.train", *hubert_flags("gs://bucket/data", **fields)]
    run = bucket / "run"

    first = job(*train, f"--workdir={run}")
    until(lambda: (run / "checkpoints" / "20" / "commit_success.txt").exists() or first.poll() is not None)
    first.send_signal(signal.SIGTERM)
    code, said = ended(first)
    assert code == PREEMPTED, said
    code, said = ended(job(*train, f"--workdir={run}"))
    assert code == 0, said
    assert f"{run}: goes on at step" in said and "fitted to random frames" not in said

    (run / "checkpoints" / "200" / "commit_success.txt").unlink()
    code, said = ended(job(*train, f"--workdir={run}"))
    assert code == 0 and "goes on at step 180" in said, said

    code, said = ended(job("musicssl_jax.train", *hubert_flags(music, **fields), f"--workdir={tmp_path / 'run'}"))
    assert code == 0, said
    (tmp_path / "metrics.jsonl").write_bytes((run / "metrics.jsonl").read_bytes())
    ours, theirs = (read_metrics(f / "metrics.jsonl")["train/loss"] for f in (tmp_path, tmp_path / "run"))
    np.testing.assert_array_equal(ours, theirs)
    assert "Versions" in (run / "report.html").read_text()
    assert {"config.json", "tensorboard", "loss.png", "example.npz", "codebooks"} <= {f.name for f in run.iterdir()}

    code, said = ended(
        job(
            "musicssl_jax.embed",
            f"--checkpoint={run}",
            f"--input={music.parent.parent / 'audio'}",
            f"--output={tmp_path / 'features'}",
        )
    )
    assert code == 0, said
    assert list((tmp_path / "features").glob("**/*.npz"))


def test_what_is_copied(bucket, tmp_path):
    for folder in ("kept", "apart"):
        (tmp_path / folder).mkdir()
    for name in ("a", "kept/b", "apart/c", ".hidden"):
        (tmp_path / name).write_text(name)
    copy_files(tmp_path, bucket / "copy", without=("apart",))
    copy_files(bucket / "copy", tmp_path / "back")
    assert sorted(p.relative_to(tmp_path / "back").as_posix() for p in (tmp_path / "back").rglob("*")) == [
        "a", "kept", "kept/b",
    ]  # fmt: skip
    assert (tmp_path / "back/kept/b").read_text() == "kept/b"


@pytest.mark.parametrize(
    ("path", "write", "said"),
    [
        ("s3://bucket/run", False, "only Google Cloud Storage"),
        ("gs://absent/run", True, "gs://absent/run cannot be reached"),
    ],
)
def test_a_path_that_will_not_do_is_named(bucket, path, write, said):
    with pytest.raises(UserError, match=said):
        reach(path, write=write)


@pytest.mark.long
def test_a_store_that_does_not_answer_ends_the_command_in_time(tmp_path):
    silent = os.environ | dict.fromkeys(CLIENTS, "http://10.255.255.1:9")
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "musicssl_jax.train", *flags("gs://bucket/data"), f"--workdir={tmp_path / 'run'}"],
        cwd=ROOT,
        env=silent | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "gs://bucket/data" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert time.monotonic() - began < 60  # 25 s of patience, and a start on a busy machine
