"""music2vec's objective: data2vec 1.0 audio.

The student sees a masked clip and regresses, at the masked frames, what an averaged copy of itself (the
teacher) makes of the whole clip: the mean of the instance-normed FFN outputs of its last blocks.
Reference: fairseq's data2vec_audio (`base_librispeech.yaml`).

An objective has the interface that training, validation and planning call, and nothing else:
`init`, `init_teacher`, `loss`, `metrics`, `update_teacher`, `encoder`, `waveform`, `example`.
"""

import dataclasses
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from musicssl_jax.flops import encoder_flops, transformer_flops
from musicssl_jax.models.conv_encoder import frame_count
from musicssl_jax.models.encoder import Encoder, EncoderConfig, encoder_input
from musicssl_jax.models.layers import Linear, standardize, uniform_fan_in
from musicssl_jax.models.masking import MaskConfig, batch_masks, channel_masks, masked_limit, masked_positions
from musicssl_jax.shapes import Array, Bool, Float, Int, Key

SPREAD_EPSILON = 1e-6  # inside the root of every monitored variance (reference)


@dataclasses.dataclass(frozen=True)
class TargetConfig:
    """How the teacher's blocks become targets: the fields of `config.target`, the reference's flags."""

    top_k: int
    batch_norm_layer: bool
    instance_norm_layer: bool
    group_norm_layer: bool
    layer_norm_layer: bool
    layer_norm: bool
    instance_norm: bool


@dataclasses.dataclass(frozen=True)
class TeacherConfig:
    """What is averaged and how fast: the fields of `config.teacher`."""

    decay: float
    end_decay: float
    anneal_steps: int
    average: str
    steps_per_update: int


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """beta 0: squared error, else smooth L1 with that beta; scale 0: 1 / sqrt(width)."""

    beta: float
    scale: float


class Student(nnx.Module):
    """The encoder and the regression head."""

    def __init__(self, config: EncoderConfig, *, rngs: nnx.Rngs):
        self.encoder = Encoder(config, rngs=rngs)
        init = uniform_fan_in(config.width)
        self.head = Linear(config.width, config.width, kernel_init=init, bias_init=init, rngs=rngs)


