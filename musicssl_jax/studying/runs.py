"""What the study trains: the paper's 12 models and ours, as they are or so small that all of them train in minutes."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ml_collections import ConfigDict

from musicssl_jax import config as configs
from musicssl_jax.flops import update_flops
from musicssl_jax.models.objective import make_objective
from musicssl_jax.targets.names import parse_layer

Scale = Literal["tiny", "paper"]

BASE_STEPS = 400_000
"""Of music2vec's base, in proportion to which `--steps` shortens all runs."""
TINY_STEPS = 40
TINY_LAYERS = 4

_CHIP_FLOPS = 2.5e14  # a second, sustained: what the configs' own estimates assume of an H200


class Run(NamedTuple):
    """A config by its name in the study. earlier: the run whose layer it predicts. paper: one of the paper's 12."""

    name: str
    config: str
    earlier: str | None = None
    paper: bool = True


_MUSIC2VEC = ("base", "800k", "crop5s", "prob50", "prob80", "span5", "span15", "target12")
_MUSICHUBERT = ("k500", "k500_mfcc60", "k2000_iter1", "k2000_iter2")
_OURS = ("chroma", "logmel_chroma", "ensemble")

RUNS: dict[str, Run] = {
    run.name: run
    for run in (
        *(Run(f"music2vec_{name}", f"configs/music2vec.py:{name}") for name in _MUSIC2VEC),
        *(
            Run(
                f"musichubert_{name}",
                f"configs/musichubert.py:{name}",
                earlier="musichubert_k2000_iter1" if name == "k2000_iter2" else None,
                paper=name not in _OURS,
            )
            for name in (*_MUSICHUBERT, *_OURS)
        ),
    )
}
"""In the order of the table; an earlier run stands before those that need it."""


class Cost(NamedTuple):
    """audio_hours: heard, counting repetitions. flop: of the model's updates."""

    steps: int
    audio_hours: float
    flop: float

    @property
    def chip_days(self) -> float:
        return self.flop / _CHIP_FLOPS / 86400


def fields_of(run: Run, scale: Scale, steps: int | None, runs_folder: Path) -> dict[str, Any]:
    """The config's fields that the study changes. steps: of the base run; the others' are in proportion."""
    config = configs.read(run.config)
    fields: dict[str, Any] = {}
    if scale == "tiny":
        fields = _tiny(config, (steps or TINY_STEPS) / BASE_STEPS)
    elif steps:
        fields = {"steps": _at_least_one(config.steps * steps / BASE_STEPS)}
    if run.earlier:
        [target] = config.targets
        layer = parse_layer(target)
        assert layer is not None
        number = math.ceil(layer.layer * TINY_LAYERS / config.model.layers) if scale == "tiny" else layer.layer
        fields["targets"] = f"layer:{number}@{(runs_folder / run.earlier).resolve()}"
    return fields


def config_of(flags: Sequence[str]) -> ConfigDict:
    """The config that a training command with these flags takes. UserError: it makes no sense."""
    return configs.load(flags)[0]


def as_flags(fields: Mapping[str, Any]) -> list[str]:
    """As a command line spells them."""
    return [f"--config.{name}={value}" for name, value in fields.items()]


def cost_of(config: ConfigDict) -> Cost:
    samples = round(config.data.crop_seconds * config.data.sample_rate)
    hours = config.steps * config.batch.clips * config.data.crop_seconds / 3600
    return Cost(config.steps, hours, config.steps * update_flops(make_objective(config), samples))


def plan_lines(runs: Mapping[str, ConfigDict]) -> Iterator[str]:
    """What training them will take, a line each, and the sum."""
    yield f"{'':26}{'steps':>9}{'audio heard':>14}{'FLOP':>10}{'chip-days':>11}"
    costs = {name: cost_of(config) for name, config in runs.items()}
    total = sum(cost.flop for cost in costs.values())
    for name, cost in costs.items():
        yield f"{name:26}{cost.steps:>9}{cost.audio_hours:>12,.0f} h{cost.flop:>10.1e}{cost.chip_days:>11.2g}"
    yield f"{'all':26}{'':23}{total:>10.1e}{total / _CHIP_FLOPS / 86400:>11.3g}"
    yield f"chip-days: at {_CHIP_FLOPS:.3g} FLOP/s sustained, a guess at an H200 in bfloat16; front ends are left out"


def _tiny(config: ConfigDict, share: float) -> dict[str, Any]:
    """The config in small: what differs between variants still does.

    A batch is what one device of the reference held, crops are a tenth as long, and everything that is counted in
    steps is in proportion. So short a run is all warm-up: signs of collapse are not judged.
    """
    steps = _at_least_one(config.steps * share)
    conv = tuple((32, kernel, stride) for _, kernel, stride in config.model.conv_layers)
    half = _at_least_one(steps / 2)
    fields: dict[str, Any] = {
        "steps": steps,
        "log_every": _at_least_one(steps / 10),
        "precision": "float32",
        "data.crop_seconds": config.data.crop_seconds / 10,
        "batch.clips": config.batch.per_device,
        "model.conv_layers": conv,
        "model.width": 64,
        "model.ffn": 128,
        "model.layers": TINY_LAYERS,
        "model.heads": 4,
        "collapse.stop": False,
        "valid.every": half,
        "valid.batches": 1,
        "checkpoint.every": half,
    }
    if config.objective == "data2vec":
        fields["target.top_k"] = math.ceil(config.target.top_k * TINY_LAYERS / config.model.layers)
        fields["teacher.anneal_steps"] = _at_least_one(config.teacher.anneal_steps * share)
        return fields
    return fields | {
        "clusters": tuple(clusters // 50 for clusters in config.clusters),
        "prediction.width": 32,
        "codebook.batch_frames": 1000,
        "codebook.frames_per_crop": 100,
        "codebook.initial_frames": 1000,
        "codebook.restarts": 2,
        "codebook.max_batches": 5,
    }


def _at_least_one(value: float) -> int:
    return max(1, round(value))
