import json
import math
import struct
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
from checkpoint_fixtures import same_imports

from musicssl_jax.errors import UserError
from musicssl_jax.training.metrics import open_metrics, read_metrics

CONFIG = SimpleNamespace(wandb=False)


def write(workdir, steps, *, resumed_step=0, offset=0.0) -> None:
    metrics = open_metrics(workdir, resumed_step=resumed_step, config=CONFIG)
    for step in steps:
        metrics.write(step, {"train/loss": step + offset, "perf/mfu": np.float32(0.5)})
    metrics.close()


def test_rows_are_json_lines_with_a_step_and_flat_names(tmp_path):
    write(tmp_path, [10, 20])
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows == [{"step": step, "train/loss": float(step), "perf/mfu": 0.5} for step in (10, 20)]


def test_a_row_is_on_disk_when_write_returns(tmp_path):
    metrics = open_metrics(tmp_path, resumed_step=0, config=CONFIG)
    metrics.write(1, {"train/loss": 4.0})
    assert read_metrics(tmp_path / "metrics.jsonl")["train/loss"][1] == [4.0]
    metrics.close()


def test_what_is_not_finite_is_null_and_comes_back_as_nan(tmp_path):
    metrics = open_metrics(tmp_path, resumed_step=0, config=CONFIG)
    metrics.write(1, {"nan": math.nan, "inf": math.inf, "one": 1.0})
    metrics.close()
    text = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {"step": 1, "nan": None, "inf": None, "one": 1.0}
    series = read_metrics(tmp_path / "metrics.jsonl")
    assert np.isnan([series["nan"][1][0], series["inf"][1][0]]).all()


def test_values_of_a_step_are_merged_and_the_last_counts(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 1, "a": 1, "b": 1}\n{"step": 1, "a": 2, "c": 3}\n{"step": 2, "b": 4}\n'
    )
    series = {name: [x.tolist() for x in xy] for name, xy in read_metrics(tmp_path / "metrics.jsonl").items()}
    assert series == {"a": [[1], [2]], "b": [[1, 2], [1, 4]], "c": [[1], [3]]}


def test_a_resumed_run_replaces_what_was_logged_beyond_its_checkpoint(tmp_path):
    write(tmp_path, [10, 20, 30, 40])
    write(tmp_path, [25], resumed_step=20, offset=0.5)
    steps, values = read_metrics(tmp_path / "metrics.jsonl")["train/loss"]
    assert steps.tolist() == [10, 20, 25]
    assert values.tolist() == [10, 20, 25.5]


@pytest.mark.parametrize("cut", [1, 8, 30])
def test_a_line_torn_by_a_kill_is_read_over_and_cut_off_when_appending(tmp_path, cut):
    write(tmp_path, [10, 20])
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    assert read_metrics(path)["train/loss"][0].tolist() == ([10, 20] if cut == 1 else [10])
    write(tmp_path, [20, 30], resumed_step=10)
    assert read_metrics(path)["train/loss"][0].tolist() == [10, 20, 30]
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [10, 20, 30]


def test_there_is_nothing_to_read_before_the_first_row(tmp_path):
    assert read_metrics(tmp_path / "metrics.jsonl") == {}


def test_event_files_are_what_tensorboard_reads(tmp_path):
    events = pytest.importorskip("tensorboardX.proto.event_pb2")
    write(tmp_path, [10, 20])
    write(tmp_path, [20], resumed_step=10)
    first, second = (
        [events.Event.FromString(record) for record in records(file.read_bytes())]
        for file in sorted((tmp_path / "tensorboard").iterdir())
    )
    assert first[0].file_version == "brain.Event:2"
    assert [event.step for event in first[1:]] == [10, 20]
    assert {value.tag: value.simple_value for value in first[2].summary.value} == {"train/loss": 20, "perf/mfu": 0.5}
    assert (second[1].step, second[1].session_log.status) == (11, events.SessionLog.START)
    assert abs(second[2].wall_time - time.time()) < 60


def records(data: bytes):
    """Payloads of a TFRecord file: length (8 bytes), its checksum (4), payload, its checksum (4)."""
    checksum = pytest.importorskip("tensorboardX.record_writer").masked_crc32c
    while data:
        length, of_length = struct.unpack("<QI", data[:12])
        payload = data[12 : 12 + length]
        assert of_length == checksum(data[:8])
        assert struct.unpack("<I", data[12 + length : 16 + length])[0] == checksum(payload)
        yield payload
        data = data[16 + length :]


def test_a_full_disk_is_the_users_error(tmp_path):
    script = """
import resource, signal, sys
from pathlib import Path
from types import SimpleNamespace
from musicssl_jax.errors import UserError
from musicssl_jax.training.metrics import open_metrics
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
metrics = open_metrics(Path(sys.argv[1]), resumed_step=0, config=SimpleNamespace(wandb=False))
try:
    for step in range(1000):
        metrics.write(step, {"train/loss": 1.0})
except UserError as error:
    print(error)
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, env=same_imports(), capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith(f"cannot write metrics to {tmp_path} (File too large)"), done.stderr


def test_wandb_is_asked_for_by_name_when_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"wandb is not installed: pip install 'musicssl_jax\[wandb\]'"):
        open_metrics(tmp_path, resumed_step=0, config=SimpleNamespace(wandb=True))


def test_neither_tensorflow_nor_torch_is_loaded(tmp_path):
    script = """
import sys
from pathlib import Path
from types import SimpleNamespace
from musicssl_jax.training.metrics import open_metrics
metrics = open_metrics(Path(sys.argv[1]), resumed_step=3, config=SimpleNamespace(wandb=False))
metrics.write(4, {"train/loss": 1.0})
metrics.close()
assert not {"tensorflow", "wandb", "torch", "matplotlib"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=same_imports(), check=True, timeout=60)