@dataclasses.dataclass(frozen=True)
class Data2Vec:
    """The objective of `config.objective = "data2vec"`. `clips`: rows of the global batch."""

    model: EncoderConfig
    mask: MaskConfig
    target: TargetConfig
    teacher: TeacherConfig
    regression: LossConfig
    clips: int
    normalize: bool = True

    def student(self, params: dict) -> Student:
        """The module that holds `params`."""
        return nnx.merge(self._graph, params)

    @cached_property
    def _graph(self) -> nnx.GraphDef:
        return nnx.graphdef(nnx.eval_shape(lambda: Student(self.model, rngs=nnx.Rngs(0))))

    def encoder(self, params: dict) -> Encoder:
        """The encoder that holds `params`: what evaluation and conversion want of a run."""
        return self.student(params).encoder

    def init(self, key: Key[Array, ""]) -> dict:
        """Parameters as a nested dict of float32 arrays, with the reference's initialisation."""
        return nnx.to_pure_dict(nnx.state(Student(self.model, rngs=nnx.Rngs(key)), nnx.Param))

    def init_teacher(self, params: dict) -> dict:
        """A copy of what the teacher averages or copies; a run's first teacher is its student."""
        return jax.tree.map(jnp.copy, self._teacher_part(params))

    def _teacher_part(self, params: dict) -> dict:
        encoder = params["encoder"]
        return encoder if self.teacher.average == "all" else {"transformer": encoder["transformer"]}

    def update_teacher(self, teacher: dict, params: dict, step: Int[Array, ""]) -> dict:
        """The teacher after optimizer update number `step` (1 after the first), in float32.

        decay(n) rises linearly from `decay` to `end_decay` at `anneal_steps`. With `average` "blocks" the
        positional convolutions are copied from the student (reference: ema_layers_only). The reference
        steps once a micro-batch: `steps_per_update` u gives what update_freq=u does there.
        """
        decay = self.decay(step) ** self.teacher.steps_per_update

        def average(path, old, new):
            copied = self.teacher.average == "blocks" and any(k.key == "positional" for k in path)
            return new if copied else old * decay + new * (1 - decay)

        return jax.tree_util.tree_map_with_path(average, teacher, self._teacher_part(params))

    def decay(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """The teacher's decay at update `step`."""
        steps = self.teacher.anneal_steps
        done = jnp.minimum(step / steps, 1.0) if steps else jnp.ones(())
        return self.teacher.end_decay - (self.teacher.end_decay - self.teacher.decay) * (1 - done)

    def loss(
        self,
        params: dict,
        teacher: dict,
        frozen: tuple,
        batch: dict[str, Array],
        key: Key[Array, ""],
        *,
        train: bool = True,
    ) -> tuple[Float[Array, ""], tuple[Float[Array, ""], dict]]:
        """(summed loss, (weight, sums)) of some rows of a global batch; sums over rows add up.

        batch: audio (B, N) PCM16 or float; mean, std (B,) of the whole track; weight (B,) 0 for a row that
        only fills up; row (B,) its number in the global batch; optionally mask (B, T), which replaces the
        drawn one. `key` follows from (seed, step); everything random of a row from it and the row's number.
        The loss is summed over masked frames: scale * ||prediction - target||^2 (beta 0).
        """
        del frozen  # data2vec needs nothing but its teacher
        student = self.student(params)
        encoder = student.encoder
        mask_key, channel_key, dropout_key, layer_key = jax.random.split(key, 4)
        keys = jax.vmap(lambda row: jax.random.fold_in(dropout_key, row))(batch["row"]) if train else None
        waveform = self.waveform(batch)
        frames = encoder.project(encoder.features(waveform))
        mask, limit = batch_masks(batch, mask_key, frames.shape[1], self.clips, self.mask)
        channels = channel_masks(channel_key, batch["row"], self.model.width, self.mask) if train else None

        x = encoder.transformer.embed(encoder.mask(frames, mask, channels, keys), keys=keys)
        x, _ = encoder.transformer.encode(x, keys=keys, layer_key=layer_key if train else None)
        with jax.named_scope("teacher"):
            targets = jax.lax.stop_gradient(self.targets(params, teacher, waveform, frames, batch))

        mask = mask & (batch["weight"] > 0)[:, None]
        where, valid = masked_positions(mask, limit)
        masked_x = jnp.take_along_axis(x, where[..., None], axis=1)
        with jax.named_scope("head"):
            predictions = student.head(masked_x).astype(jnp.float32)
        masked_targets = jnp.take_along_axis(targets, where[..., None], axis=1)
        loss = jnp.sum(self._frame_loss(predictions, masked_targets) * valid)
        weight = valid.sum().astype(jnp.float32)
        return loss, (weight, _sums(batch["weight"], mask, valid, predictions, masked_targets, targets))

    def waveform(self, batch: dict[str, Array]) -> Float[Array, "B N"]:
        """The encoder's input: float audio, normalised by its track if the run does so."""
        return encoder_input(batch, by_track=self.normalize)

    def example(self, frozen: tuple, batch: dict[str, Array], key: Key[Array, ""]) -> dict[str, Array]:
        """waveform (B, N) and mask (B, T) of some rows as `loss` sees them under the same key."""
        del frozen
        mask_key = jax.random.split(key, 4)[0]
        waveform = self.waveform(batch)
        frames = frame_count(waveform.shape[1], self.model.conv_layers)
        return {"waveform": waveform, "mask": batch_masks(batch, mask_key, frames, self.clips, self.mask)[0]}

    def targets(
        self,
        params: dict,
        teacher: dict,
        waveform: Float[Array, "B N"],
        frames: Float[Array, "B T D"],
        batch: dict[str, Array],
    ) -> Float[Array, "B T D"]:
        """The teacher's targets of every frame: evaluation mode, unmasked, float32.

        The teacher shares the student's conv stack and projection unless it averages "all".
        """
        encoder = self.encoder(jax.lax.stop_gradient({**params, "encoder": {**params["encoder"], **teacher}}))
        frames = jax.lax.stop_gradient(frames)
        if self.teacher.average == "all":
            frames = encoder.project(encoder.features(waveform))
        first = self.model.layers - self.target.top_k

        def add(total, index, ffn, _):
            normed = lambda: total + self._normalize_layer(ffn.astype(jnp.float32), batch["weight"])  # noqa: E731
            return jax.lax.cond(index >= first, normed, lambda: total)

        total = jnp.zeros(frames.shape, jnp.float32)
        _, total = encoder.transformer.encode(encoder.transformer.embed(frames), tap=add, tapped=total)
        targets = total / self.target.top_k
        if self.target.layer_norm:
            targets = standardize(targets, axis=-1)
        return standardize(targets, axis=1) if self.target.instance_norm else targets

    def _normalize_layer(self, x: Float[Array, "B T D"], weight: Float[Array, " B"]) -> Float[Array, "B T D"]:
        """The flags' norms in the reference's order. Instance norm: per clip and channel over all frames."""
        if self.target.batch_norm_layer:
            x = batch_standardize(x, weight)
        if self.target.instance_norm_layer:
            x = standardize(x, axis=1)
        if self.target.group_norm_layer:
            x = standardize(x, axis=(1, 2))
        return standardize(x, axis=-1) if self.target.layer_norm_layer else x

    @property
    def loss_scale(self) -> float:
        """What a frame's summed error is multiplied by."""
        return self.regression.scale or self.model.width**-0.5

    def _frame_loss(self, x: Float[Array, "B M D"], y: Float[Array, "B M D"]) -> Float[Array, "B M"]:
        """Squared error (beta 0) or smooth L1, summed over dimensions and scaled."""
        beta = self.regression.beta
        distance = jnp.abs(x - y)
        if beta == 0:
            error = jnp.square(distance)
        else:
            quadratic = 0.5 * jnp.square(distance) / beta
            error = jnp.where(distance < beta, quadratic, distance - 0.5 * beta)
        return error.sum(-1) * self.loss_scale

    def clip_flops(self, samples: int) -> int:
        """Of a clip in an update: three times the student's forward pass (forward and backward) plus the teacher's.

        The teacher shares the student's frames; only one that averages "all" runs its own conv stack.
        """
        frames = frame_count(samples, self.model.conv_layers)
        head = 2 * masked_limit(frames, self.mask) * self.model.width**2
        teacher = transformer_flops(self.model, frames)
        if self.teacher.average == "all":
            teacher = encoder_flops(self.model, samples)
        return 3 * (encoder_flops(self.model, samples) + head) + teacher

    def metrics(self, sums: dict, step: Int[Array, ""]) -> dict[str, Float[Array, ""]]:
        """What is logged beside the loss, from the sums over the global batch. `step`: updates done before.

        target/spread, prediction/spread: mean over dimensions of sqrt(unbiased variance + 1e-6) over the
        masked frames (the reference's target_var and pred_var). target/positional_share: variance over
        frames of the clip-mean target over total variance, corrected for the number of clips. It is 1 when
        targets are a function of the frame's position alone, 0 when clips are unrelated. prediction/swap_gap:
        mean squared-error loss against every other clip's targets at the same frames minus that against the
        own: near 0 when predictions do not depend on the clip. Both are NaN for a batch of one clip.
        """
        clips, frames = sums["clips"], sums["masked_per_frame"].shape[0]
        masked = sums["masked_per_frame"].sum()
        return {
            "mask/share": masked / jnp.maximum(clips * frames, 1),
            "target/spread": _spread(sums["target_moments"], masked),
            "prediction/spread": _spread(sums["prediction_moments"], masked),
            "target/positional_share": _positional_share(sums),
            "prediction/swap_gap": _swap_gap(sums) * self.loss_scale,
            "teacher/decay": self.decay(step + 1),
        }


def batch_standardize(x: Float[Array, "B T D"], weight: Float[Array, " B"]) -> Float[Array, "B T D"]:
    """Per channel over the rows of weight 1 and all their frames (the reference: the clips of a device)."""
    share = (weight / (weight.sum() * x.shape[1]))[:, None, None]
    centred = x - (x * share).sum((0, 1))
    return centred * jax.lax.rsqrt((jnp.square(centred) * share).sum((0, 1)) + 1e-5)


def _sums(
    weight: Float[Array, " B"],
    mask: Bool[Array, "B T"],
    valid: Float[Array, "B M"],
    predictions: Float[Array, "B M D"],
    masked_targets: Float[Array, "B M D"],
    targets: Float[Array, "B T D"],
) -> dict[str, Any]:
    """Additive statistics from which `metrics` is computed over any number of rows.

    Sums over clips at each frame make the comparison with every other clip's targets exact and independent
    of how the rows were divided among micro-batches and devices.
    """
    predictions = jax.lax.stop_gradient(predictions)
    inside = mask[..., None]
    order = jnp.clip(jnp.cumsum(mask, axis=1) - 1, 0, predictions.shape[1] - 1)
    spread_out = jnp.where(inside, jnp.take_along_axis(predictions, order[..., None], axis=1), 0)
    real = targets * weight[:, None, None]
    own = masked_targets * valid[..., None]
    at_masked = predictions * valid[..., None]
    return {
        "clips": weight.sum(),
        "masked_per_frame": mask.sum(0).astype(jnp.float32),
        "target_moments": (own.sum((0, 1)), jnp.square(own).sum((0, 1))),
        "prediction_moments": (at_masked.sum((0, 1)), jnp.square(at_masked).sum((0, 1))),
        "targets_per_frame": real.sum(0),
        "target_energy_per_frame": jnp.square(real).sum((0, 2)),
        "predictions_per_frame": spread_out.sum(0),
        "own_product": jnp.sum(at_masked * own),
    }


def _spread(moments: tuple[Float[Array, " D"], Float[Array, " D"]], count: Float[Array, ""]):
    total, squares = moments
    variance = (squares - jnp.square(total) / count) / jnp.maximum(count - 1, 1)
    return jnp.mean(jnp.sqrt(jnp.maximum(variance, 0) + SPREAD_EPSILON))


def _positional_share(sums: dict) -> Float[Array, ""]:
    clips, per_frame = sums["clips"], sums["targets_per_frame"] / jnp.maximum(sums["clips"], 1)
    frames = per_frame.shape[0]
    grand_mean = jnp.square(per_frame.mean(0)).sum()
    of_mean = jnp.square(per_frame).sum() / frames - grand_mean
    total = sums["target_energy_per_frame"].sum() / (jnp.maximum(clips, 1) * frames) - grand_mean
    share = of_mean / jnp.maximum(total, 1e-12)
    # The mean of `clips` unrelated clips still has 1 / clips of the variance.
    return jnp.where(clips > 1, (clips * share - 1) / (clips - 1), jnp.nan)


def _swap_gap(sums: dict) -> Float[Array, ""]:
    """Mean over masked frames of ||x - y_other||^2 - ||x - y_own||^2, over all ordered pairs of clips."""
    clips, masked = sums["clips"], sums["masked_per_frame"]
    own_energy = sums["target_moments"][1].sum()
    other_product = jnp.sum(sums["predictions_per_frame"] * sums["targets_per_frame"]) - sums["own_product"]
    other_energy = jnp.sum(masked * sums["target_energy_per_frame"]) - own_energy
    others = clips - 1
    gap = (other_energy / others - own_energy) - 2 * (other_product / others - sums["own_product"])
    return jnp.where(clips > 1, gap / jnp.maximum(masked.sum(), 1), jnp.nan)
