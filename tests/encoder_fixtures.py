"""A config file of a tiny encoder, for commands that take a config by its file."""

from pathlib import Path

from run_fixtures import flags


def tiny_config_file(folder: Path, **overrides) -> Path:
    """Writes the file into `folder`; its config is `run_fixtures.tiny_config(**overrides)`."""
    path = folder / "tiny.py"
    path.write_text(
        f"""
from musicssl_jax.config import load

VARIANTS = {{"tiny": {{}}}}


def get_config(variant=None):
    return load({flags("unused", **overrides)!r})[0].unlock()
"""
    )
    return path
