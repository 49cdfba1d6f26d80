"""What is trained: arms and controls, in sizes from a test's to the paper's."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from ml_collections import ConfigDict

from musicssl_jax import config as configs

Model = Literal["music2vec", "musicHuBERT"]
Control = Literal["redrawn", "permuted"]

REFERENCE = "musicHuBERT mfcc"
"""The arm that targets which are to hear harmony are measured against."""


@dataclasses.dataclass(frozen=True)
class Arm:
    """targets, clusters: label sets of musicHuBERT. control: what is done to the targets of an arm that must not learn
    from them; None: nothing."""

    name: str
    model: Model
    targets: tuple[str, ...] = ()
    clusters: tuple[int, ...] = ()
    control: Control | None = None


@dataclasses.dataclass(frozen=True)
class Size:
    """How much of everything.

    fields: of each model's config that are changed. label_sets: name of an arm's targets -> front ends and clusters;
    controlled: the one that musicHuBERT's controls are mistaken about. tracks, track_seconds: of training music.
    probed, probed_seconds: of the music that questions are asked of. points: of evaluation, from step 0 to the last.
    valid_batches: of held-out clips, at every row of a curve. mlp_epochs: of MLP probes; 0: none. layer_step: every
    so-manieth layer is probed. chosen: arms by name; none: all.
    """

    fields: Mapping[Model, Mapping[str, Any]]
    label_sets: Mapping[str, tuple[tuple[str, ...], tuple[int, ...]]]
    controlled: str
    seeds: int
    tracks: int
    track_seconds: float
    probed: int
    probed_seconds: float
    points: int = 5
    valid_batches: int = 4
    mlp_epochs: int = 20
    layer_step: int = 1
    chosen: tuple[str, ...] = ()

    @property
    def probes(self) -> tuple[str, ...]:
        """That are fitted."""
        return ("linear", "mlp") if self.mlp_epochs else ("linear",)


_TINY_CONV = ((32, 20, 20), (64, 4, 4), (128, 5, 4))
"""The base model's frames from three layers, which take a hundredth of its seven."""

_WITHOUT_DROPOUT = {
    "model.dropout": 0.0,
    "model.attention_dropout": 0.0,
    "model.input_dropout": 0.0,
    "model.layer_drop": 0.0,
}

_SMALL = _WITHOUT_DROPOUT | {
    "precision": "float32",
    "mask.trim_group": 4,
    "model.conv_layers": _TINY_CONV,
    "model.conv_norm": "group",
    "model.norm_first": True,
    "model.width": 64,
    "model.ffn": 256,
    "model.layers": 2,
    "model.heads": 4,
    "model.positional_kernel": 32,
    "schedule.warmup": 0.1,
}

_SMALL_MUSIC2VEC = _SMALL | {
    "steps": 2000,
    # Untrained features of fewer dimensions keep less pitch. With 64 a control gained most of what the arm did, with 32
    # it does so in one seed of two (docs/learning.md).
    "model.width": 32,
    "model.ffn": 128,
    # Many short clips: those of 1 s gained pitch or instruments, and not both.
    "data.crop_seconds": 0.64,
    "batch.clips": 64,
    "batch.per_device": 64,
    # A field as wide as the clip lets targets speak of the frame's place.
    "model.positional_kernel": 15,
    "target.top_k": 2,
    # Over the clips of a batch, not over time: short clips are mostly one chord of one instrument, and a norm over
    # time would take that out of the targets.
    "target.batch_norm_layer": True,
    "target.instance_norm_layer": False,
    "teacher.average": "all",
    "teacher.decay": 0.99,
    "teacher.end_decay": 0.999,
    "teacher.anneal_steps": 1000,
    "mask.prob": 0.4,
    "mask.length": 5,
    "schedule.peak": 2e-3,
    "schedule.hold": 0.6,
    "schedule.decay": 0.3,
}

