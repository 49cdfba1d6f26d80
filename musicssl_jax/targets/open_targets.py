"""From a config to label sets: front ends built, codebooks read or fitted; or labels of files opened."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from jax.sharding import Mesh

from data_pipelines.crops import Place
from data_pipelines.records import Collection
from musicssl_jax.errors import UserError
from musicssl_jax.parallel import first_process_says
from musicssl_jax.targets.codebook import Codebook, check_fits, codebook_id, is_there, load_codebook
from musicssl_jax.targets.features import Features
from musicssl_jax.targets.filter_bank import frame_grid
from musicssl_jax.targets.front_ends import make_front_end
from musicssl_jax.targets.layer import layer_features
from musicssl_jax.targets.names import parse_layer, set_name
from musicssl_jax.targets.new_codebook import fingerprints, publish_codebook, write_codebook
from musicssl_jax.targets.precomputed import Labels, codebooks_of, label_reader, open_labels
from musicssl_jax.targets.target_set import TargetSet, target_sets

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
    workdir: epath.PathLike,
    collections: Sequence[Collection],
    mesh: Mesh,
    say: Callable[[str], None],
    *,
    saved: Sequence[Codebook] = (),
) -> Targets:
    """The label sets of `front_ends_of` the config.

    Codebooks that neither it nor the run's folder has are taken from those `saved` with the parameters that the run
    goes on from or begins with, or fitted.
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
            tuple(codebooks_of(labels[0])),
            label_reader(labels, frames=frames, hop=grid.hop),
        )
    folders = codebook_folders(config, workdir)
    saved_as = dict(zip(folders, saved, strict=False))  # none of a fresh run, or of other targets
    codebooks = []
    for features, clusters, folder in zip(fronts, config.clusters, folders, strict=True):
        if not config.codebooks and first_process_says(not is_there(folder)):
            if folder in saved_as:
                check_fits(saved_as[folder], features, clusters, folder)
                check_data(config, saved_as[folder], folder, collections)
                say(f"codebook: {folder} is missing and is put back as it came with the parameters")
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


def codebook_folders(config: Any, workdir: epath.PathLike) -> list[epath.Path]:
    """Where the codebook of each label set is, or is going to be."""
    if config.codebooks:
        return [epath.Path(folder).expanduser() for folder in config.codebooks.split(",")]
    return [
        epath.Path(workdir) / FOLDER / f"{set_name(target)}_k{clusters}"
        for target, clusters in zip(config.targets, config.clusters, strict=True)
    ]


def read_codebook(
    config: Any, features: Features, clusters: int, folder: epath.PathLike, collections: Sequence[Collection]
) -> Codebook:
    """The codebook in the folder. UserError: it is damaged, of another front end or size, or of other data."""
    codebook = load_codebook(folder)
    check_fits(codebook, features, clusters, folder)
    check_data(config, codebook, folder, collections)
    return codebook


def check_data(config: Any, codebook: Codebook, folder: epath.PathLike, collections: Sequence[Collection]) -> None:
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
