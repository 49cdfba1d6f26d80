"""What all arms share: the music, the questions that it answers, codebooks; and whose folder this is."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from benchmarks.learning.experiment import CODEBOOKS, MADE, MUSIC, PROBED, SETTINGS, Experiment
from benchmarks.learning.folders import Line, drawn, listed, lists, read
from benchmarks.learning.labels import OF_PROBING, OF_TRAINING, Reader
from benchmarks.learning.music import (
    PROBED_SEEDS,
    TRAINING_SEED,
    UNHEARD,
    VALIDATION_SEED,
    folder_pieces,
    rendered,
    training_tracks,
)
from benchmarks.learning.questions import Asked, ask, described
from benchmarks.learning.settings import Arm, arms, config_of
from benchmarks.learning.store import once, read_arrays, write_arrays, write_whole
from benchmarks.learning.training import fit_centroids
from musicssl_jax.errors import UserError
from musicssl_jax.parallel import make_mesh


class Material(NamedTuple):
    """All that arms share. heard: how many of the tracks that are probed are trained on."""

    training: np.ndarray
    validation: np.ndarray
    waveforms: list[np.ndarray]
    asked: dict[str, Asked]
    codebooks: dict[tuple[str, int], np.ndarray]
    guessing: dict[tuple[str, int], float]
    heard: int = 0


def claim(experiment: Experiment) -> None:
    """Writes what the folder is of. UserError: as `refuse_others`."""
    refuse_others(experiment)
    write_whole(experiment.folder / SETTINGS, _described(experiment).encode())


def refuse_others(experiment: Experiment) -> None:
    """UserError: the folder is of another experiment, or nobody knows of which: its files would be mixed with these."""
    file = experiment.folder / SETTINGS
    if not file.exists():
        unclaimed = [name for name in MADE if (experiment.folder / name).exists()]
        if unclaimed:
            raise UserError(
                f"{experiment.folder} holds {', '.join(unclaimed)}, and no {SETTINGS} that says of which experiment: "
                "delete them, or give another --workdir"
            )
    elif file.read_text() != _described(experiment):
        raise UserError(
            f"{experiment.folder} holds an experiment of another size, or on other music ({file}): give another "
            "--workdir"
        )


def _described(experiment: Experiment) -> str:
    size = {name: value for name, value in vars(experiment.size).items() if name not in ("seeds", "chosen")}
    described = {"size": size, "tracks": experiment.tracks}
    for name in ("train_on", "probe_on"):
        described[name] = _identity(getattr(experiment, name), experiment.max_tracks)
    return json.dumps(described, indent=1)


def _identity(folder: Path | None, max_tracks: int | None) -> str:
    """Of a folder's music: where it is, what its lists say, and how much of it is used."""
    if folder is None:
        return "musicbox"
    content = hashlib.sha256(b"".join(path.name.encode() + path.read_bytes() for path in lists(folder)))
    return f"{folder.resolve()}, lists {content.hexdigest()[:12]}, {max_tracks or 'all'} tracks"


def prepare(experiment: Experiment, say: Callable[[str], None]) -> Material:
    """Renders or reads the music and fits the codebooks, unless the folder holds them."""
    rate = experiment.grid.sample_rate
    began = time.monotonic()
    refuse_others(experiment)
    experiment.pause()
    _make_music(experiment, say)
    probed, tracks = (read_arrays(experiment.folder / name) for name in (PROBED, MUSIC))
    waveforms = np.split(probed["samples"], np.cumsum(probed["lengths"])[:-1])
    asked = ask(json.loads(str(probed["truths"])), (probed["lengths"] / rate).tolist(), say=say)
    for one in asked.values():
        say(described(one))
    say(
        f"music: {_hours(tracks['training'], rate):.2f} h to train on; {len(waveforms)} tracks to probe, "
        f"{probed['samples'].nbytes / 1e9:.2g} GB of memory in each process"
    )
    books, entropies = {}, {}
    for target, clusters in _label_sets(experiment.arms):
        experiment.pause()
        book = once(
            experiment.folder / CODEBOOKS / f"{target}, {clusters}.npz",
            partial(_codebook, experiment, target, clusters, tracks["training"], say),
        )
        books[target, clusters], entropies[target, clusters] = book["centroids"], float(book["entropy"])
    say(f"prepared in {time.monotonic() - began:.0f} s")
    heard = int(tracks.get("heard", 0))
    return Material(tracks["training"], tracks["validation"], waveforms, asked, books, entropies, heard)


