"""How a config names what is predicted: a front end, or a layer of an earlier run as `layer:6@RUN`."""

import re
from typing import NamedTuple

LAYER = "layer:"


class LayerTarget(NamedTuple):
    """Hidden state number `layer` (0: the blocks' input) of the encoder at `checkpoint`."""

    layer: int
    checkpoint: str


def parse_layer(target: str) -> LayerTarget | None:
    """What `layer:N@RUN` names; None for the name of a front end. ValueError: neither."""
    if not target.startswith(LAYER):
        return None
    found = re.fullmatch(r"layer:(\d+)@(.+)", target)
    if not found:
        raise ValueError(f"{target!r} is not of the form layer:N@RUN")
    return LayerTarget(int(found[1]), found[2])


def set_name(target: str) -> str:
    """Under which a label set is logged: the front end's name, or `layer6`."""
    layer = parse_layer(target)
    return f"layer{layer.layer}" if layer else target


def width_of(front_end: str) -> int:
    """Dimensions of a front end's frames, with which its name ends: 84 of `cqt84`."""
    return int(re.sub(r"\D+", "", front_end))
