"""`python -m musicssl_jax.label`: labels of whole tracks, computed once, for targets that are dear.

    python -m musicssl_jax.label --config=configs/musichubert.py:k500 --config.data.path=DATA \
        --config.codebooks=CODEBOOK --output=LABELS

Training then reads them: --config.labels=LABELS. Of several data paths each has its own folder, separated by commas
here as there. The same command again goes on where it was stopped.
"""

import sys
from functools import partial
from pathlib import Path

import jax

from musicssl_jax.command import ArgumentParser, run_command
from musicssl_jax.config import load
from musicssl_jax.errors import UserError
from musicssl_jax.parallel import make_mesh

DEFAULT = "--config=configs/musichubert.py"


def main(argv: list[str]) -> None:
    """The command."""
    from musicssl_jax.targets.codebook import codebook_id
    from musicssl_jax.targets.filter_bank import frame_grid
    from musicssl_jax.targets.labelling import crop_labeller, label_collection
    from musicssl_jax.targets.open_targets import (
        codebook_folders,
        make_features,
        read_codebook,
    )
    from musicssl_jax.targets.precomputed import LabelSet, new_labels
    from musicssl_jax.targets.target_set import target_sets
    from musicssl_jax.training.data import open_data

    parser = ArgumentParser(prog="musicssl label", description="Computes the labels of a musicHuBERT config's data.")
    parser.add_argument("--output", required=True, help="a folder for each path of config.data.path")
    config, rest = load(argv if any(a.partition("=")[0] == "--config" for a in argv) else [DEFAULT, *argv])
    folders = parser.parse_args(rest).output.split(",")
    if config.objective != "hubert":
        raise UserError(f"{config.name} has no labels: give a musicHuBERT config, such as {DEFAULT}")
    if not config.codebooks:
        raise UserError("config.codebooks is empty: give --config.codebooks=FOLDER, which `musicssl cluster` makes")
    paths = config.data.path.split(",")
    if len(folders) != len(paths):
        raise UserError(f"--output has {len(folders)} folders for {len(paths)} paths in config.data.path")
    mesh = make_mesh(config.mesh.data, config.mesh.fsdp)
    with jax.set_mesh(mesh):
        collections = open_data(config)
        fronts = [make_features(target, config) for target in config.targets]
        codebooks = [
            read_codebook(config, features, clusters, folder, collections)
            for features, clusters, folder in zip(
                fronts, config.clusters, codebook_folders(config, Path()), strict=True
            )
        ]
        sets = [
            LabelSet(features.name, len(codebook.centroids), codebook_id(codebook), codebook.front_end)
            for features, codebook in zip(fronts, codebooks, strict=True)
        ]
        crop_samples = round(config.data.crop_seconds * config.data.sample_rate)
        label = crop_labeller(
            target_sets(fronts, [codebook.centroids for codebook in codebooks], mesh),
            mesh,
            crop_samples=crop_samples,
            margin=max(features.margin for features in fronts),
            per_device=config.batch.per_device,
            threads=config.data.threads,
        )
        say = partial(print, flush=True)
        for folder, collection in zip(folders, collections, strict=True):
            labels = new_labels(folder, sets, collection, frame_grid(config))
            label_collection(labels, label, codebooks, crop_samples=crop_samples, seed=config.seed, say=say)


if __name__ == "__main__":
    sys.exit(run_command(main))
