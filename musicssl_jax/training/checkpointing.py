"""Checkpoints that prove themselves: saved in the background, verified on restore, damaged ones set aside.

A checkpoint is an Orbax step folder with two items, `state` (every leaf of the training state under its
name, as a nested dict) and `meta` (resolved config, versions, the data's fingerprint, and for every leaf its
shape, type and checksum), files that belong to the run (musicHuBERT's `codebooks/`) and `SHA256SUMS`. The
last two are written before the folder gets its final name; `sha256sum -c SHA256SUMS` checks it by hand. The
file hashes catch what happens to the files; the leaf checksums, computed on the device, catch what happens
on the way between the device and the files.
"""

import errno
import logging
import os
import shutil
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp
from etils import epath
from flax import traverse_util
from orbax.checkpoint import checkpoint_managers as policies

from musicssl_jax.errors import UserError, shortened
from musicssl_jax.object_store import absolute
from musicssl_jax.parallel import barrier, first_process_says
from musicssl_jax.training.checksums import checksum
from musicssl_jax.training.file_hashes import COMMIT_FILES, damaged_files, write_hashes

State = TypeVar("State")

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.ENOTDIR)


def open_checkpoints(folder: str | os.PathLike, config: Any) -> "Checkpoints":
    """Opens (or makes) the checkpoint folder of a run; leftovers of interrupted saves are removed.

    Args:
        folder: where the step folders lie; may be an object store.
        config: the config's `checkpoint` section: `every` (steps), `minutes`, `keep` (newest n), `keep_every`
            (steps), `keep_hours`; 0 switches a rule off.

    Raises:
        UserError: `keep` below 1, or a folder that cannot be made or written.
    """
    if config.keep < 1:
        raise UserError(f"checkpoint.keep is {config.keep}: at least 1 checkpoint has to be kept")
    return Checkpoints(absolute(folder), config)


