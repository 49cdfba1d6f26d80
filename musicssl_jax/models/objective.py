"""From a config to the objective it names: the one place that knows all objectives."""

from typing import Any

from musicssl_jax.models.data2vec import Data2Vec, LossConfig, TargetConfig, TeacherConfig
from musicssl_jax.models.encoder import EncoderConfig
from musicssl_jax.models.hubert import Hubert, PredictionConfig
from musicssl_jax.models.masking import MaskConfig
from musicssl_jax.targets.names import set_name, width_of


def make_objective(config: Any) -> Data2Vec | Hubert:
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
    if config.objective == "hubert":
        return Hubert(
            model=EncoderConfig(**config.model, dtype=config.precision),
            mask=MaskConfig(**config.mask),
            prediction=PredictionConfig(**config.prediction),
            names=tuple(map(set_name, config.targets)),
            classes=tuple(config.clusters),
            clips=config.batch.clips,
            normalize=config.data.normalize,
            regressed=width_of(config.regression) if config.regression else 0,
        )
    raise ValueError(f"objective is {config.objective!r}; known: 'data2vec', 'hubert'")
