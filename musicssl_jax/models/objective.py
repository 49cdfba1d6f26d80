"""From a config to the objective it names: the one place that knows all objectives."""

from typing import Any

from musicssl_jax.models.attention import choose_kernel
from musicssl_jax.models.data2vec import Data2Vec, LossConfig, TargetConfig, TeacherConfig
from musicssl_jax.models.encoder import EncoderConfig
from musicssl_jax.models.hubert import Hubert, PredictionConfig
from musicssl_jax.models.masking import MaskConfig
from musicssl_jax.targets.names import set_name, width_of


def make_objective(config: Any, platform: str | None = None) -> Data2Vec | Hubert:
    """The objective of `config.objective`; the config's groups are mappings with the fields of its parts.

    platform: of the devices that train it ("cpu", "gpu", "tpu"), which `config.compute.attention=auto` follows; None:
    attention in the form that all have, whatever it was trained with.
    Raises ValueError when there is no such objective.
    """
    model = EncoderConfig(**config.model, **_compute(config, platform), dtype=config.precision)
    if config.objective == "data2vec":
        return Data2Vec(
            model=model,
            mask=MaskConfig(**config.mask),
            target=TargetConfig(**config.target),
            teacher=TeacherConfig(**config.teacher),
            regression=LossConfig(**config.loss),
            clips=config.batch.clips,
            normalize=config.data.normalize,
        )
    if config.objective == "hubert":
        return Hubert(
            model=model,
            mask=MaskConfig(**config.mask),
            prediction=PredictionConfig(**config.prediction),
            names=tuple(map(set_name, config.targets)),
            classes=tuple(config.clusters),
            clips=config.batch.clips,
            normalize=config.data.normalize,
            regressed=width_of(config.regression) if config.regression else 0,
        )
    raise ValueError(f"objective is {config.objective!r}; known: 'data2vec', 'hubert'")


def _compute(config: Any, platform: str | None) -> dict[str, Any]:
    """The config's choices of how to compute, "auto" decided; a config from before there were any has none."""
    chosen = dict(config.get("compute", {}))
    if chosen:
        model, kernel = config.model, chosen["attention"]
        rate, head_width = model.attention_dropout, model.width // model.heads
        chosen["attention"] = choose_kernel(kernel, platform, config.precision, rate, head_width) if platform else "xla"
    return chosen
