"""musicHuBERT's objective: HuBERT.

The student sees a masked clip and classifies the masked frames: which cluster of a codebook does the frame's own sound
belong to. Several codebooks at once are several label sets. Reference: fairseq's HuBERT and its criterion
(`hubert_base_librispeech.yaml`), without its four dictionary rows.

Labels come with the batch, or from `frozen`: target sets, each with `labels(batch)`, computed from the very samples
that the student sees.
"""

import dataclasses
import math
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import nnx

from musicssl_jax.flops import encoder_flops
from musicssl_jax.models.conv_encoder import frame_count
from musicssl_jax.models.encoder import Encoder, EncoderConfig, encoder_input, linear_from
from musicssl_jax.models.masking import MaskConfig, batch_masks, channel_masks, masked_limit, masked_positions
from musicssl_jax.shapes import Array, Bool, Float, Int, Key

COSINE_EPSILON = 1e-8  # least norm in a cosine (torch.cosine_similarity)
EDGE_DISTANCES = 5
"""Accuracy is told apart by how far a masked frame is from the nearest seen one: 1, 2, ... this many or more."""


@runtime_checkable
class TargetSet(Protocol):
    """What `frozen` holds one of for every label set, and, last, for the features that are regressed."""

    def labels(self, batch: dict[str, Array]) -> Int[Array, "B T"]:
        """Cluster numbers of every frame of the rows."""

    def features(self, batch: dict[str, Array]) -> Float[Array, "B T W"]:
        """The vectors that the clusters are of."""


@dataclasses.dataclass(frozen=True)
class PredictionConfig:
    """The fields of `config.prediction`.

    width: of the space in which cosines are taken (reference: final_dim). temperature: cosines are divided by it.
    untied: a projection for every label set. masked_weight, unmasked_weight: of the two kinds of frames in the loss.
    feature_penalty: weight of the conv stack's mean squared output. log_unmasked: also log what the seen frames give,
    which costs their logits. regression_weight: of the mean squared error of regressed features, if there are any.
    """

    width: int
    temperature: float
    untied: bool
    masked_weight: float
    unmasked_weight: float
    feature_penalty: float
    log_unmasked: bool
    regression_weight: float


class Student(nnx.Module):
    """The encoder, the projection to the label embeddings' space, these of all sets, and a head to regress with."""

    def __init__(
        self, config: EncoderConfig, prediction: PredictionConfig, classes: tuple[int, ...], regressed: int, *, rngs
    ):
        self.encoder = Encoder(config, rngs=rngs)
        projections = len(classes) if prediction.untied else 1
        self.head = linear_from(config.width, projections * prediction.width, rngs)
        self.label_embeddings = nnx.Param(jax.random.uniform(rngs.params(), (sum(classes), prediction.width)))
        self.regression = linear_from(config.width, regressed, rngs) if regressed else None


