"""A fresh run that begins with the parameters of another model."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util

from musicssl_jax.errors import UserError, shortened
from musicssl_jax.interop.pretrained import Pretrained
from musicssl_jax.targets.codebook import Codebook, codebook_id, load_codebook, misfit
from musicssl_jax.targets.features import Features
from musicssl_jax.training.state import TrainState

RATES = ("dropout", "attention_dropout", "activation_dropout", "input_dropout", "layer_drop", "feature_grad_mult")
"""Fields of `config.model` that no parameter depends on, nor what it means."""


class WarmStart(NamedTuple):
    """The state to begin with; the codebooks without which the label embeddings that were taken mean nothing; and what
    to say of it."""

    state: TrainState
    codebooks: Sequence[Codebook]
    said: str


def warm_start(
    state: TrainState, objective: Any, config: Any, found: Pretrained, front_ends: Sequence[Features] = ()
) -> WarmStart:
    """The state with the encoder of `found`, the model at `config.init_from`.

    `config.init_parts` "all": also heads, label embeddings and teacher, as far as both have them in one shape; label
    embeddings only if their clusters are those that this run predicts, of its `front_ends`. The optimizer's moments
    stay new; a teacher that is not taken begins as the student does.
    Raises UserError: its encoder is another one (what differs is listed), or hears another sample rate.
    """
    _check_encoder(config, found)
    wanted = traverse_util.flatten_dict(state.params, sep="/")
    whole = config.init_parts == "all"
    have = {name: value for name, value in found.params.items() if whole or name.startswith("encoder/")}
    if "label_embeddings" in have and not _same_clusters(config, found.codebooks, front_ends):
        del have["label_embeddings"]
    taken = _fitting(wanted, have)
    params = traverse_util.unflatten_dict(wanted | taken, sep="/")
    teacher, averaged = _teacher(state, objective, params, found.teacher if whole else {})
    owners = {"the teacher"} if averaged else set()
    lost = _owners(set(found.params) - set(taken)) | ({"the teacher"} if found.teacher and not averaged else set())
    new = _owners(set(wanted) - set(taken)) | ({"the teacher, as the student"} if teacher and not averaged else set())
    said = (
        f"begins with {config.init_from}: taken {_listed(_owners(taken) | owners)}; new {_listed(new)}; "
        f"ignored {_listed(lost)}"
    )
    codebooks = found.codebooks if "label_embeddings" in taken else ()
    if "label_embeddings" in taken and not (codebooks or config.codebooks):
        said += "; the label embeddings came without their codebooks, and new ones will not agree with them"
    if found.config.data.normalize != config.data.normalize:
        said += f"; it heard audio with data.normalize={found.config.data.normalize}, unlike this config"
    said = "\n".join([said, *(f"note: {note}" for note in found.notes)])
    return WarmStart(state._replace(params=params, teacher=teacher), codebooks, said)


def _check_encoder(config: Any, found: Pretrained) -> None:
    changed = [
        f"{name} {theirs!r} there, {config.model.get(name)!r} here"
        for name, theirs in found.config.model.items()
        if name not in RATES and theirs != config.model.get(name)
    ]
    if found.config.data.sample_rate != config.data.sample_rate:
        changed.append(f"sample rate {found.config.data.sample_rate} there, {config.data.sample_rate} here")
    if changed:
        raise UserError(
            f"config.init_from={config.init_from} has another encoder than this config: {shortened(changed)}"
        )


def _same_clusters(config: Any, codebooks: Sequence[Codebook], front_ends: Sequence[Features]) -> bool:
    """Whether label k means the same there and here, as far as the model says what it meant there."""
    if not codebooks:
        return True
    if config.labels or len(codebooks) != len(config.targets):
        return False
    if config.codebooks:
        here = [load_codebook(folder) for folder in config.codebooks.split(",")]
        return [codebook_id(c) for c in here] == [codebook_id(c) for c in codebooks]
    targets = zip(codebooks, front_ends[: len(codebooks)], config.clusters, strict=True)
    return not any(misfit(c.front_end, len(c.centroids), features, clusters) for c, features, clusters in targets)


def _fitting(wanted: Mapping[str, jax.Array], have: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """Those of `have` that are wanted in that shape, where the wanted ones lie."""
    return {
        name: jax.device_put(have[name], leaf.sharding)
        for name, leaf in wanted.items()
        if name in have and have[name].shape == leaf.shape
    }


def _teacher(state: TrainState, objective: Any, params: dict, have: Mapping[str, np.ndarray]) -> tuple[dict, bool]:
    """(the teacher, whether it is the one of `have`): all of it, or the student's copy."""
    wanted = traverse_util.flatten_dict(state.teacher, sep="/")
    taken = _fitting(wanted, have)
    if wanted and taken.keys() == wanted.keys():
        return traverse_util.unflatten_dict(taken, sep="/"), True
    where = jax.tree.map(lambda leaf: leaf.sharding, state.teacher)
    return jax.jit(objective.init_teacher, out_shardings=where)(params), False


def _owners(names: Iterable[str]) -> set[str]:
    return {name.split("/")[0] for name in names}


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"
