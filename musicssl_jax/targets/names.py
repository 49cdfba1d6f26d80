"""How a config names what is predicted: a front end, or a layer of an earlier run as `layer:6@RUN`."""

import re
from typing import NamedTuple

FRONT_ENDS = ("mfcc39", "mfcc60", "logmel229", "chroma12", "chroma24", "cqt84", "cqt336")


class LayerTarget(NamedTuple):
    """The output of block number `layer`, from 1, of the encoder at `checkpoint`."""

    layer: int
    checkpoint: str


def parse_layer(target: str) -> LayerTarget | None:
    """What `layer:N@RUN` names; None for anything else."""
    found = re.fullmatch(r"layer:(\d+)@(.*)", target)
    return LayerTarget(int(found[1]), found[2]) if found else None


def set_name(target: str) -> str:
    """Under which a label set is logged: the front end's name, or `layer6`."""
    layer = parse_layer(target)
    return f"layer{layer.layer}" if layer else target


def width_of(front_end: str) -> int:
    """Dimensions of a front end's frames, with which its name ends: 84 of `cqt84`."""
    return int(re.sub(r"\D+", "", front_end))