@dataclasses.dataclass(frozen=True)
class Hubert:
    """The objective of `config.objective = "hubert"`.

    names, classes: of the label sets, in the order of `frozen`. clips: rows of the global batch. regressed: width of
    the features that are regressed as well, from the last of `frozen` (MERT's reconstruction of a CQT); 0: none.
    """

    model: EncoderConfig
    mask: MaskConfig
    prediction: PredictionConfig
    names: tuple[str, ...]
    classes: tuple[int, ...]
    clips: int
    normalize: bool = False
    regressed: int = 0

    def student(self, params: dict) -> Student:
        """The module that holds `params`."""
        return nnx.merge(self._graph, params)

    @cached_property
    def _graph(self) -> nnx.GraphDef:
        return nnx.graphdef(nnx.eval_shape(lambda: self._new_student(nnx.Rngs(0))))

    def encoder(self, params: dict) -> Encoder:
        """The encoder that holds `params`: what evaluation and conversion want of a run."""
        return self.student(params).encoder

    def init(self, key: Key[Array, ""]) -> dict:
        """Parameters as a nested dict of float32 arrays, with the reference's initialisation."""
        return nnx.to_pure_dict(nnx.state(self._new_student(nnx.Rngs(key)), nnx.Param))

    def _new_student(self, rngs: nnx.Rngs) -> Student:
        return Student(self.model, self.prediction, self.classes, self.regressed, rngs=rngs)

    def init_teacher(self, params: dict) -> dict:
        """HuBERT has no teacher."""
        del params
        return {}

    def update_teacher(self, teacher: dict, params: dict, step: Int[Array, ""]) -> dict:
        """HuBERT has no teacher."""
        del params, step
        return teacher

    def loss(
        self,
        params: dict,
        teacher: dict,
        frozen: tuple[TargetSet, ...],
        batch: dict[str, Array],
        key: Key[Array, ""],
        *,
        train: bool = True,
    ) -> tuple[Float[Array, ""], tuple[Float[Array, ""], dict]]:
        """(summed loss, (weight, sums)) of some rows of a global batch; sums over rows add up.

        batch: audio (B, N) PCM16 or float; mean, std (B,) of the whole track; weight (B,) 0 for a row that
        only fills up; row (B,) its number in the global batch; margins as `frozen` needs them; optionally labels
        (B, T, sets), which replace the computed ones, and mask (B, T), which replaces the drawn one. `key` follows
        from (seed, step); everything random of a row from it and the row's number.

        The loss is the cross-entropy summed over masked frames and label sets, plus `feature_penalty` times the mean
        squared conv output of the row for each of these frames. The weight is the number of frames, whatever the
        number of sets (reference).
        """
        del teacher
        student = self.student(params)
        encoder = student.encoder
        mask_key, channel_key, dropout_key, layer_key = jax.random.split(key, 4)
        keys = jax.vmap(lambda row: jax.random.fold_in(dropout_key, row))(batch["row"]) if train else None
        with jax.named_scope("targets"):
            labels = self.labels(frozen, batch)
        features = encoder.features(self.waveform(batch))
        frames = encoder.project(features)
        mask, limit = batch_masks(batch, mask_key, frames.shape[1], self.clips, self.mask)
        channels = channel_masks(channel_key, batch["row"], self.model.width, self.mask) if train else None

        x = encoder.transformer.embed(encoder.mask(frames, mask, channels, keys), keys=keys)
        x, _ = encoder.transformer.encode(x, keys=keys, layer_key=layer_key if train else None)

        real = (batch["weight"] > 0)[:, None]
        weight, loss = jnp.zeros(()), jnp.zeros(())
        sums: dict[str, Any] = {}
        for kind, frames_of_kind, share, most in self._kinds(mask, limit):
            where, valid = masked_positions(frames_of_kind & real, most)
            chosen = jnp.take_along_axis(x, where[..., None], axis=1)
            chosen_labels = jnp.take_along_axis(labels, where[..., None], axis=1)
            with jax.named_scope("head"):
                crosses, correct = self._classify(student, chosen, chosen_labels)
            if share:
                loss += share * jnp.sum(crosses * valid[..., None])
                weight += valid.sum()
            sums[kind] = {
                "count": valid.sum(),
                "cross_entropy": jnp.sum(crosses * valid[..., None], (0, 1)),
                "correct": jnp.sum(correct * valid[..., None], (0, 1)),
            }
            if kind == "masked":
                sums |= self._masked_sums(mask & real, labels, where, valid, correct)
        if student.regression is not None:
            where, valid = masked_positions(mask & real, limit)
            wanted = jnp.take_along_axis(frozen[-1].features(batch), where[..., None], axis=1)
            given = student.regression(jnp.take_along_axis(x, where[..., None], axis=1)).astype(jnp.float32)
            sums["regression"] = jnp.sum(jnp.mean(jnp.square(given - wanted), -1) * valid)
            loss += self.prediction.regression_weight * sums["regression"]
        penalty = jnp.mean(jnp.square(features.astype(jnp.float32)), (1, 2))
        counted = self._counted(mask & real, real)
        loss += self.prediction.feature_penalty * jnp.sum(penalty * counted)
        sums["penalty"] = jnp.sum(penalty * counted)
        sums["clips"], sums["frames"] = batch["weight"].sum(), batch["weight"].sum() * mask.shape[1]
        return loss, (weight, jax.lax.stop_gradient(sums))

    def waveform(self, batch: dict[str, Array]) -> Float[Array, "B N"]:
        """The encoder's input: float audio, normalised by its track if the run does so."""
        return encoder_input(batch, by_track=self.normalize)

    def example(self, frozen: tuple, batch: dict[str, Array], key: Key[Array, ""]) -> dict[str, Array]:
        """waveform (B, N), mask (B, T) and labels (B, T, sets) of some rows as `loss` sees them under the same key."""
        mask_key = jax.random.split(key, 4)[0]
        waveform = self.waveform(batch)
        frames = frame_count(waveform.shape[1], self.model.conv_layers)
        mask, _ = batch_masks(batch, mask_key, frames, self.clips, self.mask)
        return {"waveform": waveform, "mask": mask, "labels": self.labels(frozen, batch)}

    def labels(self, frozen: tuple[TargetSet, ...], batch: dict) -> Int[Array, "B T S"]:
        if "labels" in batch:
            return batch["labels"].astype(jnp.int32)
        return jnp.stack([target.labels(batch) for target in frozen[: len(self.classes)]], axis=-1)

    def _kinds(self, mask: Bool[Array, "B T"], limit: int) -> list[tuple[str, Bool[Array, "B T"], float, int]]:
        """(name, which frames, weight in the loss, most frames of a row) of the kinds of frames that get logits."""
        kinds = [("masked", mask, self.prediction.masked_weight, limit)]
        if self.prediction.unmasked_weight or self.prediction.log_unmasked:
            kinds.append(("unmasked", ~mask, self.prediction.unmasked_weight, mask.shape[1]))
        return kinds

    def _counted(self, mask: Bool[Array, "B T"], real: Bool[Array, "B 1"]) -> Float[Array, " B"]:
        """Frames of each row that the loss is made of."""
        counted = jnp.zeros(mask.shape[0])
        if self.prediction.masked_weight:
            counted += mask.sum(1)
        if self.prediction.unmasked_weight:
            counted += (~mask & real).sum(1)
        return counted

    def _classify(
        self, student: Student, x: Float[Array, "B M D"], labels: Int[Array, "B M S"]
    ) -> tuple[Float[Array, "B M S"], Float[Array, "B M S"]]:
        """(cross-entropy in nats, 1 where the nearest embedding is the label's) of each frame and set."""
        sets = len(self.classes)
        projected = student.head(x).astype(jnp.float32)
        projected = projected.reshape(*x.shape[:2], -1, self.prediction.width)
        crosses, correct, first = [], [], 0
        for i in range(sets):
            codes = student.label_embeddings[...][first : first + self.classes[i]]
            first += self.classes[i]
            logits = cosine(projected[:, :, i if self.prediction.untied else 0], codes) / self.prediction.temperature
            label = labels[..., i]
            own = jnp.take_along_axis(logits, label[..., None], axis=-1)[..., 0]
            crosses.append(jax.nn.logsumexp(logits, axis=-1) - own)
            correct.append((jnp.argmax(logits, axis=-1) == label).astype(jnp.float32))
        return jnp.stack(crosses, -1), jnp.stack(correct, -1)

    def _masked_sums(
        self,
        mask: Bool[Array, "B T"],
        labels: Int[Array, "B T S"],
        where: Int[Array, "B M"],
        valid: Float[Array, "B M"],
        correct: Float[Array, "B M S"],
    ) -> dict[str, Any]:
        """What tells learning from copying: the nearest seen frame's label, and the distance to it."""
        nearest, distance = nearest_unmasked(mask)
        copied = (jnp.take_along_axis(labels, nearest[..., None], axis=1) == labels).astype(jnp.float32)
        copied = jnp.take_along_axis(copied, where[..., None], axis=1) * valid[..., None]
        steps = jnp.clip(jnp.take_along_axis(distance, where, axis=1), 1, EDGE_DISTANCES) - 1
        at_distance = jax.nn.one_hot(steps, EDGE_DISTANCES) * valid[..., None]
        histograms = [
            jnp.zeros(size).at[jnp.take_along_axis(labels[..., i], where, axis=1)].add(valid)
            for i, size in enumerate(self.classes)
        ]
        return {
            "copied": copied.sum((0, 1)),
            "at_distance": at_distance.sum((0, 1)),
            "correct_at_distance": jnp.einsum("bmd,bms->sd", at_distance, correct),
            "histograms": tuple(histograms),
        }

    def clip_flops(self, samples: int) -> int:
        """Of a clip in an update: three times the forward pass (forward and backward)."""
        frames = frame_count(samples, self.model.conv_layers)
        projections = len(self.classes) if self.prediction.untied else 1
        frame = self.model.width * (projections * self.prediction.width + self.regressed)
        frame += sum(self.classes) * self.prediction.width
        return 3 * (encoder_flops(self.model, samples) + 2 * masked_limit(frames, self.mask) * frame)

    def metrics(self, sums: dict, step: Int[Array, ""]) -> dict[str, Float[Array, ""]]:
        """What is logged beside the loss, from the sums over the global batch.

        For each label set NAME, of masked frames: NAME/loss (nats), NAME/loss_bits (the reference's unit),
        NAME/accuracy, NAME/copy_accuracy (of giving every frame the label of the nearest seen frame: short runs may
        learn and stay under it), NAME/accuracy_at_D (frames D away from what is seen, the last one D or more),
        NAME/label_entropy (of the labels' histogram: what guessing by frequency costs) and NAME/chance (what guessing
        blindly costs), both also in _bits, NAME/used (share of clusters in the batch); loss and accuracy of seen frames
        under NAME/unmasked_... if they are looked at. `features/penalty`: mean squared output of the conv stack.
        """
        del step
        masked = sums["masked"]
        counted = sum(
            sums[kind]["count"]
            for kind, weight in (
                ("masked", self.prediction.masked_weight),
                ("unmasked", self.prediction.unmasked_weight),
            )
            if weight
        )
        logged = {
            "mask/share": masked["count"] / jnp.maximum(sums["frames"], 1),
            "features/penalty": sums["penalty"] / jnp.maximum(counted, 1),
        }
        if self.regressed:
            logged["regression/loss"] = sums["regression"] / jnp.maximum(masked["count"], 1)
        for i, name in enumerate(self.names):
            for kind, prefix in (("masked", ""), ("unmasked", "unmasked_")):
                if kind in sums:
                    count = jnp.maximum(sums[kind]["count"], 1)
                    nats = sums[kind]["cross_entropy"][i] / count
                    logged[f"{name}/{prefix}loss"] = nats
                    logged[f"{name}/{prefix}loss_bits"] = nats / math.log(2)
                    logged[f"{name}/{prefix}accuracy"] = sums[kind]["correct"][i] / count
            logged[f"{name}/copy_accuracy"] = sums["copied"][i] / jnp.maximum(masked["count"], 1)
            near = sums["correct_at_distance"][i] / jnp.maximum(sums["at_distance"], 1)
            logged |= {f"{name}/accuracy_at_{d + 1}": near[d] for d in range(EDGE_DISTANCES)}
            share = sums["histograms"][i] / jnp.maximum(sums["histograms"][i].sum(), 1)
            entropy, chance = -jnp.sum(share * jnp.log(jnp.maximum(share, 1e-30))), jnp.log(self.classes[i])
            logged |= {f"{name}/label_entropy": entropy, f"{name}/label_entropy_bits": entropy / math.log(2)}
            logged |= {f"{name}/chance": chance, f"{name}/chance_bits": chance / math.log(2)}
            logged[f"{name}/used"] = jnp.mean(share > 0)
        return logged


def cosine(x: Float[Array, "B M W"], codes: Float[Array, "K W"]) -> Float[Array, "B M K"]:
    """Cosines of every frame with every code, in full float32."""

    def unit(v):
        norm = jnp.sqrt(jnp.sum(jnp.square(v), -1, keepdims=True))
        return v / jnp.maximum(norm, COSINE_EPSILON)

    return jnp.einsum("bmw,kw->bmk", unit(x), unit(codes), precision=jax.lax.Precision.HIGHEST)


def nearest_unmasked(mask: Bool[Array, "B T"]) -> tuple[Int[Array, "B T"], Int[Array, "B T"]]:
    """(number of the nearest unmasked frame, how far it is) of every frame; of two equally near, the earlier."""
    frames = mask.shape[1]
    numbers = jnp.arange(frames)
    far = 2 * frames
    before = jax.lax.cummax(jnp.where(mask, -far, numbers), axis=1)
    after = jax.lax.cummin(jnp.where(mask, far, numbers), axis=1, reverse=True)
    nearest = jnp.where(numbers - before <= after - numbers, before, after)
    return jnp.clip(nearest, 0, frames - 1), jnp.abs(nearest - numbers)
