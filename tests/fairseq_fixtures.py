"""Files as fairseq itself saves them: its classes and omegaconf's are made for the moment of writing."""

import argparse
import collections
import enum
import sys
import types
import typing
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from musicssl_jax.interop.fairseq_file import write_fairseq
from musicssl_jax.interop.pretrained import Pretrained

MODULES = (
    "fairseq",
    "fairseq.data",
    "fairseq.data.dictionary",
    "fairseq.dataclass",
    "fairseq.dataclass.constants",
    "omegaconf",
    "omegaconf.base",
    "omegaconf.dictconfig",
    "omegaconf.listconfig",
    "omegaconf.nodes",
)
CLASSES = {
    "Dictionary": "fairseq.data.dictionary",
    "Metadata": "omegaconf.base",
    "ContainerMetadata": "omegaconf.base",
    "DictConfig": "omegaconf.dictconfig",
    "ListConfig": "omegaconf.listconfig",
    "AnyNode": "omegaconf.nodes",
    "EnumNode": "omegaconf.nodes",
}


@contextmanager
def fairseq_installed():
    """Modules with classes of those names, as pickles want them; afterwards they are as absent as before."""
    before = {name: sys.modules.pop(name) for name in MODULES if name in sys.modules}
    try:
        for name in MODULES:
            sys.modules[name] = types.ModuleType(name)
            parent, _, leaf = name.rpartition(".")
            if parent:
                setattr(sys.modules[parent], leaf, sys.modules[name])
        for name, module in CLASSES.items():
            setattr(sys.modules[module], name, type(name, (), {"__module__": module}))
        constants = "fairseq.dataclass.constants"
        backends = enum.Enum("DDP_BACKEND_CHOICES", {"legacy_ddp": "legacy_ddp"}, module=constants)
        sys.modules[constants].DDP_BACKEND_CHOICES = backends
        yield
    finally:
        for name in MODULES:
            del sys.modules[name]
        sys.modules.update(before)


def content_of(model: Pretrained, path: Path) -> dict[str, Any]:
    """What a file of fairseq's holds of the model, without anything of ours; `path`: to write a file to."""
    import torch

    write_fairseq(model, path)
    content = torch.load(path, weights_only=True)
    del content["musicssl"]
    return content


def with_classes(content: dict[str, Any], options: str, dictionaries: list[list[str]]) -> dict[str, Any]:
    """The same with all that a real file has beside tensors.

    options: "omegaconf", "args" (one namespace, as old files have it) or "plain". dictionaries: symbols of each set.
    """
    cfg = content["cfg"]
    changed = {"cfg": cfg, "args": None}
    if options == "omegaconf":
        changed["cfg"] = _container(cfg)
    if options == "args":
        everything = {name: value for group in reversed(cfg.values()) for name, value in group.items()}
        changed = {"cfg": None, "args": argparse.Namespace(arch=cfg["model"]["_name"], **everything)}
    scores = collections.defaultdict(list, loss=[np.float32(2.5)])
    extra = {"val_loss": np.float64(3.25), "best": np.float32(1.5), "scores": scores, "kind": typing.Any, "of": float}
    task_state = {"dictionaries": [_dictionary(symbols) for symbols in dictionaries]} if dictionaries else {}
    return {**content, **changed, "extra_state": extra, "task_state": task_state}


def _new(name: str, **state: Any) -> Any:
    made = getattr(sys.modules[CLASSES[name]], name)()
    made.__dict__.update(state)
    return made


def _dictionary(symbols: list[str]) -> Any:
    symbols = ["<s>", "<pad>", "</s>", "<unk>", *symbols]
    return _new(
        "Dictionary",
        bos_word="<s>",
        unk_word="<unk>",
        symbols=symbols,
        count=[1] * len(symbols),
        indices={symbol: i for i, symbol in enumerate(symbols)},
        bos_index=0,
        nspecial=4,
    )


def _container(values: dict[str, Any]) -> Any:
    """omegaconf's DictConfig of the values, each in a node that knows its parent."""
    metadata = _new(
        "ContainerMetadata",
        ref_type=typing.Any,
        object_type=dict,
        key_type=typing.Any,
        element_type=typing.List[float],  # noqa: UP006 -- as dataclasses of fairseq spell it
        flags=collections.defaultdict(bool),
    )
    container = _new("DictConfig", _metadata=metadata, _parent=None)
    container._content = {name: _node(value, container) for name, value in values.items()}
    backends = sys.modules["fairseq.dataclass.constants"].DDP_BACKEND_CHOICES
    container._content["ddp_backend"] = _new(
        "EnumNode", _metadata=metadata, _parent=container, _val=backends("legacy_ddp")
    )
    container._content["interpolated"] = _new("AnyNode", _metadata=metadata, _parent=container, _val="${common.seed}")
    return container


def _node(value: Any, parent: Any) -> Any:
    metadata = _new("Metadata", ref_type=int if isinstance(value, int) else str, optional=True)
    if isinstance(value, dict):
        node = _container(value)
        node._parent = parent
        return node
    if isinstance(value, list):
        node = _new("ListConfig", _metadata=metadata, _parent=parent)
        node._content = [_node(entry, node) for entry in value]
        return node
    return _new("AnyNode", _metadata=metadata, _parent=parent, _val=value)
