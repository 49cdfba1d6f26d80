"""Objectives whose targets say nothing of the clip: what their encoders learn, targets did not teach.

`permuted`: a clip gets the targets of the clip before it in the batch, whole: targets keep their course in time.
`redrawn`: every frame gets the target of a random frame of another clip, drawn anew in every step: only how common each
is is left. Of the clip itself there is nothing among them, else an encoder could learn from what it hears which are
likelier.
"""

import dataclasses

import jax
import jax.numpy as jnp

from benchmarks.learning.settings import Control
from musicssl_jax.models.data2vec import Data2Vec
from musicssl_jax.models.hubert import Hubert
from musicssl_jax.shapes import Array, Shaped


def mistaken(control: Control, targets: Shaped[Array, "B T X"], draw: Shaped[Array, " B"]) -> Shaped[Array, "B T X"]:
    """The targets that the control's clips get. draw: numbers that differ from step to step."""
    if control == "permuted":
        return jnp.roll(targets, 1, axis=0)
    rows, frames = targets.shape[:2]
    of_clip, of_frame = jax.random.split(jax.random.key(draw[0]))
    clip = (jnp.arange(rows)[:, None] + jax.random.randint(of_clip, (rows, frames), 1, rows)) % rows
    return targets[clip, jax.random.randint(of_frame, (rows, frames), 0, frames)]


@dataclasses.dataclass(frozen=True)
class MistakenData2Vec(Data2Vec):
    """data2vec whose student is given mistaken targets."""

    control: Control = "permuted"

    def targets(self, params, teacher, waveform, frames, batch):
        return mistaken(self.control, super().targets(params, teacher, waveform, frames, batch), batch["draw"])


@dataclasses.dataclass(frozen=True)
class MistakenHubert(Hubert):
    """HuBERT whose student is given mistaken labels."""

    control: Control = "permuted"

    def labels(self, frozen, batch):
        return mistaken(self.control, super().labels(frozen, batch), batch["draw"])


def with_control(objective: Data2Vec | Hubert, control: Control) -> Data2Vec | Hubert:
    """The same objective with mistaken targets."""
    kind = MistakenData2Vec if isinstance(objective, Data2Vec) else MistakenHubert
    fields = {field.name: getattr(objective, field.name) for field in dataclasses.fields(objective)}
    return kind(**fields, control=control)
