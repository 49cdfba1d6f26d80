"""Hidden states of an earlier model as a front end: what HuBERT's second iteration clusters."""

from musicssl_jax.errors import UserError
from musicssl_jax.interop.pretrained import digest, nested
from musicssl_jax.interop.reading import read_pretrained
from musicssl_jax.models.encoder import EncoderConfig, encoder_input, encoder_with, first_blocks, hidden_states
from musicssl_jax.targets.features import Features
from musicssl_jax.targets.filter_bank import FrameGrid, frame_grid
from musicssl_jax.targets.names import LayerTarget, set_name

FRONT_END = "layer"  # in descriptions


def is_layer(features: Features) -> bool:
    """Whether these frames hang on the whole crop, rather than on the samples around them."""
    return features.description["front_end"] == FRONT_END


def layer_features(target: LayerTarget, grid: FrameGrid, *, crop: int) -> Features:
    """The output of block `target.layer` of the model at `target.checkpoint`, on crops of `crop` samples.

    The model is a run (its newest whole checkpoint) or whatever else `read_pretrained` takes.

    Numbered as transformers' hidden_states: layer 6 is the sixth block's output, behind its last norm in the base
    model (reference: dump_hubert_feature). The waveform is normalised as that run's, attention sees the crop alone,
    and the blocks behind the layer are not computed.

    Raises UserError: no such model or layer; another sample rate or frame grid than the run's that asks.
    """
    model = read_pretrained(target.checkpoint)
    config = model.config
    if not 1 <= target.layer <= config.model.layers:
        raise UserError(f"{target.checkpoint} has layers 1 to {config.model.layers}, not {target.layer}")
    theirs = frame_grid(config)
    if theirs != grid:
        raise UserError(
            f"{target.checkpoint} works at sample rate, hop and receptive field {tuple(theirs)}, and this run at "
            f"{tuple(grid)}: their frames do not fall together"
        )
    encoder_config = EncoderConfig(**{**config.model, "layers": target.layer}, dtype=config.precision)

    def apply(params, batch):
        waveform = encoder_input(batch, by_track=config.data.normalize)
        return hidden_states(encoder_with(encoder_config, params), waveform)["hidden"][-1].astype("float32")

    return Features(
        name=set_name(f"layer:{target.layer}@{target.checkpoint}"),
        width=config.model.width,
        window=crop,
        margin=0,
        description={
            "front_end": FRONT_END,
            "layer": target.layer,
            "encoder_sha256": digest(model.encoder),
            "crop_samples": crop,
            **grid._asdict(),
        },
        kernels=first_blocks(nested(model.encoder), target.layer),
        apply=apply,
    )
