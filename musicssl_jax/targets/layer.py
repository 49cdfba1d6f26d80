"""Hidden states of an earlier run as a front end: what HuBERT's second iteration clusters."""

import dataclasses
import hashlib
import json
from typing import Any

import jax

from musicssl_jax import config as configs
from musicssl_jax.errors import UserError
from musicssl_jax.models.encoder import hidden_states
from musicssl_jax.models.objective import make_objective
from musicssl_jax.targets.features import Features
from musicssl_jax.targets.filter_bank import FrameGrid, frame_grid
from musicssl_jax.targets.names import LayerTarget, set_name
from musicssl_jax.training.file_hashes import SUMS
from musicssl_jax.training.reading import read_newest

FRONT_END = "layer"  # in descriptions


def is_layer(features: Features) -> bool:
    """Whether these frames hang on the whole crop, rather than on the samples around them."""
    return features.description["front_end"] == FRONT_END


def layer_features(target: LayerTarget, grid: FrameGrid, *, crop: int) -> Features:
    """The output of block `target.layer` of the newest whole checkpoint, on crops of `crop` samples.

    Numbered as transformers' hidden_states: layer 6 is the sixth block's output, behind its last norm in the base
    model (reference: dump_hubert_feature). The waveform is normalised as that run's, attention sees the crop alone,
    and the blocks behind the layer are not computed.

    Raises UserError: no such checkpoint or layer; another sample rate or frame grid than the run's that asks.
    """
    step, state, meta = read_newest(target.checkpoint, ("params",))
    config = configs.from_json(json.dumps(meta["config"]))
    if not 1 <= target.layer <= config.model.layers:
        raise UserError(f"{target.checkpoint} has layers 1 to {config.model.layers}, not {target.layer}")
    theirs = frame_grid(config)
    if theirs != grid:
        raise UserError(
            f"{target.checkpoint} works at sample rate, hop and receptive field {tuple(theirs)}, and this run at "
            f"{tuple(grid)}: their frames do not fall together"
        )
    whole = make_objective(config)
    objective = dataclasses.replace(whole, model=dataclasses.replace(whole.model, layers=target.layer))
    params = _first_blocks(state["params"], target.layer)

    def apply(params, batch):
        encoder = objective.encoder(params)
        return hidden_states(encoder, objective.waveform(batch))["hidden"][-1].astype("float32")

    return Features(
        name=set_name(f"layer:{target.layer}@{target.checkpoint}"),
        width=config.model.width,
        window=crop,
        margin=0,
        description={
            "front_end": FRONT_END,
            "layer": target.layer,
            "checkpoint_sha256": hashlib.sha256((step / SUMS).read_bytes()).hexdigest(),
            "crop_samples": crop,
            **grid._asdict(),
        },
        kernels=params,
        apply=apply,
    )


def _first_blocks(params: dict, layers: int) -> dict[str, Any]:
    encoder = params["encoder"]
    transformer = encoder["transformer"]
    blocks = jax.tree.map(lambda stacked: stacked[:layers], transformer["blocks"])
    return {**params, "encoder": {**encoder, "transformer": {**transformer, "blocks": blocks}}}
