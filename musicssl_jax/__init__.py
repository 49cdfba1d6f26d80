"""Self-supervised learning of music audio in JAX: music2vec and musicHuBERT."""

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from musicssl_jax.encoder_io import load_encoder as load_encoder

__version__ = "0.1.0"

STARTED = time.monotonic()
"""When the package was first imported: a command's start, but for Python's own."""


def __getattr__(name: str) -> Any:
    # Loaded when asked for: `musicssl doctor` and decoding processes import the package without JAX.
    if name == "load_encoder":
        from musicssl_jax.encoder_io import load_encoder

        return load_encoder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
