"""The peer of `benchmarks.pretrain`: an update of music2vec or musicHuBERT in PyTorch, with transformers' modules."""

import copy
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn
from transformers import Data2VecAudioConfig, Data2VecAudioModel, HubertConfig, HubertModel

from benchmarks.turns import memory, serve
from musicssl_jax import config as configs
from musicssl_jax.interop.transformers_config import write_config


def torch_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() and not forced_to_cpu() else "cpu")


def device() -> dict[str, str]:
    """What PyTorch computes on, by JAX's names of platforms."""
    if torch_device().type == "cpu":
        return {"platform": "cpu", "kind": "cpu"}
    return {"platform": "gpu", "kind": torch.cuda.get_device_name()}


class Peer:
    """Student, teacher, heads and optimizer; `prepare` first.

    As in fairseq and in our step, the teacher is a transformer that gets the student's unmasked frames: the conv
    stack runs once. The masked frames alone go through the head.
    """

    def prepare(self, flags: list[str], folder: str) -> dict[str, Any]:
        """Loads the parameters, crops and masks of our side.

        losses: of the first masks, without dropout, in float32 and in the step's precision.
        """
        self.config = config = configs.load(flags)[0]
        self.device = torch_device()
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        torch.manual_seed(config.seed)
        with np.load(Path(folder) / "batch.npz") as batch:
            self.batch = {name: torch.from_numpy(values).to(self.device) for name, values in batch.items()}
        self.masks = self.batch.pop("masks")
        self._build(load_file(Path(folder) / "weights.safetensors"))
        self.compiled = False
        self.encode = {"student": encode, "teacher": encode}
        losses = {precision: self._undisturbed_loss(precision) for precision in {"float32", config.precision}}
        return {"parameters": sum(p.numel() for p in self.parameters), "losses": losses}

    @torch.no_grad()
    def _undisturbed_loss(self, precision: str) -> float:
        self.student.eval()
        with self._autocast(precision):
            loss, _ = self.loss(self.masks[0])
        self.student.train()
        return loss.item()

    def _autocast(self, precision: str) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")

    def _build(self, weights: dict[str, torch.Tensor]) -> None:
        c = self.config
        hubert = c.objective == "hubert"
        written = write_config(c, {})
        model = HubertModel(HubertConfig(**written)) if hubert else Data2VecAudioModel(Data2VecAudioConfig(**written))
        own = [name for name in weights if name in ("head/kernel", "head/bias", "label_embeddings")]
        heads = {name: weights.pop(name) for name in own}
        model.load_state_dict(weights)
        self.student = model.to(self.device).train()
        kernel = heads["head/kernel"]
        self.head = nn.Linear(*kernel.shape)
        self.head.load_state_dict({"weight": kernel.T, "bias": heads["head/bias"]})
        self.head.to(self.device)
        self.parameters = [*self.student.parameters(), *self.head.parameters()]
        if hubert:
            self.codes = nn.Parameter(heads["label_embeddings"].to(self.device))
            self.parameters.append(self.codes)
        else:
            self._copy_teacher()
        o = c.optimizer
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=c.schedule.peak,
            betas=(o.b1, o.b2),
            eps=o.eps,
            weight_decay=o.weight_decay,
            fused=True,
        )
        warmup = int(c.steps * c.schedule.warmup)
        self.schedule = torch.optim.lr_scheduler.LinearLR(self.optimizer, c.schedule.init_scale, total_iters=warmup)

    def _copy_teacher(self) -> None:
        self.teacher = copy.deepcopy(self.student.encoder).eval().requires_grad_(False)
        student = dict(self.student.encoder.named_parameters())
        pairs = [(name, average, student[name]) for name, average in self.teacher.named_parameters()]
        self.copied = [pair[1:] for pair in pairs if pair[0].startswith("pos_conv_embed")]
        self.averaged = [pair[1:] for pair in pairs if not pair[0].startswith("pos_conv_embed")]

    def configure(self, threads: int, compiled: bool) -> None:
        torch.set_num_threads(threads)
        torch.compiler.set_stance("default" if compiled else "force_eager")
        if compiled and not self.compiled:
            for layer in self.student.feature_extractor.conv_layers:
                layer.compile()
            self.encode = {name: torch.compile(function) for name, function in self.encode.items()}
            self.compiled = True

    def update(self, number: int) -> dict[str, float]:
        """Seconds and loss of an update under masks `number`; also makes what fairseq logs."""
        began = time.perf_counter()
        mask = self.masks[number % len(self.masks)]
        with self._autocast(self.config.precision):
            loss, logged = self.loss(mask)
        self.optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.get_total_norm([parameter.grad for parameter in self.parameters])
        self.optimizer.step()
        self.schedule.step()
        if self.config.objective == "data2vec":
            self.update_teacher()
        value = torch.stack([loss.detach(), norm, *logged]).tolist()[0]  # waits for the device
        return {"seconds": time.perf_counter() - began, "loss": value}

    def loss(self, mask: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """(mean loss of the masked frames, figures to log). mask (B, T): the frames that the student does not see."""
        x = self.waveform()[:, None]
        # The feature extractor's own forward would also ask for the waveform's gradient.
        for layer in self.student.feature_extractor.conv_layers:
            x = layer(x)
        features, factor = x, self.config.model.feature_grad_mult
        if factor != 1 and x.requires_grad:
            x = x.clone()
            x.register_hook(lambda g: g * factor)
        frames = self.student.feature_projection(x.transpose(1, 2))
        frames = frames[0] if isinstance(frames, tuple) else frames
        targets = self.targets(frames)[mask] if self.config.objective == "data2vec" else None
        masked = self.student._mask_hidden_states(frames, mask_time_indices=mask)  # in place
        predictions = self.head(self.encode["student"](self.student.encoder, masked)[0][mask]).float()
        if targets is None:
            return self.classification(predictions, features, mask)
        error = F.mse_loss(predictions, targets, reduction="none").sum(-1) * targets.shape[-1] ** -0.5
        return error.mean(), [spread(targets), spread(predictions.detach())]

    def classification(self, predictions: torch.Tensor, features: torch.Tensor, mask: torch.Tensor):
        """HuBERT's: cross-entropy of cosines over temperature, and the penalty on the conv stack's output."""
        labels = self.batch["labels"][mask][:, 0].long()
        cosines = F.normalize(predictions, dim=-1) @ F.normalize(self.codes, dim=-1).T
        logits = cosines.float() / self.config.prediction.temperature
        penalty = features.float().square().mean((1, 2)) * mask.sum(1)
        loss = F.cross_entropy(logits, labels) + self.config.prediction.feature_penalty * penalty.sum() / mask.sum()
        return loss, [(logits.argmax(-1) == labels).float().mean()]

    def waveform(self) -> torch.Tensor:
        audio = self.batch["audio"].float() / 32768
        if not self.config.data.normalize:
            return audio
        return (audio - self.batch["mean"][:, None]) * torch.rsqrt(self.batch["std"][:, None] ** 2 + 1e-5)

    @torch.no_grad()
    def targets(self, frames: torch.Tensor) -> torch.Tensor:
        """Mean of the instance-normed FFN outputs of the teacher's last blocks, (B, T, D) float32."""
        _, ffn_outputs = self.encode["teacher"](self.teacher, frames)
        top = ffn_outputs[-self.config.target.top_k :]
        normed = [F.instance_norm(output.float().transpose(1, 2)) for output in top]
        return torch.stack(normed).mean(0).transpose(1, 2)

    @torch.no_grad()
    def update_teacher(self) -> None:
        """The blocks are averaged, the positional convolutions copied; decay as of the first updates."""
        torch._foreach_copy_(*map(list, zip(*self.copied, strict=True)))
        torch._foreach_lerp_(*map(list, zip(*self.averaged, strict=True)), 1 - self.config.teacher.decay)

    def memory(self) -> float:
        """Most bytes that it has held: of the device, or of the process on a CPU."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated()
        return memory()


def encode(encoder: nn.Module, frames: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """(output, outputs of all feed-forward layers), by the encoder's own modules.

    Its own `forward` draws a number for every block to skip it or not, at which a compiled program would break.
    """
    x = encoder.dropout(encoder.layer_norm(frames + encoder.pos_conv_embed(frames)))
    outputs = []
    for block in encoder.layers:
        x = block.layer_norm(x + block.dropout(block.attention(x)[0]))
        outputs.append(block.feed_forward(x))
        x = block.final_layer_norm(x + outputs[-1])
    return x, outputs


def forced_to_cpu() -> bool:
    return os.environ.get("JAX_PLATFORMS") == "cpu"


def spread(x: torch.Tensor) -> torch.Tensor:
    """Mean over dimensions of the standard deviation over frames, as fairseq logs it."""
    return torch.sqrt(x.var(0) + 1e-6).mean()


if __name__ == "__main__":
    side = Peer()
    serve(
        {
            "device": device,
            "prepare": side.prepare,
            "configure": side.configure,
            "update": side.update,
            "memory": side.memory,
        }
    )
