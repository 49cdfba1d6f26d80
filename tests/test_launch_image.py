"""The Dockerfile, as far as it can be tried without a Docker daemon."""

import re
import subprocess

import pytest
from launch_fixtures import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()


def instructions(name: str) -> list[str]:
    joined = re.sub(r"\\\n", " ", DOCKERFILE)
    return [line.split(None, 1)[1] for line in joined.splitlines() if line.startswith(f"{name} ")]


def test_what_is_copied_is_there_and_is_let_through():
    let_through = {
        line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")
    }
    copied = [source for line in instructions("COPY") for source in line.split()[:-1]]
    assert set(copied) == let_through
    for source in copied:
        assert (ROOT / source).exists(), source


@pytest.mark.parametrize(
    ("accelerator", "code", "extras"),
    [("tpu", 0, "tpu,gcs"), ("cuda12", 0, "cuda12,gcs"), ("cpu", 0, "gcs"), ("cuda", 2, None), ("", 2, None)],
)
def test_the_accelerator_chooses_the_extras(tmp_path, accelerator, code, extras):
    (tmp_path / "pip").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "pip").chmod(0o755)
    line = next(line for line in instructions("RUN") if "pip install" in line)
    told = subprocess.run(
        ["sh", "-c", line],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "ACCELERATOR": accelerator},
        capture_output=True,
        text=True,
    )
    assert told.returncode == code
    assert told.stdout == (f"install --no-cache-dir /src[{extras}]\n" if extras else "")


def test_the_image_does_not_run_as_root_nor_as_process_1():
    assert instructions("USER") == ["1000"]
    assert instructions("ENTRYPOINT") == ['["tini", "--", "musicssl"]']
