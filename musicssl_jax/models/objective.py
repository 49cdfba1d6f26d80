"""From a config to the objective it names: the one place that knows all objectives."""

from typing import Any

from musicssl_jax.models.data2vec import Data2Vec, LossConfig, TargetConfig, TeacherConfig
from musicssl_jax.models.encoder import EncoderConfig
from musicssl_jax.models.masking import MaskConfig


def make_objective(config: Any) -> Data2Vec:
    """The objective of `config.objective`; the config's groups are mappings with the fields of its parts.

    Raises ValueError when there is no such objective.
    """
    if config.objective == "data2vec":
        return Data2Vec(
            model=EncoderConfig(**config.model, dtype=config.precision),
            mask=MaskConfig(**config.mask),
            target=TargetConfig(**config.target),
            teacher=TeacherConfig(**config.teacher),
            regression=LossConfig(**config.loss),
            clips=config.batch.clips,
            normalize=config.data.normalize,
        )
    raise ValueError(f"objective is {config.objective!r}; known: 'data2vec'")
