"""The peer of `benchmarks.pretrain`: one music2vec update in PyTorch, with transformers' Data2VecAudioModel."""

import copy
import os
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import Data2VecAudioConfig, Data2VecAudioModel


class Peer:
    """Student, teacher and optimizer; `step` is one update in eager mode.

    As in fairseq and in our step, the teacher is a transformer that gets the student's unmasked frames: the conv
    stack runs once. The masked frames alone go through the head.
    """

    def __init__(self, config: Any, crops: dict[str, np.ndarray]):
        """crops: audio (B, N) PCM16, mean and std (B,)."""
        torch.manual_seed(config.seed)
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        self.config = config
        self.crops = {name: torch.tensor(array) for name, array in crops.items()}
        self.student = Data2VecAudioModel(model_config(config.model)).train()
        self.head = nn.Linear(config.model.width, config.model.width)
        self.teacher = copy.deepcopy(self.student.encoder).eval().requires_grad_(False)
        self.ffn_outputs: list[torch.Tensor] = []
        for block in self.teacher.layers[-config.target.top_k :]:
            block.feed_forward.output_dense.register_forward_hook(lambda *call: self.ffn_outputs.append(call[-1]))
        self.parameters = [*self.student.parameters(), *self.head.parameters()]
        c = config.optimizer
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=config.schedule.peak,
            betas=(c.b1, c.b2),
            eps=c.eps,
            weight_decay=c.weight_decay,
            fused=True,
        )
        warmup = int(config.steps * config.schedule.warmup)
        self.schedule = torch.optim.lr_scheduler.LinearLR(
            self.optimizer, config.schedule.init_scale, total_iters=warmup
        )

    @property
    def size(self) -> int:
        """Trained parameters."""
        return sum(parameter.numel() for parameter in self.parameters)

    def step(self, mask: np.ndarray) -> float:
        """One update; returns its loss. mask (B, T): the frames that the student does not see.

        Also makes what fairseq logs: gradient norm and both spreads.
        """
        bfloat16 = self.config.precision == "bfloat16"
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
            predictions, targets = self.forward(torch.from_numpy(mask))
        error = F.mse_loss(predictions.float(), targets, reduction="none").sum(-1) * targets.shape[-1] ** -0.5
        loss = error.mean()
        self.optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.get_total_norm([parameter.grad for parameter in self.parameters])
        self.optimizer.step()
        self.schedule.step()
        self.update_teacher()
        logged = torch.stack([loss.detach(), norm, spread(targets), spread(predictions.detach().float())])
        return logged.tolist()[0]

    def forward(self, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(predictions, targets) of the masked frames, (M, D) each."""
        x = self.waveform()[:, None]
        # The feature extractor's own forward would also ask for the waveform's gradient.
        for layer in self.student.feature_extractor.conv_layers:
            x = layer(x)
        frames, _ = self.student.feature_projection(x.transpose(1, 2))
        targets = self.targets(frames)
        masked = self.student._mask_hidden_states(frames, mask_time_indices=mask)  # in place
        return self.head(self.student.encoder(masked).last_hidden_state[mask]), targets[mask]

    def waveform(self) -> torch.Tensor:
        mean, std = self.crops["mean"][:, None], self.crops["std"][:, None]
        return (self.crops["audio"].float() / 32768 - mean) * torch.rsqrt(std**2 + 1e-5)

    @torch.no_grad()
    def targets(self, frames: torch.Tensor) -> torch.Tensor:
        """Mean of the instance-normed FFN outputs of the teacher's last blocks, (B, T, D) float32."""
        self.ffn_outputs.clear()
        self.teacher(frames)
        normed = [F.instance_norm(output.float().transpose(1, 2)) for output in self.ffn_outputs]
        return torch.stack(normed).mean(0).transpose(1, 2)

    @torch.no_grad()
    def update_teacher(self) -> None:
        """The blocks are averaged, the positional convolutions copied; decay as of the first updates."""
        weight = 1 - self.config.teacher.decay
        student = dict(self.student.encoder.named_parameters())
        for name, average in self.teacher.named_parameters():
            average.lerp_(student[name], 1.0 if name.startswith("pos_conv_embed") else weight)


def spread(x: torch.Tensor) -> torch.Tensor:
    """Mean over dimensions of the standard deviation over frames, as fairseq logs it."""
    return torch.sqrt(x.var(0) + 1e-6).mean()


def model_config(model: Any) -> Data2VecAudioConfig:
    """The fields of `config.model` by transformers' names."""
    channels, kernels, strides = zip(*model.conv_layers, strict=True)
    return Data2VecAudioConfig(
        conv_dim=channels,
        conv_kernel=kernels,
        conv_stride=strides,
        conv_bias=model.conv_bias,
        hidden_size=model.width,
        intermediate_size=model.ffn,
        num_attention_heads=model.heads,
        num_hidden_layers=model.layers,
        hidden_dropout=model.dropout,
        attention_dropout=model.attention_dropout,
        activation_dropout=model.activation_dropout,
        feat_proj_dropout=model.input_dropout,
        layerdrop=model.layer_drop,
        num_conv_pos_embeddings=model.positional_depth,
        conv_pos_kernel_size=max(3, model.positional_kernel // model.positional_depth),
        num_conv_pos_embedding_groups=model.positional_groups,
        mask_time_prob=0.5,  # any but 0, for the mask embedding to exist; the masks are given
    )