class Checkpoints:
    """The checkpoints of one run. In a multi-process run every process calls the same methods."""

    def __init__(self, folder: epath.Path, config: Any):
        self.folder = folder
        self._config = config
        self._saved_at = time.monotonic()
        self._writing: int | None = None
        self._files: Mapping[str, bytes] = {}
        for logger in ("absl", "asyncio"):
            logging.getLogger(logger).addFilter(_not_reported_twice)
        with self._reporting_unwritable_folder():
            folder.mkdir(parents=True, exist_ok=True)
            if jax.process_index() == 0:
                _drop_unreadable_bookkeeping(folder)
            barrier("checkpoint bookkeeping")
            self._manager = ocp.CheckpointManager(folder, options=self._options())

    def _options(self) -> ocp.CheckpointManagerOptions:
        rules: list[policies.PreservationPolicy] = [policies.LatestN(self._config.keep)]
        if self._config.keep_every:
            rules.append(policies.EveryNSteps(self._config.keep_every))
        if self._config.keep_hours:
            rules.append(policies.EveryNSeconds(max(1, round(self._config.keep_hours * 3600))))
        return ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy(rules),
            cleanup_tmp_directories=True,
            async_options=ocp.AsyncOptions(post_finalization_callback=self._complete),
        )

    @property
    def latest_step(self) -> int | None:
        """The newest step in the folder, whole or not; None when there is none."""
        return self._manager.latest_step()

    def due(self, step: int) -> bool:
        """Whether the state after `step` updates is to be saved: by steps or by the clock."""
        every, minutes = self._config.every, self._config.minutes
        return bool(every and step % every == 0) or bool(minutes and self._minutes_passed(step, minutes))

    def _minutes_passed(self, step: int, minutes: float) -> bool:
        passed = time.monotonic() - self._saved_at >= 60 * minutes
        if jax.process_count() == 1:
            return passed
        # Clocks differ and asking the first process stalls the devices: not at every step.
        return step % 10 == 0 and first_process_says(passed)

    def save(self, step: int, state: Any, meta: Mapping[str, Any], files: Mapping[str, bytes] | None = None) -> None:
        """Saves in the background; when it returns, the state's buffers may be donated.

        Saving a step that is already there does nothing: a step determines the state.

        Args:
            step: number of updates done.
            state: a pytree of jax.Arrays.
            meta: plain JSON values: {"config": ..., "versions": ..., "data": ...}.
            files: small ones that belong to it, by their path in its folder.

        Raises:
            UserError: this save or the one before it could not be written.
        """
        with self._reporting_unwritable_folder():
            self._manager.wait_until_finished()
            if step in self._manager.all_steps():
                return
            self._writing, self._files = step, files or {}
            _check_room(self.folder, state)
            item = {"meta": dict(meta), "leaves": _describe(state, _checksums(state))}
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(_nested(_named(state))), meta=ocp.args.JsonSave(item)
                ),
                force=True,
            )
            self._saved_at = time.monotonic()

    def save_and_wait(
        self, step: int, state: Any, meta: Mapping[str, Any], files: Mapping[str, bytes] | None = None
    ) -> None:
        """Saves before the process ends: returns when the checkpoint has its final name.

        A save that Orbax reports as done but whose folder is missing is made again, since nobody will later.
        Raises UserError as `save` does, RuntimeError when the folder is missing even so.
        """
        for _ in range(2):
            self.save(step, state, meta, files)
            self.wait()
            if (self.folder / str(step)).exists():
                return
            self._manager.reload()
        raise RuntimeError(f"checkpoint {step} was written to {self.folder} and is not there")

    def restore(self, abstract_state: State) -> tuple[State, dict[str, Any]] | None:
        """Gives the newest whole checkpoint, or None when the folder holds none at all.

        Damaged ones are reported on stderr and, once a whole one is found, renamed to `damaged-<step>`.

        Args:
            abstract_state: the wanted state as `jax.ShapeDtypeStruct`s with shardings, on any mesh.

        Raises:
            UserError: all are damaged, or the checkpoint is of another architecture.
        """
        damages: dict[int, str] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            restored = self._restore_whole(step, abstract_state, damages)
            if restored is not None:
                self._set_aside(damages, instead=step)
                return restored
        if damages:
            listed = "; ".join(f"checkpoint {step}: {how}" for step, how in damages.items())
            raise UserError(
                f"no checkpoint in {self.folder} is whole ({listed}): "
                "restore the folder from a copy, or train into another --workdir"
            )
        return None

    def _restore_whole(
        self, step: int, abstract_state: State, damages: dict[int, str]
    ) -> tuple[State, dict[str, Any]] | None:
        """Restores `step`, or notes in `damages` what is wrong with it."""
        damage = damaged_files(self.folder / str(step)) if jax.process_index() == 0 else None
        if not first_process_says(damage is None):
            damages[step] = damage or ""
            return None
        item = self._manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]
        _check_architecture(item["leaves"], abstract_state, self.folder / str(step))
        names = _named(abstract_state)
        wanted = ocp.args.Composite(state=ocp.args.StandardRestore(_nested(names)))
        leaves = traverse_util.flatten_dict(self._manager.restore(step, args=wanted)["state"], sep="/")
        state = jax.tree.unflatten(jax.tree.structure(abstract_state), [leaves[name] for name in names])
        checksums = _checksums(state)
        wrong = [name for name, leaf in item["leaves"].items() if checksums[name] != leaf["checksum"]]
        if wrong:
            damages[step] = f"{shortened(wrong)} differ from what was saved"
            return None
        return state, item["meta"]

    def _set_aside(self, damages: Mapping[int, str], *, instead: int) -> None:
        if not damages:
            return
        if jax.process_index() == 0:
            for step, how in damages.items():
                aside = _free_name(self.folder / f"damaged-{step}")
                (self.folder / str(step)).rename(aside)
                print(
                    f"checkpoint {step} in {self.folder} is damaged ({how}): "
                    f"going on from checkpoint {instead}; the damaged one is kept as {aside.name}",
                    file=sys.stderr,
                )
        barrier("damaged checkpoints set aside")
        self._manager.reload()

    def wait(self) -> None:
        """Waits until what was saved is on disk; raises UserError when it could not be written."""
        with self._reporting_unwritable_folder():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits as `wait` does and releases the folder."""
        with self._reporting_unwritable_folder():
            self._manager.close()

    def _complete(self) -> None:
        """Runs in Orbax's thread when its files are written and the folder does not yet have its name."""
        if jax.process_index() != 0:
            return
        # On object stores Orbax writes in place and commits by a file.
        unfinished = sorted(self.folder.glob(f"{self._writing}.orbax-checkpoint-tmp*"))
        path = unfinished[0] if unfinished else self.folder / str(self._writing)
        for name, content in self._files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
        write_hashes(path)

    @contextmanager
    def _reporting_unwritable_folder(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            # tensorstore raises ValueError with the system's words in it, Python's files OSError.
            reason = next((os.strerror(code) for code in UNWRITABLE if os.strerror(code) in str(error)), None)
            if reason is None:
                raise
            warnings.filterwarnings("ignore", message="coroutine .* was never awaited")
            raise UserError(
                f"cannot write checkpoints to {self.folder} ({reason}); {self._last_good()}: "
                "make room or permit writing, then run the same command again"
            ) from error

    def _last_good(self) -> str:
        if jax.process_index() == 0:
            for unfinished in self.folder.glob("*.orbax-checkpoint-tmp*"):
                unfinished.rmtree(missing_ok=True)
        steps = [int(path.name) for path in self.folder.glob("*") if path.name.isdecimal()]
        return f"the last good checkpoint is step {max(steps)}" if steps else "there is no checkpoint yet"


def _check_room(folder: epath.Path, state: Any) -> None:
    """Raises OSError before a save that cannot fit: half-written files would fill the disk for everyone else."""
    if "://" in os.fspath(folder):
        return
    shards = [shard for leaf in jax.tree.leaves(state) for shard in leaf.addressable_shards]
    size = sum(shard.data.nbytes for shard in shards if not shard.replica_id)
    if shutil.disk_usage(folder).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _checksums(state: Any) -> dict[str, int]:
    sums = jax.device_get({name: checksum(leaf) for name, leaf in _named(state).items()})
    return {name: int(value) for name, value in sums.items()}


def _named(tree: Any) -> dict[str, Any]:
    """Leaves by path, "params/blocks/attention/query/kernel", in the tree's order."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _nested(named: Mapping[str, Any]) -> dict[str, Any]:
    """Plain dicts on disk: a renamed class never loses a checkpoint."""
    return traverse_util.unflatten_dict(named, sep="/")


def _describe(state: Any, checksums: Mapping[str, int]) -> dict[str, Any]:
    return {
        name: {"shape": list(leaf.shape), "dtype": str(leaf.dtype), "checksum": checksums[name]}
        for name, leaf in _named(state).items()
    }


def _check_architecture(saved: Mapping[str, Any], abstract_state: Any, path: epath.Path) -> None:
    have = {name: f"{leaf['dtype']}{leaf['shape']}" for name, leaf in saved.items()}
    want = {name: f"{leaf.dtype}{list(leaf.shape)}" for name, leaf in _named(abstract_state).items()}
    if any(map(_is_moment, want)) and not any(map(_is_moment, have)):
        raise UserError(
            f"{path} is a converted model without an optimizer's state, which cannot be resumed: begin a run with it, "
            "--config.init_from=... and another --workdir"
        )
    names = [name for name in {**want, **have} if have.get(name) != want.get(name)]
    # The teacher and the optimizer's moments follow the parameters: naming those is enough.
    names = [name for name in names if name.startswith("params/")] or names
    if names:
        listed = [f"{n}: saved {have.get(n, 'nothing')}, wanted {want.get(n, 'nothing')}" for n in names]
        raise UserError(f"{path} is a checkpoint of another architecture: {shortened(listed)}")


def _is_moment(name: str) -> bool:
    return name.startswith("opt_state/")


def _drop_unreadable_bookkeeping(folder: epath.Path) -> None:
    """Removes step metadata (handlers, times) that would keep Orbax from opening the whole folder.

    Nothing is lost with it: the state has its own sums, and Orbax takes the folder's time instead.
    """
    names = ocp.path.step.standard_name_format()
    for path in folder.glob("*"):
        if path.name.isdecimal():
            try:
                _ = names.find_step(folder, int(path.name)).commit_timestamp
            except Exception:
                (path / COMMIT_FILES[0]).unlink(missing_ok=True)


def _free_name(path: epath.Path) -> epath.Path:
    taken = 1
    free = path
    while free.exists():
        taken += 1
        free = path.with_name(f"{path.name}-{taken}")
    return free


def _not_reported_twice(record: logging.LogRecord) -> bool:
    """Orbax logs what it also raises, with a traceback, and asyncio what failed beside it; we report it once."""
    return "orbax" not in record.pathname and "never retrieved" not in record.getMessage()
