"""What the layers look like from inside: variance and effective rank of each, on held-out clips."""

import jax
import jax.numpy as jnp

from musicssl_jax.models.encoder import hidden_states
from musicssl_jax.shapes import Array, Float
from musicssl_jax.training.step import Batch


def effective_rank(frames: Float[Array, "N D"]) -> Float[Array, ""]:
    """exp(entropy of the normalised eigenvalues of the covariance): D for white features, 1 for a line.

    Roy and Vetterli 2007, on covariance eigenvalues.
    """
    centred = frames - frames.mean(0)
    covariance = jnp.matmul(centred.T, centred, precision=jax.lax.Precision.HIGHEST) / len(frames)
    values = jnp.maximum(jnp.linalg.eigvalsh(covariance), 0)
    share = values / jnp.maximum(values.sum(), 1e-20)
    return jnp.exp(-jnp.sum(share * jnp.log(jnp.maximum(share, 1e-20))))


def make_diagnose(objective):
    """A jitted function (params, batch) -> metrics of the first micro-batch, evaluation mode.

    conv/variance, conv/effective_rank, and block/N/... for the transformer's input (0) and every block:
    variance over frames and clips, mean over dimensions. A conv stack that collapsed shows here even when
    the spreads of targets and predictions look healthy.
    """

    def describe(frames):
        flat = frames.reshape(-1, frames.shape[-1]).astype(jnp.float32)
        return {"variance": flat.var(0).mean(), "effective_rank": effective_rank(flat)}

    def diagnose(params: dict, batch: Batch) -> dict[str, Array]:
        rows = {name: values[0] for name, values in batch.items()}
        states = hidden_states(objective.encoder(params), objective.waveform(rows))
        stages = {"conv": states["conv"]}
        stages |= {f"block/{i}": hidden for i, hidden in enumerate(states["hidden"])}
        return {f"{stage}/{k}": v for stage, x in stages.items() for k, v in describe(x).items()}

    return jax.jit(diagnose)
