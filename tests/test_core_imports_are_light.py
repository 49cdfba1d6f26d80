"""Models, objectives and the step need jax, flax and optax alone; training starts light."""

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
CORE = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (
        *(ROOT / "musicssl_jax/models").glob("[!_]*.py"),
        *(ROOT / f"musicssl_jax/training/{name}.py" for name in ("state", "optimizer", "step")),
        *(ROOT / f"musicssl_jax/targets/{name}.py" for name in ("front_ends", "kmeans", "target_set")),
        ROOT / "musicssl_jax/parallel.py",
    )
)
# What only evaluation, conversion, other builders of data or tests need.
NOT_FOR_TRAINING = (
    "librosa",
    "sklearn",
    "numba",
    "tensorflow",
    "clu",
    "torch",
    "transformers",
    "apache_beam",
    "wandb",
)

BARE_MACHINE = """
import sys
missing = set({missing!r})
class Bare:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in missing:
            raise ModuleNotFoundError(f"not on a bare machine: {{name}}", name=name)
sys.meta_path.insert(0, Bare())
"""


def test_models_objectives_and_step_import_with_jax_flax_and_optax_alone():
    missing = metadata.packages_distributions().keys() - _importable("jax", "jaxlib", "flax", "optax")
    missing = missing - {"musicssl_jax"} | {"data_pipelines"}
    assert missing >= {"grain", "soundfile", "jaxtyping", "librosa", "ml_collections", "sklearn"}
    bare = BARE_MACHINE.format(missing=sorted(missing))
    with pytest.raises(AssertionError, match="not on a bare machine: soundfile"):
        _run(bare + "import soundfile\n")
    _run(bare + "".join(f"import {module}\n" for module in CORE))


def test_training_starts_without_what_only_evaluation_or_tests_need():
    loaded = _run("import musicssl_jax.train, sys\nprint(*sys.modules)\n").split()
    assert not set(NOT_FOR_TRAINING) & set(loaded)


@pytest.mark.parametrize(("module", "seconds"), [("musicssl_jax", 0.3), ("musicssl_jax.train", 3.0)])
def test_imports_are_quick(module, seconds):
    program = f"import time\nimport {module}\nprint(time.process_time())\n"
    # CPU time of the better of two: the machine may be doing other things.
    assert min(float(_run(program)) for _ in range(2)) < seconds


def _run(program: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    return ended.stdout


def _importable(*distributions: str) -> set[str]:
    """Top-level modules of the distributions and of everything they require."""
    found: set[str] = set()
    waiting = [_normal(name) for name in distributions]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        try:
            required = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        found.add(name)
        for requirement in map(Requirement, required):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(_normal(requirement.name))
    owners = metadata.packages_distributions()
    return {module for module, names in owners.items() if found & {_normal(name) for name in names}}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
