"""Set-up of every test process: CPU, shapes checked at run time, absl flags parsed (Grain asks for it)."""

import os
import tempfile
from importlib.metadata import version
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
# A folder a worker: two processes that compile the same function for other types at once (librosa's do, through
# numba) can exchange their machine code in a shared folder, and every later process that loads it crashes.
workers = Path(__file__).resolve().parents[1] / ".pytest_cache" / "numba"
os.environ["NUMBA_CACHE_DIR"] = str(workers / os.environ.get("PYTEST_XDIST_WORKER", "alone"))
# Programs are tiny and compiled often: compile them cheaply (.4 of the time), and once for all processes of a session.
CHEAPLY = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
if int(version("jaxlib").split(".")[1]) < 11:  # which later ones have no choice of
    CHEAPLY += " --xla_cpu_use_fusion_emitters=false"
os.environ["XLA_FLAGS"] = CHEAPLY
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", tempfile.mkdtemp(prefix="musicssl-test-programs-"))
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"

from jaxtyping import install_import_hook

# Before the first import of the package: every annotated shape is then checked at each call.
install_import_hook(["musicssl_jax", "data_pipelines"], "beartype.beartype")

import jax
import pytest
from absl import flags

jax.config.update("jax_num_cpu_devices", 8)  # simulated; a mesh of one device takes the first

if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()


@pytest.fixture
def mesh():
    """One device, both axes of size 1, set as the current mesh."""
    from musicssl_jax.parallel import make_mesh

    mesh = make_mesh(1, 1)
    with jax.set_mesh(mesh):
        yield mesh


@pytest.fixture(scope="session")
def music(tmp_path_factory):
    """A built collection of four short musicbox tracks, one of them held out."""
    from data_pipelines.build import ensure_collection
    from data_pipelines.musicbox import write_musicbox

    folder = tmp_path_factory.mktemp("music")
    write_musicbox(folder / "audio", seed=1, tracks=4, family="additive", seconds=8.0)
    return ensure_collection(str(folder / "audio"), folder / "cache", 16000, progress=False)
