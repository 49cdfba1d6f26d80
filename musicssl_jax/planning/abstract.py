"""Everything that a train step is given, as shapes on a mesh: state, target sets and batch. Nothing is computed."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from musicssl_jax.models.encoder import EncoderConfig, build_encoder, encoder_input, encoder_with, hidden_states
from musicssl_jax.targets.features import Features
from musicssl_jax.targets.filter_bank import frame_grid
from musicssl_jax.targets.names import LayerTarget, parse_layer, set_name
from musicssl_jax.targets.open_targets import make_features
from musicssl_jax.targets.target_set import TargetSet
from musicssl_jax.training.step import STOP, batch_sharding, micro_batches


def front_ends(config: Any) -> list[Features]:
    """As `open_targets.front_ends_of`, but a layer of a run that is not named is one of a model like the config's.

    Raises UserError: a layer's run is named and missing or does not suit.
    """
    if config.objective != "hubert":
        return []
    return [_features(target, config) for target in (*config.targets, *filter(None, [config.regression]))]


def _features(target: str, config: Any) -> Features:
    layer = parse_layer(target)
    return make_features(target, config) if layer is None or layer.checkpoint else _own_layer(layer, config)


def _own_layer(target: LayerTarget, config: Any) -> Features:
    model = EncoderConfig(**{**config.model, "layers": target.layer}, dtype=config.precision)

    def apply(params, batch):
        waveform = encoder_input(batch, by_track=config.data.normalize)
        return hidden_states(encoder_with(model, params), waveform)["hidden"][-1].astype("float32")

    return Features(
        name=set_name(f"layer:{target.layer}@"),
        width=model.width,
        window=crop_samples(config),
        margin=0,
        description={},
        kernels=jax.eval_shape(lambda key: _parameters(model, key), jax.random.key(0)),
        apply=apply,
    )


def _parameters(model: EncoderConfig, key: Any) -> dict:
    from flax import nnx

    return nnx.to_pure_dict(nnx.state(build_encoder(model, key), nnx.Param))


def abstract_targets(config: Any, fronts: Sequence[Features], mesh: Any) -> tuple[TargetSet, ...]:
    """The step's `frozen` argument: what `open_targets` gives, with no codebook read or fitted."""
    everywhere = NamedSharding(mesh, P())

    def shape(array):
        return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=everywhere)

    sets = len(config.get("targets", ()))
    classified, regressed = list(fronts[:sets]), list(fronts[sets:])
    if config.get("labels"):
        classified = []  # their labels come with the batch
    codebooks: list[Any] = [
        jax.ShapeDtypeStruct((clusters, features.width), jnp.float32)
        for features, clusters in zip(classified, config.get("clusters", ()), strict=False)
    ]
    codebooks += [None] * len(regressed)
    found = tuple(TargetSet(f.kernels, c, f.apply) for f, c in zip(classified + regressed, codebooks, strict=True))
    return jax.tree.map(shape, found)


def abstract_batch(config: Any, fronts: Sequence[Features], mesh: Any) -> Mapping[str, jax.ShapeDtypeStruct]:
    """What `BatchPlan.arrays` makes of this run's crops in training."""
    devices, per_device = mesh.size, config.batch.per_device
    rows = (micro_batches(config.batch.clips, per_device, devices), per_device * devices)
    margin = batch_margin(config, fronts)
    samples = crop_samples(config)
    columns: dict[str, tuple[tuple[int, ...], Any]] = {
        "audio": ((samples,), jnp.int16),
        "mean": ((), jnp.float32),
        "std": ((), jnp.float32),
        "row": ((), jnp.int32),
        "weight": ((), jnp.float32),
        STOP: ((), jnp.float32),
    }
    if margin:
        columns |= {"before": ((margin,), jnp.int16), "after": ((margin,), jnp.int16)}
        columns |= {"real_before": ((), jnp.int32), "real_after": ((), jnp.int32)}
    if config.get("labels"):
        columns["labels"] = ((frame_grid(config).count(samples), len(config.targets)), jnp.uint16)
    where = batch_sharding(mesh)
    return {
        name: jax.ShapeDtypeStruct((*rows, *tail), dtype, sharding=where) for name, (tail, dtype) in columns.items()
    }


def device_bytes(tree: Any) -> int:
    """Bytes of a tree of sharded shapes that are on one device."""
    return sum(math.prod(s.sharding.shard_shape(s.shape)) * s.dtype.itemsize for s in jax.tree.leaves(tree))


def whole_bytes(tree: Any) -> int:
    """Bytes of a tree of shapes, each counted once."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def batch_margin(config: Any, fronts: Sequence[Features]) -> int:
    """Samples around a crop that a batch brings: what the front ends that work in the step need."""
    at_work = fronts[len(config.targets) :] if config.get("labels") else fronts
    return max((features.margin for features in at_work), default=0)


def crop_samples(config: Any) -> int:
    """Samples of a clip."""
    return round(config.data.crop_seconds * config.data.sample_rate)
