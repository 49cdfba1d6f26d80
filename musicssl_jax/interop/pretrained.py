"""A model outside of any file format: what every kind of checkpoint is read into and written from."""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from ml_collections import ConfigDict

from musicssl_jax.errors import UserError
from musicssl_jax.models.objective import make_objective
from musicssl_jax.parallel import path_name
from musicssl_jax.targets.codebook import Codebook

Tensors = dict[str, np.ndarray]
"""Arrays by slash-separated name, in our names and layout: "encoder/projection/kernel"."""


@dataclasses.dataclass(frozen=True)
class Origin:
    """What a file held beyond our parameters, so that writing the same kind again gives everything back.

    kind: "run", "transformers" or "fairseq"; where: what was read. options: the file's own, as JSON has them. dtypes:
    of what was not float32, by our names ("params/...", "teacher/..."). spelling: a tensor's name in the file, where it
    is not today's, by today's. foreign: tensors that have no place among ours, by their names there. label_rows: how
    label embeddings lie in the file (`label_rows.Rows` without its embeddings). no_projection: the file has none
    between convolutions and transformer; ours is the identity.
    """

    kind: str
    where: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    dtypes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    spelling: Mapping[str, str] = dataclasses.field(default_factory=dict)
    foreign: Tensors = dataclasses.field(default_factory=dict)
    label_rows: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    no_projection: bool = False


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """params: of the encoder, and of the heads as far as there are any; teacher: data2vec's average, or empty.

    config: a full training config; what a file does not tell has the value of the model family's first variant.
    step: updates done. data: what it was trained on, as a run's checkpoint says it: {"fingerprints", "hours"}; empty
    where nobody knows. notes: what its reader has to say of it.
    """

    config: ConfigDict
    params: Tensors
    teacher: Tensors
    codebooks: tuple[Codebook, ...]
    step: int
    data: Mapping[str, Any]
    origin: Origin
    notes: tuple[str, ...] = ()

    @property
    def encoder(self) -> Tensors:
        """The encoder's parameters, by their names in it."""
        return {n.removeprefix("encoder/"): value for n, value in self.params.items() if n.startswith("encoder/")}

    def with_weights(self, weights: str) -> "Pretrained":
        """The same model with the "student"'s encoder or the "teacher"'s in its place. UserError: it has no teacher."""
        if weights == "student":
            return self
        if not self.teacher:
            raise UserError(f"{self.origin.where} is a model without a teacher: ask for the student's weights")
        taken = {f"encoder/{name}": value for name, value in self.teacher.items()}
        # A float32 teacher beside a float16 student stays what it is.
        dtypes = {n: dtype for n, dtype in self.origin.dtypes.items() if n.removeprefix("params/") not in taken}
        for name, dtype in self.origin.dtypes.items():
            if name.startswith("teacher/"):
                dtypes[name.replace("teacher/", "params/encoder/", 1)] = dtype
        origin = dataclasses.replace(self.origin, dtypes=dtypes)
        return dataclasses.replace(self, params={**self.params, **taken}, origin=origin)


def nested(tensors: Tensors) -> dict[str, Any]:
    """The tensors on the device, as the nested dicts that modules take."""
    return traverse_util.unflatten_dict({name: jnp.asarray(value) for name, value in tensors.items()}, sep="/")


def shapes_of(config: ConfigDict) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter of the config's objective, by our names."""
    return _shapes(jax.eval_shape(make_objective(config).init, jax.random.key(0)))


def teacher_shapes_of(config: ConfigDict) -> dict[str, tuple[int, ...]]:
    """The same of its teacher's parameters, whose names begin inside the encoder; none for musicHuBERT."""
    objective = make_objective(config)
    return _shapes(jax.eval_shape(lambda key: objective.init_teacher(objective.init(key)), jax.random.key(0)))


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    return {path_name(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def digest(tensors: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of names and values: the same for an encoder wherever it lies and in whatever format."""
    sha = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        sha.update(f"{name} {value.dtype}{list(value.shape)}".encode())
        sha.update(np.ascontiguousarray(value).tobytes())
    return sha.hexdigest()
