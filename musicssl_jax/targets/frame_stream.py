"""Random frames of random crops: what a codebook is fitted to."""

import functools
from collections.abc import Iterator
from itertools import chain

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from musicssl_jax.errors import UserError
from musicssl_jax.models.encoder import to_float
from musicssl_jax.parallel import BATCH_SPEC
from musicssl_jax.shapes import Array, Bool, Float, Int, Key
from musicssl_jax.targets.features import Batch, Features
from musicssl_jax.targets.filter_bank import FrameGrid
from musicssl_jax.targets.kmeans import ROWS

QUIETEST = 1 / 32768  # one step of 16-bit audio


class FrameStream:
    """Frames of an endless stream of batches of crops; `position` is the number of the next batch.

    A batch gives `per_crop` random frames of each crop, fewer of short or silent ones. Which follows from (seed, number
    of the batch, row) alone.
    """

    def __init__(
        self,
        features: Features,
        batches: Iterator[Batch],
        position: int,
        *,
        grid: FrameGrid,
        mesh: Mesh,
        per_crop: int,
        seed: int,
    ):
        first = next(batches)
        samples = first["audio"].shape[-1]
        if grid.count(samples) < 1:
            raise UserError(f"a crop of {samples} samples is shorter than a frame: set a longer data.crop_seconds")
        self.position = position
        self._features = features
        self._batches = chain([first], batches)
        per_crop = min(per_crop, grid.count(samples))
        self._frames_per_batch = int(first["weight"].sum()) * per_crop
        self._draw = _make_draw(features, grid, mesh, per_crop, seed)
        self._replicate = jax.jit(lambda x: x, out_shardings=NamedSharding(mesh, P()))
        self._join = jax.jit(_join, out_shardings=NamedSharding(mesh, ROWS))

    def on_devices(self, count: int) -> tuple[Float[Array, "B W"], Bool[Array, " B"]]:
        """At least `count` frames, in whole batches of crops, on the devices that hold the crops; which are real."""
        return self._join(self._read(count))

    def on_host(self, count: int) -> Float[np.ndarray, "N W"]:
        """The first `count` of the same, in the order of the rows; fewer by as many as are silent."""
        parts = [map(np.asarray, self._replicate(part)) for part in self._read(count)]
        return np.concatenate([frames[real] for frames, real in parts])[:count]

    def _read(self, count: int) -> list[tuple[Array, Array]]:
        """Frames, and which are real, of as many batches of crops as hold `count`."""
        numbers = range(self.position, self.position - (-count // self._frames_per_batch))
        drawn = [self._draw(self._features.kernels, next(self._batches), number) for number in numbers]
        for number, (_, _, finite) in zip(numbers, drawn, strict=True):
            if not finite:
                raise UserError(
                    f"{self._features.name} gives NaN or infinite values for a crop of batch {number}: "
                    "check the audio, or the run that the features come from"
                )
        self.position = numbers.stop
        return [(frames, real) for frames, real, _ in drawn]


def _make_draw(features: Features, grid: FrameGrid, mesh: Mesh, per_crop: int, seed: int):
    """A jitted function (kernels, batch, number) -> frames (micro-batch, row, frame, W), which of them are real, and
    whether all of the batch are finite. Every device does its own rows."""

    def micro_batch(kernels, key, batch):
        frames = features.apply(kernels, batch)
        filled = batch["weight"] == 0
        excluded = silent_frames(batch["audio"], grid) | filled[:, None]
        keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(batch["row"])
        numbers, real = jax.vmap(functools.partial(_random_frames, count=per_crop))(keys, excluded)
        # Rows that fill up hold zeros, of which a front end may make anything.
        chosen = jnp.where(real[..., None], jnp.take_along_axis(frames, numbers[..., None], axis=1), 0.0)
        return chosen, real, jnp.isfinite(frames).all((1, 2)) | filled

    def draw(kernels, batch, number):
        key = jax.random.fold_in(jax.random.key(seed), number)
        return lax.map(lambda rows: micro_batch(kernels, key, rows), dict(batch))

    sharded = jax.shard_map(
        draw,
        mesh=mesh,
        in_specs=(P(), BATCH_SPEC, P()),
        out_specs=BATCH_SPEC,
        axis_names=set(mesh.axis_names),
        check_vma=False,
    )

    @jax.jit
    def jitted(kernels, batch, number):
        frames, real, finite = sharded(kernels, batch, number)
        return frames, real, finite.all()

    return jitted


def _random_frames(
    key: Key[Array, ""], excluded: Bool[Array, " T"], count: int
) -> tuple[Int[Array, " count"], Bool[Array, " count"]]:
    """Numbers of `count` different frames, and whether each is one of those that are not excluded."""
    scores = jnp.where(excluded, -1.0, jax.random.uniform(key, excluded.shape))
    best, numbers = lax.top_k(scores, count)
    return numbers, best >= 0


def silent_frames(audio: Int[Array, "B N"] | Float[Array, "B N"], grid: FrameGrid) -> Bool[Array, "B T"]:
    """Frames all of whose samples are under one step of 16-bit audio."""
    sounding = jnp.abs(to_float(audio)) >= QUIETEST
    window, strides = (1, grid.receptive_field), (1, grid.hop)
    return ~lax.reduce_window(sounding, False, lax.bitwise_or, window, strides, "VALID")


def _join(parts):
    """Parts (micro-batch, row, frame, ...) one behind the other, (frame, ...), every row where it lies."""
    return jax.tree.map(lambda *x: jnp.moveaxis(jnp.stack(x), 2, 0).reshape(-1, *x[0].shape[3:]), *parts)
