"""From a config to label sets: front ends built, codebooks read or fitted; or labels of files opened."""

import functools
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from tqdm import tqdm

from data_pipelines.crops import Place, crop_batches
from data_pipelines.records import Collection
from musicssl_jax.errors import UserError
from musicssl_jax.models.conv_encoder import hop_and_receptive_field
from musicssl_jax.parallel import barrier, first_process_says
from musicssl_jax.targets.codebook import Codebook, check_fits, codebook_id, load_codebook, save_codebook
from musicssl_jax.targets.features import Batch, Features
from musicssl_jax.targets.filter_bank import FrameGrid
from musicssl_jax.targets.fitting import FitOptions, fit_codebook
from musicssl_jax.targets.front_ends import make_front_end
from musicssl_jax.targets.layer import layer_features
from musicssl_jax.targets.names import parse_layer, set_name
from musicssl_jax.targets.precomputed import Labels, label_reader, open_labels
from musicssl_jax.targets.target_set import TargetSet
from musicssl_jax.training.batches import BatchPlan
from musicssl_jax.training.outlook import duration
from musicssl_jax.training.progress import QUIET_SECONDS
from musicssl_jax.training.step import batch_sharding

FOLDER = "codebooks"
"""Where a run keeps the codebooks that it fitted itself."""


class Targets(NamedTuple):
    """What a musicHuBERT run predicts; empty for objectives that need no label sets.

    sets: for the step's `frozen` argument. margin: samples that they need on both sides of a crop. ids: of the
    codebooks, which a resumed run has to find again. codebooks: that a checkpoint keeps. read_labels: `annotate` of
    `crop_batches`, where labels are not computed in the step but read.
    """

    sets: tuple[TargetSet, ...] = ()
    margin: int = 0
    ids: tuple[str, ...] = ()
    codebooks: tuple[Codebook, ...] = ()
    read_labels: Callable[[Sequence[Place]], dict[str, np.ndarray]] | None = None


def front_ends_of(config: Any) -> list[Features]:
    """What the config's label sets are of, then what is regressed; nothing where there are no label sets.

    Raises UserError: a layer's run is missing or does not suit. Nothing is written.
    """
    if config.objective != "hubert":
        return []
    return [make_features(target, config) for target in (*config.targets, *filter(None, [config.regression]))]


def open_targets(
    config: Any,
    front_ends: Sequence[Features],
    workdir: Path,
    collections: Sequence[Collection],
    mesh: Mesh,
    say: Callable[[str], None],
    *,
    saved: Sequence[Codebook] = (),
) -> Targets:
    """The label sets of `front_ends_of` the config.

    Codebooks that neither it nor the run's folder has are taken from those `saved` in the run's checkpoint, or fitted.
    Raises UserError: a codebook or precomputed labels that are damaged, or of another front end, checkpoint, frame
    rate, number of clusters or data; whatever keeps a codebook from being fitted.
    """
    if not front_ends:
        return Targets()
    fronts, regressed = front_ends[: len(config.targets)], front_ends[len(config.targets) :]
    warn_of_wide_windows(config, fronts, say)
    if config.labels:
        labels, grid = open_label_folders(config, fronts, collections), frame_grid(config)
        frames = grid.count(round(config.data.crop_seconds * config.data.sample_rate))
        return Targets(
            target_sets(regressed, [None] * len(regressed), mesh),
            max((features.margin for features in regressed), default=0),
            labels[0].codebooks,
            read_labels=label_reader(labels, frames=frames, hop=grid.hop),
        )
    folders = codebook_folders(config, workdir)
    saved_as = dict(zip(folders, saved, strict=False))  # none of a fresh run, or of other targets
    codebooks = []
    for features, clusters, folder in zip(fronts, config.clusters, folders, strict=True):
        if not config.codebooks and first_process_says(not folder.exists()):
            if folder in saved_as:
                say(f"codebook: {folder} is missing and is put back from the run's checkpoint")
                publish_codebook(folder, saved_as[folder])
            else:
                write_codebook(config, features, clusters, folder, collections, mesh, say)
        codebooks.append(read_codebook(config, features, clusters, folder, collections))
    centroids = [codebook.centroids for codebook in codebooks] + [None] * len(regressed)
    return Targets(
        target_sets([*fronts, *regressed], centroids, mesh),
        max(features.margin for features in [*fronts, *regressed]),
        tuple(map(codebook_id, codebooks)),
        tuple(codebooks),
    )


def target_sets(fronts: Sequence[Features], centroids: Sequence[Any], mesh: Mesh) -> tuple[TargetSet, ...]:
    """Front ends and the centroids of their codebooks, None for what is regressed, on all devices."""
    sets = tuple(TargetSet(f.kernels, c, f.apply) for f, c in zip(fronts, centroids, strict=True))
    return jax.device_put(sets, NamedSharding(mesh, P()))


