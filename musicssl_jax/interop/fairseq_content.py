"""What lies in a fairseq checkpoint, as arrays and plain values."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from musicssl_jax.errors import UserError, shortened
from musicssl_jax.interop import label_rows
from musicssl_jax.interop.pretrained import Tensors
from musicssl_jax.interop.torch_files import Record, to_numpy

TEACHER = "_ema"
OLD_NAMES = {"final_proj.0.weight": "final_proj.weight", "final_proj.0.bias": "final_proj.bias"}
OLD_NAMES |= {"label_embs": label_rows.NAME}
PARAMETRIZED = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
FINE_TUNED = ("w2v_encoder.", "w2v_model.")
OPTION_GROUPS = ("model", "task", "criterion", "optimizer", "optimization")


def tensors_of(content: Any, path: Path) -> tuple[Tensors, Tensors, dict[str, str]]:
    """(tensors by today's names, the teacher's, today's name: the file's where they differ). UserError: not a file
    of fairseq's."""
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise UserError(f"{path} is no fairseq checkpoint: it holds {_seems(content)}")
    state = content["model"]
    if any(str(name).startswith(FINE_TUNED) for name in state):
        raise UserError(f"{path} is a model that was fine-tuned with fairseq (CTC): give the pretrained one")
    averaged = state.get(TEACHER)
    spelling: dict[str, str] = {}

    def canonical(tensors: Mapping[str, Any]) -> Tensors:
        arrays = {}
        for name, tensor in tensors.items():
            if isinstance(name, str) and hasattr(tensor, "detach"):
                today = todays_name(name)
                arrays[today] = to_numpy(tensor)
                if today != name:
                    spelling[today] = name
        return arrays

    return canonical(state), canonical(averaged if isinstance(averaged, dict) else {}), spelling


def todays_name(name: str) -> str:
    for old, today in PARAMETRIZED.items():
        name = name.replace(old, today)
    return OLD_NAMES.get(name, name)


def _seems(content: Any) -> str:
    """What a file of torch.save that is no fairseq checkpoint seems to be."""
    if not isinstance(content, dict):
        return f"a {type(content).__name__}"
    names = [str(name) for name in content]
    if any(name.startswith(("feature_projection.", "hubert.", "data2vec_audio.", "wav2vec2.")) for name in names):
        return "the parameters of a transformers model; give its folder, with config.json"
    if any(name.startswith(("feature_extractor.conv_layers", "encoder.layers", "mask_emb")) for name in names):
        return "the parameters of a fairseq model without its options (cfg); give the whole checkpoint"
    return f"a dict of {shortened(sorted(names))}"


def options_of(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """fairseq's options by group, as plain values; old files keep all of them in one namespace, `args`."""
    cfg = plain(content.get("cfg"))
    if isinstance(cfg, dict) and isinstance(cfg.get("model"), dict):
        return {group: values for group, values in cfg.items() if isinstance(values, dict)}
    args = plain(content.get("args"))
    if isinstance(args, dict) and args:
        return dict.fromkeys(OPTION_GROUPS, args)
    raise UserError(f"{path} does not say which model it holds (neither cfg nor args): it is no complete checkpoint")


def plain(value: Any) -> Any:
    """Records of omegaconf, argparse and enum as dicts, lists and values."""
    if isinstance(value, Record):
        state = value.__dict__
        for content in ("_content", "_val"):
            if content in state:
                return plain(state[content])
        if state.keys() <= {"args"}:
            return plain(state["args"][0]) if len(state.get("args", ())) == 1 else None
        return {name: plain(entry) for name, entry in state.items()}
    if isinstance(value, dict):
        return {str(name): plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return value if value is None or isinstance(value, bool | int | float | str) else None


def dictionaries_of(task_state: Any) -> list[list[str]]:
    """The symbols of each label set's dictionary, if the file has them."""
    state = plain(task_state)
    dictionaries = state.get("dictionaries") if isinstance(state, dict) else None
    return [list(map(str, d["symbols"])) for d in dictionaries or () if isinstance(d, dict) and d.get("symbols")]


def updates_of(content: Mapping[str, Any]) -> int:
    history = content.get("optimizer_history")
    last = history[-1] if isinstance(history, list) and history else None
    updates = last.get("num_updates") if isinstance(last, dict) else None
    return updates if isinstance(updates, int) else 0
