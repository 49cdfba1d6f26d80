"""Models of the Hugging Face hub by name; nothing is fetched unless the user says so."""

import re
from pathlib import Path
from typing import Any

from musicssl_jax.errors import UserError

HUB = "hf:"
WANTED = ["config.json", "preprocessor_config.json", "*.safetensors", "*.safetensors.index.json", "musicssl.json"]
OLD = ["pytorch_model*.bin", "pytorch_model.bin.index.json"]
"""What is fetched only where a model has no safetensors."""


def hub_folder(name: str, *, download: bool) -> Path:
    """The folder of `hf:OWNER/NAME[@REVISION]` in the hub's cache on this machine, fetched first if `download`.

    UserError: it is not there and may not be fetched; there is no such model; no connection; the package is missing.
    """
    match = re.fullmatch(r"hf:([\w.-]+/[\w.-]+)(?:@([\w.-]+))?", name)
    if not match:
        raise UserError(f"{name}: want hf:OWNER/NAME, or hf:OWNER/NAME@REVISION")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise UserError(f"{name} needs the package huggingface_hub: pip install 'musicssl_jax[hub]'") from None
    fetch: dict[str, Any] = {"repo_id": match[1], "revision": match[2], "local_files_only": not download}
    try:
        folder = Path(snapshot_download(**fetch, allow_patterns=WANTED))
        if not list(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(**fetch, allow_patterns=WANTED + OLD))
        return folder
    except Exception as error:  # the package raises its own, the HTTP client's and the system's
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if not download:
            raise UserError(
                f"{name} is not on this machine, and nothing is fetched unasked: "
                f"musicssl convert --input={name} --download --to=jax --output=FOLDER"
            ) from None
        raise UserError(f"{name} cannot be fetched: {reason}") from None