def _make_music(experiment: Experiment, say: Callable[[str], None]) -> None:
    """What the folder does not hold yet.

    Nothing is written before all of it is there and the folder is claimed: a command that ends in between leaves
    nothing that another experiment could take for its own.
    """
    missing = [name for name in (PROBED, MUSIC) if not (experiment.folder / name).exists()]
    if not missing:
        return
    # Lists are short: their faults are found before hours of music are read or rendered.
    of_training = _lines(experiment, experiment.train_on, OF_TRAINING, say)
    of_probing = _lines(experiment, experiment.probe_on, OF_PROBING, say)
    makers = {
        PROBED: partial(_probed, experiment, of_probing),
        MUSIC: partial(_training, experiment, of_training, of_probing, say),
    }
    made = {name: makers[name]() for name in missing}
    claim(experiment)
    for name, arrays in made.items():
        write_arrays(experiment.folder / name, arrays)


def _lines(
    experiment: Experiment, folder: Path | None, readers: Mapping[str, Reader], say: Callable[[str], None]
) -> list[Line]:
    """Of a folder of one's own; none of musicbox."""
    if folder is None:
        return []
    lines = listed(folder, readers)
    if experiment.max_tracks is None or len(lines) <= experiment.max_tracks:
        return lines
    used = drawn(lines, experiment.max_tracks)
    if not used:
        raise UserError(f"--max_tracks={experiment.max_tracks}: each group of {folder} has more tracks than that")
    say(f"{folder}: {len(used)} of {len(lines)} tracks are used, drawn by lot in whole groups")
    return used


def _probed(experiment: Experiment, lines: list[Line]) -> dict[str, np.ndarray]:
    """UserError: there is no question that the tracks of the folder answer."""
    size, rate = experiment.size, experiment.grid.sample_rate
    tracks = (
        read(lines, rate, size.probed_seconds)
        if experiment.probe_on
        else rendered(PROBED_SEEDS[experiment.tracks], size.probed, size.probed_seconds, rate, UNHEARD)
    )
    waveforms, truths = zip(*tracks, strict=True)
    lengths = np.array([len(waveform) for waveform in waveforms])
    reasons: list[str] = []
    if not ask(truths, (lengths / rate).tolist(), say=reasons.append):
        raise UserError(f"{experiment.probe_on}: its tracks answer no question: {'; '.join(reasons)}")
    return {"samples": np.concatenate(waveforms), "lengths": lengths, "truths": np.array(json.dumps(truths))}


def _training(
    experiment: Experiment, of_training: list[Line], of_probing: list[Line], say: Callable[[str], None]
) -> dict[str, np.ndarray]:
    """heard: how many of the tracks that are probed are among the files to train on."""
    size, rate = experiment.size, experiment.grid.sample_rate
    if experiment.train_on:
        # Of all arms, for some may be added later.
        longest_crop = max(config_of(arm, size).data.crop_seconds for arm in arms(size))
        heard = {line.file for line in of_training} & {line.file for line in of_probing}
        pieces = folder_pieces(experiment.train_on, of_training, rate, size.track_seconds, longest_crop, say)
        return pieces | {"heard": np.array(len(heard))}
    held_out = max(4, size.tracks // 10)
    return {
        "training": training_tracks(TRAINING_SEED, size.tracks, size.track_seconds, rate),
        "validation": training_tracks(VALIDATION_SEED, held_out, size.track_seconds, rate),
    }


def _label_sets(arms: Sequence[Arm]) -> list[tuple[str, int]]:
    """(front end, clusters) of all arms."""
    return sorted({one for arm in arms for one in zip(arm.targets, arm.clusters, strict=True)})


def _hours(tracks: np.ndarray, rate: int) -> float:
    return tracks.size / rate / 3600


def _codebook(
    experiment: Experiment, target: str, clusters: int, tracks: np.ndarray, say: Callable[[str], None]
) -> dict[str, np.ndarray]:
    say(f"codebook: {clusters} clusters of {target}")
    [arm, *_] = [arm for arm in experiment.arms if target in arm.targets]
    mesh = make_mesh(1, 1)
    with jax.set_mesh(mesh):
        centroids, entropy = fit_centroids(target, clusters, config_of(arm, experiment.size), tracks, mesh)
    return {"centroids": centroids, "entropy": np.array(entropy)}
