"""Objectives whose targets say nothing of the clip: what their encoders learn, targets did not teach.

The targets are those of other crops, drawn for themselves: of other clips of the *same* batch they would not do, since
targets that are normalised over a batch say of each clip what the others lack. Nor are they of the clip's own piece of
music, which has the same key, tempo and instruments.

`permuted`: a clip gets the targets of one other crop, whole: they keep their course in time.
`redrawn`: each frame gets the target of a random frame of the other crops: only how common each is is left.
"""

import dataclasses

import jax
import jax.numpy as jnp

from benchmarks.learning.settings import Control
from musicssl_jax.models.data2vec import Data2Vec
from musicssl_jax.models.hubert import Hubert
from musicssl_jax.shapes import Array, Int, Shaped

Batch = dict[str, Array]

OTHER = "other/"
"""What a batch's columns of the other crops begin with."""
PIECE = "piece"
"""A batch's column of which piece of music each clip is of."""


def with_other(batch: Batch, other: Batch) -> Batch:
    """The batch, with the crops that targets are taken from."""
    return batch | {OTHER + name: column for name, column in other.items()}


def other_of(batch: Batch) -> Batch:
    """The crops that targets are taken from."""
    return {name.removeprefix(OTHER): column for name, column in batch.items() if name.startswith(OTHER)}


def mistaken(control: Control, targets: Shaped[Array, "B T X"], batch: Batch) -> Shaped[Array, "B T X"]:
    """What the control makes of the other crops' targets."""
    if control == "permuted":
        return targets
    clips, frames = targets.shape[:2]
    key = jax.random.key(batch["draw"][0])  # which differs from step to step
    crop = _of_other_pieces(key, batch[PIECE], batch[OTHER + PIECE], frames)
    return targets[crop, jax.random.randint(jax.random.fold_in(key, 1), (clips, frames), 0, frames)]


def _of_other_pieces(
    key: Array, own: Int[Array, " B"], others: Int[Array, " B"], frames: int
) -> Int[Array, "B {frames}"]:
    """For each frame of each clip one of the other crops, all that are not of the clip's piece being equally likely.

    There is always one, the crop that was drawn for the clip, but where the music is a single piece: it is any, then.
    """
    allowed = own[:, None] != others
    first = jnp.argsort(~allowed, axis=1)  # those that are allowed, before those that are not
    number = jax.random.randint(key, (len(own), frames), 0, allowed.sum(axis=1, keepdims=True))
    return jnp.take_along_axis(first, number, axis=1)


@dataclasses.dataclass(frozen=True)
class MistakenData2Vec(Data2Vec):
    """data2vec whose student is given mistaken targets."""

    control: Control = "permuted"

    def targets(self, params, teacher, waveform, frames, batch):
        del waveform, frames
        other, encoder = other_of(batch), self.encoder(params)
        waveform = self.waveform(other)
        frames = encoder.project(encoder.features(waveform))
        return mistaken(self.control, super().targets(params, teacher, waveform, frames, other), batch)


@dataclasses.dataclass(frozen=True)
class MistakenHubert(Hubert):
    """HuBERT whose student is given mistaken labels."""

    control: Control = "permuted"

    def labels(self, frozen, batch):
        return mistaken(self.control, super().labels(frozen, other_of(batch)), batch)


def with_control(objective: Data2Vec | Hubert, control: Control) -> Data2Vec | Hubert:
    """The same objective with mistaken targets."""
    kind = MistakenData2Vec if isinstance(objective, Data2Vec) else MistakenHubert
    fields = {field.name: getattr(objective, field.name) for field in dataclasses.fields(objective)}
    return kind(**fields, control=control)
