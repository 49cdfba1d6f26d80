"""A codebook for a config's label set: fitted to crops as training has them, judged, and written to its folder."""

import dataclasses
import functools
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import Any

import jax
from etils import epath
from jax.sharding import Mesh
from tqdm import tqdm

from data_pipelines.crops import crop_batches
from data_pipelines.records import Collection
from musicssl_jax.errors import PREEMPTED, TrainingStopped, UserError
from musicssl_jax.parallel import any_process_says, barrier, make_mesh
from musicssl_jax.signals import ANOTHER, stop_signals
from musicssl_jax.targets.codebook import Codebook, save_codebook
from musicssl_jax.targets.features import Batch, Features
from musicssl_jax.targets.filter_bank import frame_grid
from musicssl_jax.targets.fitting import FitOptions, fit_codebook
from musicssl_jax.targets.labelling import crop_labeller, longest, overlap_agreement
from musicssl_jax.targets.layer import FRONT_END, is_layer
from musicssl_jax.targets.target_set import target_sets
from musicssl_jax.training.batches import BatchPlan
from musicssl_jax.training.outlook import duration
from musicssl_jax.training.progress import QUIET_SECONDS
from musicssl_jax.training.step import batch_sharding


def write_codebook(
    config: Any,
    features: Features,
    clusters: int,
    folder: epath.PathLike,
    collections: Sequence[Collection],
    mesh: Mesh,
    say: Callable[[str], None],
) -> None:
    """Fits a codebook on random crops of the config's length and writes its folder; goes on where it was stopped.

    Raises UserError as `fit_codebook` does, and TrainingStopped when SIGTERM or SIGINT comes.
    """
    say(f"codebook: {clusters} clusters of {features.name}, fitted to random frames of the training music")
    options = {name: value for name, value in config.codebook.items() if name != "other_data"}
    folder = epath.Path(folder)
    state_file = folder.with_name(f".{folder.name}.state")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {folder.parent}: {error.strerror}; give another folder") from None
    with stop_signals() as signals:
        with closing(Bar(features.name, say)) as bar:
            codebook = fit_codebook(
                features,
                functools.partial(crops_from, config, collections, mesh, features.margin),
                clusters=clusters,
                grid=frame_grid(config),
                mesh=mesh,
                options=FitOptions(**options, seed=config.seed),
                data=fingerprints(collections),
                crops=_crops_description(config),
                state_file=state_file,
                progress=bar.show,
                signals=signals,
            )
        if is_layer(features) and jax.process_index() == 0:
            codebook = dataclasses.replace(codebook, agreement=_agreement(config, features, codebook, collections))
        publish_codebook(folder, codebook)
        if jax.process_index() == 0:
            state_file.unlink(missing_ok=True)
        say(f"codebook: {folder}, {summary(codebook)}")
        if any_process_says(bool(signals)):
            reason = signals[0] if signals else ANOTHER
            raise TrainingStopped(PREEMPTED, f"{reason}: the codebook {folder} is done; the same command goes on")


def publish_codebook(folder: epath.PathLike, codebook: Codebook) -> None:
    """Writes the folder; when it returns, every process can read it. UserError: it cannot be written."""
    if jax.process_index() == 0:
        save_codebook(folder, codebook)
    barrier(f"codebook {epath.Path(folder).name}")


def summary(codebook: Codebook) -> str:
    """How the fit ended, and how much of a label is the crop's: what a command says of a codebook."""
    batches, empty = len(codebook.inertia_curve), int((codebook.usage == 0).sum())
    parts = [f"{batches} batches", f"inertia {codebook.inertia_curve[-1]:.4g}"]
    parts.append(f"{empty} of {len(codebook.centroids)} clusters empty")
    if codebook.agreement is not None:
        parts.append(f"labels agree on {codebook.agreement:.1%} of frames where two crops overlap by half")
    elif codebook.front_end["front_end"] == FRONT_END:
        parts.append("no track is long enough to see whether overlapping crops agree")
    return ", ".join(parts)


def _agreement(config: Any, features: Features, codebook: Codebook, collections: Sequence[Collection]) -> float | None:
    """Of a layer's labels, whose context ends with the crop. On one device, whatever the others do."""
    mesh = make_mesh(1, 1, jax.local_devices()[:1])
    crop_samples = round(config.data.crop_seconds * config.data.sample_rate)
    with jax.set_mesh(mesh):
        label = crop_labeller(
            target_sets([features], [codebook.centroids], mesh),
            mesh,
            crop_samples=crop_samples,
            margin=features.margin,
            per_device=config.batch.per_device,
            threads=config.data.threads,
        )
        splits = [collection.splits["train"] for collection in collections]
        equal = overlap_agreement(
            label, longest(splits), crop_samples=crop_samples, grid=frame_grid(config), seed=config.seed
        )
    return None if equal is None else float(equal[0])


def _crops_description(config: Any) -> dict[str, Any]:
    """What decides which crops a fit hears, beside the data and the seed."""
    fields = ("weights", "crop_seconds", "crop_grid", "sampling", "normalize")
    return {"clips": config.batch.clips, **{field: config.data[field] for field in fields}}


def crops_from(
    config: Any, collections: Sequence[Collection], mesh: Mesh, margin: int, first: int
) -> Generator[Batch, None, None]:
    """Endless batches of crops as training has them, from batch number `first`, on the devices."""
    plan = BatchPlan(config.batch.clips, config.batch.per_device, batch_sharding(mesh))
    crops = crop_batches(
        collections,
        weights=config.data.weights,
        crop_samples=round(config.data.crop_seconds * config.data.sample_rate),
        grid=config.data.crop_grid,
        sampling=config.data.sampling,
        seed=config.seed,
        clips=config.batch.clips,
        rows=plan.rows,
        first_step=first,
        margin=margin,
        threads=config.data.threads,
    )
    with closing(crops):
        for batch in crops:
            yield plan.arrays(batch)


def fingerprints(collections: Sequence[Collection]) -> list[Any]:
    """What the collections are known by, in a codebook and in a checkpoint."""
    return [collection.fingerprint for collection in collections]


class Bar:
    """How far a fit is: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, name: str, say: Callable[[str], None]):
        self._bar = tqdm(desc=name, unit="batch", disable=None, file=sys.stderr)
        self._say = say
        self._begun = self._said = time.monotonic()

    def show(self, what: str, done: int, most: int) -> None:
        """`done` of at most `most` batches of frames."""
        self._bar.total, self._bar.n = most, done
        self._bar.set_postfix_str(what)
        now = time.monotonic()
        if self._bar.disable and now - self._said > QUIET_SECONDS:
            self._said = now
            left = f", {duration((now - self._begun) / done * (most - done))} left at most" if done else ""
            self._say(f"  batch {done} of at most {most} · {what}{left}")

    def close(self) -> None:
        """Ends the bar."""
        self._bar.close()
