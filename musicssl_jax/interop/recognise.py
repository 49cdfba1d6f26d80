"""What lies at a path that is said to hold a model."""

import json
from pathlib import Path

from musicssl_jax.errors import UserError
from musicssl_jax.interop.torch_files import is_torch_file

WANTED = "want a run's folder, one of its checkpoints, a transformers folder, or a fairseq .pt file"
HEADS = {
    b"RIFF": "a WAV file",
    b"fLaC": "a FLAC file",
    b"OggS": "an Ogg file",
    b"ID3": "an MP3 file",
    b"\x1f\x8b": "a gzip archive; unpack it first",
    b"7z\xbc\xaf": "a 7z archive; unpack it first",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself: run `git lfs pull`",
    b"<": "a web page: the download went wrong",
    b"\x93NUMPY": "a NumPy array",
    b"\x89HDF": "an HDF5 file",
}


def what_it_seems(start: bytes) -> str | None:
    """What a file that begins so is, if it cannot hold parameters; to follow its name in a sentence."""
    if not start:
        return "is empty: copy it again"
    found = [name for head, name in HEADS.items() if start.lstrip().startswith(head)]
    return f"seems to be {found[0]}" if found else None


def kind_of(path: Path) -> str:
    """ "run", "transformers" or "fairseq". UserError: it is none of these, and what it seems to be; or unreadable."""
    try:
        return _kind_of(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None


def _kind_of(path: Path) -> str:
    if path.is_dir():
        return _kind_of_folder(path)
    if not path.exists():
        raise UserError(f"no checkpoint in {path}: {WANTED}")
    with path.open("rb") as file:
        start = file.read(64)
    if seems := what_it_seems(start):
        raise UserError(f"{path} {seems}; {WANTED}")
    if path.suffix == ".safetensors" or start[8:10] == b'{"':
        raise UserError(f"{path} seems to be a safetensors file: give its folder, with the config.json in it")
    if start.lstrip()[:1] in (b"{", b"["):
        raise UserError(f"{path} seems to be JSON: give the folder that it describes")
    if start.startswith(b"PK") and not is_torch_file(path):
        raise UserError(f"{path} seems to be a zip archive: unpack it first")
    if not is_torch_file(path):
        if start[:1] == b"\x80":
            raise UserError(
                f"{path} seems to be a pickle that PyTorch did not write, which can run any program: refused"
            )
        raise UserError(f"{path} is no checkpoint that is known here; {WANTED}")
    return "fairseq"


def _kind_of_folder(path: Path) -> str:
    config = path / "config.json"
    if (path / "checkpoints").is_dir() or (path.name.isdecimal() and (path / "state").is_dir()):
        return "run"
    if any(child.name.isdecimal() and (child / "state").is_dir() for child in path.iterdir()):
        return "run"
    if (path / "codebook.json").is_file():
        raise UserError(f"{path} seems to be a codebook; {WANTED}")
    if (path / "dataset_info.json").is_file() or (path / "collection.json").is_file():
        raise UserError(f"{path} seems to be built music; {WANTED}")
    if config.is_file():
        try:
            content = json.loads(config.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise UserError(f"{config} is damaged: it is no JSON; copy it again") from None
        if isinstance(content, dict) and "objective" in content:
            raise UserError(f"{path} is the folder of a run that has no checkpoint yet")
        if isinstance(content, dict) and "model_type" not in content:
            raise UserError(f"{config} has no model_type: it is no transformers folder; {WANTED}")
        return "transformers"
    if found := sorted([*path.glob("*.pt"), *path.glob("*.pth")]):
        raise UserError(f"{path} is a folder with {found[0].name} in it: give that file")
    if list(path.glob("*.safetensors")) or list(path.glob("*.bin")):
        raise UserError(f"{path} has parameters and no config.json: copy the whole transformers folder")
    raise UserError(f"no checkpoint in {path}: {WANTED}")