def open_label_folders(config: Any, fronts: Sequence[Features], collections: Sequence[Collection]) -> list[Labels]:
    """The precomputed labels of each collection.

    Raises UserError as `open_labels` does, and when codebooks differ: among these, or from `config.codebooks`.
    """
    targets = list(zip(fronts, config.clusters, strict=True))
    folders = config.labels.split(",")
    opened = [open_labels(f, c, targets, frame_grid(config)) for f, c in zip(folders, collections, strict=True)]
    first = opened[0]
    for labels in opened[1:]:
        if labels.codebooks != first.codebooks:
            raise UserError(f"the labels {first.folder} and {labels.folder} are of different codebooks: make both anew")
    if config.codebooks:
        given = tuple(codebook_id(load_codebook(folder)) for folder in config.codebooks.split(","))
        if given != first.codebooks:
            raise UserError(
                f"the labels {first.folder} are of other codebooks than config.codebooks={config.codebooks}: make "
                "labels with these, or leave config.codebooks empty"
            )
    return opened


def make_features(target: str, config: Any) -> Features:
    """The front end that a config's target names, on the frames of the config's encoder."""
    grid = frame_grid(config)
    layer = parse_layer(target)
    if layer is None:
        return make_front_end(target, **grid._asdict())
    if not layer.checkpoint:
        raise UserError(
            f"config.targets={target}: name the run of the first iteration, --config.targets=layer:{layer.layer}@RUN"
        )
    return layer_features(layer, grid, crop=round(config.data.crop_seconds * config.data.sample_rate))


def frame_grid(config: Any) -> FrameGrid:
    """Where the frames of the config's encoder lie."""
    return FrameGrid(config.data.sample_rate, *hop_and_receptive_field(config.model.conv_layers))


def codebook_folders(config: Any, workdir: Path) -> list[Path]:
    """Where the codebook of each label set is, or is going to be."""
    if config.codebooks:
        return [Path(folder).expanduser() for folder in config.codebooks.split(",")]
    return [
        workdir / FOLDER / f"{set_name(target)}_k{clusters}"
        for target, clusters in zip(config.targets, config.clusters, strict=True)
    ]


def read_codebook(
    config: Any, features: Features, clusters: int, folder: Path, collections: Sequence[Collection]
) -> Codebook:
    """The codebook in the folder. UserError: it is damaged, of another front end or size, or of other data."""
    codebook = load_codebook(folder)
    check_fits(codebook, features, clusters, folder)
    check_data(config, codebook, folder, collections)
    return codebook


def write_codebook(
    config: Any,
    features: Features,
    clusters: int,
    folder: Path,
    collections: Sequence[Collection],
    mesh: Mesh,
    say: Callable[[str], None],
) -> None:
    """Fits a codebook on random crops of the config's length and writes its folder; goes on where it was stopped."""
    say(f"codebook: {clusters} clusters of {features.name}, fitted to random frames of the training music")
    options = {name: value for name, value in config.codebook.items() if name != "other_data"}
    state_file = folder.with_name(f".{folder.name}.state")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {folder.parent}: {error.strerror}; give another folder") from None
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
        )
    publish_codebook(folder, codebook)
    if jax.process_index() == 0:
        state_file.unlink(missing_ok=True)
    empty = int((codebook.usage == 0).sum())
    say(
        f"codebook: {folder}, {len(codebook.inertia_curve)} batches, inertia {codebook.inertia_curve[-1]:.4g}, "
        f"{empty} of {clusters} clusters empty"
    )


def publish_codebook(folder: Path, codebook: Codebook) -> None:
    """Writes the folder; when it returns, every process can read it. UserError: it cannot be written."""
    if jax.process_index() == 0:
        save_codebook(folder, codebook)
    barrier(f"codebook {folder.name}")


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


def check_data(config: Any, codebook: Codebook, folder: Path, collections: Sequence[Collection]) -> None:
    """UserError: the codebook was fitted to other music, and the config does not say that this is meant."""
    if codebook.data != fingerprints(collections) and not config.codebook.other_data:
        raise UserError(
            f"the codebook {folder} was fitted on other data than {config.data.path}: fit one to it, or, if this is "
            "meant, --config.codebook.other_data=true"
        )


def warn_of_wide_windows(config: Any, fronts: Sequence[Features], say: Callable[[str], None]) -> None:
    """Says which front ends see around a masked span: their labels can be copied from what is seen."""
    grid = frame_grid(config)
    span = (config.mask.length - 1) * grid.hop + grid.receptive_field
    for target, features in zip(config.targets, fronts, strict=True):
        if features.window > span and not parse_layer(target):
            say(
                f"note: {features.name} looks at {features.window / config.data.sample_rate:.3g} s, more than the "
                f"{span / config.data.sample_rate:.3g} s of a masked span: part of its labels can be guessed from the "
                "frames beside; a longer mask.length hides more"
            )


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
