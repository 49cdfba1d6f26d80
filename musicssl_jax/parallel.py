"""The mesh and the table of partition rules; how processes agree and wait for each other."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from musicssl_jax.errors import UserError

Result = TypeVar("Result")
Rules = Sequence[tuple[str, P]]

PARTITION_RULES: Rules = (
    # Where each parameter is split over `fsdp`; blocks' parameters lead with their layer axis.
    # Optimizer moments and the teacher follow the parameter they belong to.
    (r"transformer/blocks/attention/(query|key|value)/kernel", P(None, None, "fsdp")),
    (r"transformer/blocks/attention/out/kernel", P(None, "fsdp", None)),
    (r"transformer/blocks/feed_in/kernel", P(None, None, "fsdp")),
    (r"transformer/blocks/feed_out/kernel", P(None, "fsdp", None)),
    (r"transformer/positional/layer\d+/kernel", P(None, None, "fsdp")),
    (r"conv_encoder/layer\d+/kernel", P(None, None, "fsdp")),
    (r"encoder/projection/kernel", P(None, "fsdp")),
    (r"head/kernel", P(None, "fsdp")),
    (r"(bias|scale|gain|mask_embedding|label_embeddings|regression/kernel)$", P()),
)

BATCH_SPEC = P(None, ("data", "fsdp"))
"""(micro-batch, row, ...): both axes divide the rows."""


def make_mesh(data: int, fsdp: int, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh of `data` x `fsdp` devices; data -1 takes what is left.

    Raises UserError when the devices do not suffice or are not all used.
    """
    devices = list(devices if devices is not None else jax.devices())
    if fsdp < 1 or data == 0 or data < -1:
        raise UserError(f"mesh.data={data}, mesh.fsdp={fsdp}: want mesh.fsdp >= 1 and mesh.data >= 1 (or -1)")
    if data == -1:
        data = max(len(devices) // fsdp, 1)
    if data * fsdp > len(devices):
        raise UserError(
            f"mesh.data x mesh.fsdp = {data} x {fsdp} = {data * fsdp} devices, but there are {len(devices)}; "
            "use mesh.data=-1 for what there is"
        )
    if data * fsdp < len(devices) and jax.process_count() > 1:
        raise UserError(
            f"mesh {data} x {fsdp} leaves {len(devices) - data * fsdp} of {len(devices)} devices idle, which "
            "several processes cannot do; use mesh.data=-1"
        )
    grid = np.asarray(devices[: data * fsdp]).reshape(data, fsdp)
    return Mesh(grid, ("data", "fsdp"), axis_types=(AxisType.Auto, AxisType.Auto))


def path_name(path: tuple) -> str:
    """'encoder/projection/kernel' for a pytree path of dict keys, attributes and indices."""
    return "/".join(str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path)


def partition_specs(tree: Any, rules: Rules, axis_sizes: Mapping[str, int]) -> Any:
    """A PartitionSpec for every parameter: the first rule whose pattern is found in the parameter's path.

    Raises ValueError that names the parameter or the rule: a parameter without a rule, a rule without a
    parameter, a spec longer than the shape, or an axis used twice. Raises UserError, which names the parameter:
    a dimension that the mesh does not divide.
    """
    unused = {pattern for pattern, _ in rules}

    def spec_of(path, leaf):
        name = path_name(path)
        for pattern, spec in rules:
            if re.search(pattern, name):
                unused.discard(pattern)
                _check_spec(name, leaf.shape, spec, axis_sizes)
                return spec
        raise ValueError(f"no partition rule matches parameter {name} {leaf.shape}")

    specs = jax.tree_util.tree_map_with_path(spec_of, tree)
    if unused:
        raise ValueError(f"partition rules match no parameter: {', '.join(sorted(unused))}")
    return specs


def _check_spec(name: str, shape: tuple[int, ...], spec: P, axis_sizes: Mapping[str, int]) -> None:
    used = [axis for entry in spec for axis in _axes(entry)]
    if len(spec) > len(shape):
        raise ValueError(f"parameter {name}: {spec} has more dimensions than its shape {shape}")
    if len(set(used)) < len(used):
        raise ValueError(f"parameter {name}: {spec} uses a mesh axis twice")
    for size, entry in zip(shape, spec, strict=False):
        parts = math.prod(axis_sizes[axis] for axis in _axes(entry))
        if size % parts:
            raise UserError(
                f"parameter {name} {shape}: dimension {size} does not divide over {entry} = {parts} devices; "
                f"choose a mesh.fsdp that divides {size}"
            )


def _axes(entry) -> tuple[str, ...]:
    return () if entry is None else (entry,) if isinstance(entry, str) else tuple(entry)


def state_specs(state: Any, rules: Rules, axis_sizes: Mapping[str, int]) -> Any:
    """PartitionSpecs of a whole TrainState: params by the rules; moments and teacher as their parameter.

    A leaf of the optimizer or the teacher belongs to the parameter whose path its own path ends in (the
    teacher holds parts of the encoder); what belongs to none (counters) is replicated.
    """
    by_path = {
        path_name(path): spec
        for path, spec in jax.tree_util.tree_leaves_with_path(
            partition_specs(state.params, rules, axis_sizes), is_leaf=lambda x: isinstance(x, P)
        )
    }

    def follow(path, leaf):
        parts = path_name(path).split("/")
        for i in range(len(parts)):
            tail = "/".join(parts[i:])
            for name in (tail, f"encoder/{tail}"):
                if name in by_path and leaf.ndim >= len(by_path[name]):
                    return by_path[name]
        return P()

    return jax.tree_util.tree_map_with_path(follow, state)


def shardings(specs: Any, mesh: Mesh | AbstractMesh) -> Any:
    """NamedShardings for a tree of PartitionSpecs."""
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs, is_leaf=lambda x: isinstance(x, P))


def in_turns(act: Callable[[], Result]) -> Result:
    """What `act` returns on this process. One process after the other does it: what the first makes, the rest find.

    Raises UserError on all where one raised it.
    """
    result, error = None, None
    for turn in range(jax.process_count()):
        if turn == jax.process_index():
            try:
                result = act()
            except UserError as raised:
                error = raised
        if any_process_says(error is not None):
            raise error or UserError(f"process {turn} cannot go on; what it says is the reason")
    return cast(Result, result)


def first_process_says(answer: bool) -> bool:
    """One answer for all processes, which must take the same branch."""
    return bool(multihost_utils.broadcast_one_to_all(np.asarray(answer)))


def any_process_says(answer: bool) -> bool:
    """Whether it is so on any process; all learn it."""
    return bool(np.any(multihost_utils.process_allgather(np.asarray(answer))))


def barrier(name: str) -> None:
    """Returns when every process has come here."""
    multihost_utils.sync_global_devices(name)