_SMALL_MUSICHUBERT = _SMALL | {
    "steps": 1500,
    "data.crop_seconds": 2.0,
    "batch.clips": 4,
    "batch.per_device": 4,
    "model.feature_grad_mult": 1.0,
    "prediction.width": 64,
    "prediction.temperature": 0.05,
    "prediction.unmasked_weight": 1.0,
    "prediction.feature_penalty": 0.0,
    "schedule.peak": 2e-3,
}

_BASE = _WITHOUT_DROPOUT | {
    "steps": 1200,
    "data.crop_seconds": 5.0,
    "batch.clips": 64,
    "batch.per_device": 64,
    "mask.trim_group": 64,
    "schedule.warmup": 0.1,
}

_TOY = {
    "steps": 8,
    "data.crop_seconds": 1.0,
    "batch.clips": 4,
    "batch.per_device": 4,
    "model.width": 32,
    "model.ffn": 64,
}


def _label_sets(clusters: int) -> dict[str, tuple[tuple[str, ...], tuple[int, ...]]]:
    sets = {
        "mfcc": ("mfcc39",),
        "chroma": ("chroma24",),
        "logmel+chroma": ("logmel229", "chroma24"),
        "ensemble": ("mfcc39", "chroma24", "cqt84"),
    }
    return {name: (targets, (clusters,) * len(targets)) for name, targets in sets.items()}


SIZES: dict[str, Size] = {
    # Everything runs, in a minute or two; its scores mean nothing.
    "toy": Size(
        fields={
            "music2vec": _SMALL_MUSIC2VEC | _TOY,
            "musicHuBERT": _SMALL_MUSICHUBERT | _TOY,
        },
        label_sets=_label_sets(8),
        controlled="mfcc",
        seeds=1,
        tracks=8,
        track_seconds=4.0,
        probed=24,
        probed_seconds=8.0,
        points=3,
        valid_batches=1,
        mlp_epochs=0,
    ),
    # The paper's models on one large GPU: four arms in two commands of nine minutes. 60 hours of music, 7 GB.
    "base": Size(
        fields={
            "music2vec": _BASE | {"teacher.anneal_steps": 600, "schedule.hold": 0.6, "schedule.decay": 0.3},
            "musicHuBERT": _BASE | {"model.feature_grad_mult": 1.0, "prediction.feature_penalty": 0.0},
        },
        label_sets=_label_sets(300),
        controlled="ensemble",
        seeds=1,
        tracks=3600,
        track_seconds=60.0,
        probed=256,
        probed_seconds=10.0,
        points=3,
        mlp_epochs=0,
        layer_step=3,
        chosen=("music2vec", "musicHuBERT mfcc", "musicHuBERT ensemble", "musicHuBERT, targets permuted"),
    ),
    # Two cores, under an hour.
    "small": Size(
        fields={"music2vec": _SMALL_MUSIC2VEC, "musicHuBERT": _SMALL_MUSICHUBERT},
        label_sets=_label_sets(100),
        controlled="ensemble",
        seeds=2,
        tracks=200,
        track_seconds=30.0,
        probed=2000,
        probed_seconds=8.0,
        mlp_epochs=10,
    ),
}


def arms(size: Size) -> list[Arm]:
    """All that are trained: the arms, then the controls of each model."""
    sets = size.label_sets
    own = [Arm("music2vec", "music2vec"), *(Arm(f"musicHuBERT {name}", "musicHuBERT", *sets[name]) for name in sets)]
    controls = [
        Arm(f"{model}, targets {control}", model, *labels, control)
        for model, labels in (("music2vec", ((), ())), ("musicHuBERT", sets[size.controlled]))
        for control in ("redrawn", "permuted")
    ]
    return own + controls


def config_of(arm: Arm, size: Size) -> ConfigDict:
    """The config that the arm is trained by."""
    file = {"music2vec": "configs/music2vec.py:base", "musicHuBERT": "configs/musichubert.py:k500"}[arm.model]
    config = configs.read(file).copy_and_resolve_references().unlock()
    config.update_from_flattened_dict(dict(size.fields[arm.model]))
    if arm.targets:
        config.targets, config.clusters = arm.targets, arm.clusters
    return config
