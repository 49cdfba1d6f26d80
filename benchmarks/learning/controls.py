"""Objectives whose targets say nothing of the clip: what their encoders learn, targets did not teach.

The targets are those of other crops, drawn for themselves: of other clips of the *same* batch they would not do, since
targets that are normalised over a batch say of each clip what the others lack.

`permuted`: a clip gets the targets of one other crop, whole: they keep their course in time.
`redrawn`: each frame gets the target of a random frame of any other crop: only how common each is is left.
"""

import dataclasses

import jax

from benchmarks.learning.settings import Control
from musicssl_jax.models.data2vec import Data2Vec
from musicssl_jax.models.hubert import Hubert
from musicssl_jax.shapes import Array, Shaped

Batch = dict[str, Array]

OTHER = "other/"
"""What a batch's columns of the other crops begin with."""


def with_other(batch: Batch, other: Batch) -> Batch:
    """The batch, with the crops that targets are taken from."""
    return batch | {OTHER + name: column for name, column in other.items()}


def other_of(batch: Batch) -> Batch:
    """The crops that targets are taken from."""
    return {name.removeprefix(OTHER): column for name, column in batch.items() if name.startswith(OTHER)}


def mistaken(control: Control, targets: Shaped[Array, "B T X"], draw: Shaped[Array, " B"]) -> Shaped[Array, "B T X"]:
    """What the control makes of the other crops' targets. draw: numbers that differ from step to step."""
    if control == "permuted":
        return targets
    frames = targets.reshape(-1, targets.shape[-1])
    return jax.random.permutation(jax.random.key(draw[0]), frames).reshape(targets.shape)


@dataclasses.dataclass(frozen=True)
class MistakenData2Vec(Data2Vec):
    """data2vec whose student is given mistaken targets."""

    control: Control = "permuted"

    def targets(self, params, teacher, waveform, frames, batch):
        del waveform, frames
        other, encoder = other_of(batch), self.encoder(params)
        waveform = self.waveform(other)
        frames = encoder.project(encoder.features(waveform))
        return mistaken(self.control, super().targets(params, teacher, waveform, frames, other), batch["draw"])


@dataclasses.dataclass(frozen=True)
class MistakenHubert(Hubert):
    """HuBERT whose student is given mistaken labels."""

    control: Control = "permuted"

    def labels(self, frozen, batch):
        return mistaken(self.control, super().labels(frozen, other_of(batch)), batch["draw"])


def with_control(objective: Data2Vec | Hubert, control: Control) -> Data2Vec | Hubert:
    """The same objective with mistaken targets."""
    kind = MistakenData2Vec if isinstance(objective, Data2Vec) else MistakenHubert
    fields = {field.name: getattr(objective, field.name) for field in dataclasses.fields(objective)}
    return kind(**fields, control=control)
