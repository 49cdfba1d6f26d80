"""`python -m musicssl_jax.cluster`: fits the codebooks of a musicHuBERT config ahead of its training.

    python -m musicssl_jax.cluster --config=configs/musichubert.py:k500 --config.data.path=DATA --output=CODEBOOK

A codebook is a folder: centroids.safetensors, codebook.json (front end, data, settings, inertia curve, usage) and
codebook.png. Of a config with several label sets OUTPUT gets one folder for each. The same command again goes on where
it was stopped. Training takes them by --config.codebooks=FOLDER[,FOLDER]; without, it fits its own.
"""

import sys
from functools import partial

import jax

from musicssl_jax.command import ArgumentParser, run_command
from musicssl_jax.config import load
from musicssl_jax.distributed import distributed_flags, join
from musicssl_jax.errors import UserError
from musicssl_jax.object_store import reach
from musicssl_jax.parallel import first_process_says, make_mesh
from musicssl_jax.programs import keep_programs

DEFAULT = "--config=configs/musichubert.py"


def main(argv: list[str]) -> None:
    """The command."""
    from data_pipelines.crops import tracks_left_out
    from musicssl_jax.targets.codebook import is_there
    from musicssl_jax.targets.new_codebook import summary, write_codebook
    from musicssl_jax.targets.open_targets import make_features, read_codebook
    from musicssl_jax.training.data import open_data

    parser = ArgumentParser(prog="musicssl cluster", description="Fits the codebooks of a musicHuBERT config.")
    parser.add_argument("--output", required=True, help="the codebook's folder, or with several sets the folder of all")
    distributed_flags(parser)
    config, rest = load(argv if any(a.partition("=")[0] == "--config" for a in argv) else [DEFAULT, *argv])
    flags = parser.parse_args(rest)
    output = reach(flags.output, write=True)
    if config.objective != "hubert":
        raise UserError(f"{config.name} has no codebooks: give a musicHuBERT config, such as {DEFAULT}")
    join(flags.distributed, flags.heartbeat)
    keep_programs()
    mesh = make_mesh(config.mesh.data, config.mesh.fsdp)
    with jax.set_mesh(mesh):
        collections = open_data(config)
        tracks_left_out(collections, "train", round(config.data.crop_seconds * config.data.sample_rate))
        say = partial(print, flush=True) if jax.process_index() == 0 else lambda _: None
        fronts = [make_features(target, config) for target in config.targets]
        for features, clusters in zip(fronts, config.clusters, strict=True):
            folder = output if len(fronts) == 1 else output / features.name
            if first_process_says(is_there(folder)):
                codebook = read_codebook(config, features, clusters, folder, collections)
                say(f"codebook: {folder} is there already and fits: {summary(codebook)}")
            else:
                write_codebook(config, features, clusters, folder, collections, mesh, say)


if __name__ == "__main__":
    sys.exit(run_command(main))
