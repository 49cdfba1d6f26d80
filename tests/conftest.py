"""Set-up of every test process: CPU, shapes checked at run time, absl flags parsed (Grain asks for it)."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"

from jaxtyping import install_import_hook

# Before the first import of the package: every annotated shape is then checked at each call.
install_import_hook(["musicssl_jax", "data_pipelines"], "beartype.beartype")

import jax
import pytest
from absl import flags

if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()


@pytest.fixture
def mesh():
    """One device, both axes of size 1, set as the current mesh."""
    from musicssl_jax.parallel import make_mesh

    mesh = make_mesh(1, 1)
    with jax.set_mesh(mesh):
        yield mesh
