"""Fits a codebook to a front end's frames of random crops: a stream, of which nothing is kept but the centroids."""

import dataclasses
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from musicssl_jax.errors import PREEMPTED, TrainingStopped, UserError, shortened
from musicssl_jax.object_store import is_remote
from musicssl_jax.parallel import any_process_says
from musicssl_jax.signals import ANOTHER
from musicssl_jax.targets.codebook import Codebook, differences, front_end_of
from musicssl_jax.targets.features import Batch, Features
from musicssl_jax.targets.filter_bank import FrameGrid
from musicssl_jax.targets.frame_stream import FrameStream
from musicssl_jax.targets.kmeans import KMeansState, initial_state, make_update, starts

SAVE_EVERY = 10  # batches of frames between two saves of the state

Progress = Callable[[str, int, int], None]
"""(what is being done, how much is done, of how much at most)"""


@dataclasses.dataclass(frozen=True)
class FitOptions:
    """How k-means is fitted; the defaults are the reference's (scikit-learn's MiniBatchKMeans as HuBERT calls it)."""

    batch_frames: int = 10_000
    """Frames of an update, rounded up to whole batches of crops."""
    frames_per_crop: int = 20
    """At most so many random frames of a crop: 10,000 frames are all of 7 crops of 30 s."""
    initial_frames: int = 30_000
    """Frames that the start is chosen from."""
    restarts: int = 20
    """Starts of which the best is taken."""
    reassignment_ratio: float = 0.0
    """Centroids with fewer frames than this share of the most used one's are put elsewhere; 0: never."""
    patience: int = 100
    """Batches without improvement of the smoothed inertia after which the fit ends."""
    max_batches: int = 2000
    """Batches after which it ends in any case."""
    seed: int = 0

    @property
    def smoothing(self) -> float:
        """Weight of a batch in the smoothed inertia.

        scikit-learn takes 2 * batch / (n + 1), an average over about one pass through its n frames. A stream has no
        n: this averages over as many batches as `patience` waits for, as scikit-learn with n = patience * batch.
        """
        return 2 / (self.patience + 1)


class Batches(Iterator[Batch], Protocol):
    """An endless iterator of batches of crops."""

    def close(self) -> None:
        """Ends its threads."""


class Fit(NamedTuple):
    """A fit that is under way."""

    state: KMeansState
    position: int
    """Number of the next batch of crops."""
    curve: list[float]
    """Inertia of each batch of frames so far."""


def fit_codebook(
    features: Features,
    open_batches: Callable[[int], Batches],
    *,
    clusters: int,
    grid: FrameGrid,
    mesh: Mesh,
    options: FitOptions,
    data: Any,
    crops: Any = None,
    state_file: str | os.PathLike | None = None,
    progress: Progress = lambda *_: None,
    signals: Sequence[str] = (),
) -> Codebook:
    """Clusters the frames that `features` makes of random crops.

    Frames whose own samples are all digital silence are not fitted on: collections are full of them, and all are one
    point, which would be given a centroid and a share of every batch. They are labelled like any other frame.

    Args:
        features: the front end.
        open_batches: number of the first batch -> batches of crops, as `BatchPlan.arrays` makes them on this mesh.
        clusters: K.
        grid: where the encoder's frames lie.
        mesh: the devices that share the work.
        options: of k-means and of how frames are drawn.
        data: fingerprint of the collections, any JSON value.
        crops: what decides which crops the batches are of, any JSON value: a fit goes on with the same ones only.
        state_file: where the fit is saved now and then. If it is there, the fit goes on from it, on as many devices
            with the same result to the bit. It is left there: delete it when the codebook is safe.
        progress: told whenever something is done.
        signals: names of those that ask it to end, which may come while it fits.

    Raises:
        TrainingStopped: there is a signal; what was fitted is in the state file.
        UserError: more clusters than frames that they start from, or than differ among these; a front end that gives
            NaN; a state file that is damaged, of another fit, or cannot be written.
    """
    if clusters > options.initial_frames:
        raise UserError(
            f"{clusters} clusters are more than the {options.initial_frames} frames that they start from: "
            "ask for fewer clusters, or raise initial_frames"
        )
    described = {"front_end": front_end_of(features), "data": data}
    settings = {"clusters": clusters, **dataclasses.asdict(options), "crops": crops}
    file = epath.Path(state_file) if state_file else None
    fit = read_fit(file, described | settings) if file and file.exists() else None
    position, curve = (fit.position, fit.curve) if fit else (0, [])

    def told(batches):
        for number, batch in enumerate(batches, position + 1):
            if any_process_says(bool(signals)):
                raise _Interrupted
            progress(f"{number} batches of crops", len(curve), options.max_batches)
            yield batch

    def save(fit):
        if file and jax.process_index() == 0:
            write_fit(file, jax.device_get(fit), described | settings)

    with closing(open_batches(position)) as batches:
        try:
            stream = FrameStream(
                features,
                told(batches),
                position,
                grid=grid,
                mesh=mesh,
                per_crop=options.frames_per_crop,
                seed=options.seed,
            )
            start = fit.state if fit else _start(stream, features, clusters, options, progress)
            for fit in _fits(start, stream, curve, mesh, options):
                if len(curve) % SAVE_EVERY == 0:
                    save(fit)
                progress(f"inertia {curve[-1]:.5g}" if curve else "started", len(curve), options.max_batches)
        except _Interrupted:
            if fit:
                save(fit)
            raise TrainingStopped(
                PREEMPTED,
                f"{signals[0] if signals else ANOTHER}: the codebook of {features.name} is kept after {len(curve)} of "
                f"at most {options.max_batches} batches; the same command goes on",
            ) from None
        assert fit  # there is one at least
        save(fit)
    return Codebook(
        centroids=np.asarray(fit.state.centroids),
        **described,
        settings=settings,
        inertia_curve=np.asarray(curve, np.float32),
        usage=np.asarray(fit.state.counts),
    )


class _Interrupted(Exception):
    """A signal came between two batches of crops."""


def _start(
    stream: FrameStream, features: Features, clusters: int, options: FitOptions, progress: Progress
) -> KMeansState:
    """The best of the starts. UserError: there are not as many frames as clusters to start from."""
    frames = stream.on_host(options.initial_frames)
    different = len(np.unique(frames, axis=0))
    if clusters > different:
        raise UserError(
            f"{clusters} clusters are more than the {different} different frames of {features.name} that they start "
            f"from ({len(frames)} of {options.initial_frames} are not digital silence): ask for fewer clusters, raise "
            "initial_frames, or take more music"
        )
    progress(f"the best of {options.restarts} starts", 0, options.max_batches)
    key = jax.random.key(options.seed)
    return initial_state(starts(key, jnp.asarray(frames), clusters=clusters, restarts=options.restarts)[0])


def _fits(
    state: KMeansState, stream: FrameStream, curve: list[float], mesh: Mesh, options: FitOptions
) -> Iterator[Fit]:
    """The fit as it begins and after each batch of frames, until patience or the batches are at an end.

    `curve` grows by every batch's inertia.
    """
    update = make_update(
        mesh, smoothing=options.smoothing, reassignment_ratio=options.reassignment_ratio, seed=options.seed
    )
    state = jax.device_put(state, NamedSharding(mesh, P()))
    yield Fit(state, stream.position, curve)
    while len(curve) < options.max_batches and state.stale < options.patience:
        state, inertia = update(state, *stream.on_devices(options.batch_frames))
        curve.append(float(inertia))
        yield Fit(state, stream.position, curve)


def write_fit(path: epath.PathLike, fit: Fit, settings: Mapping[str, Any]) -> None:
    """Keeps a fit: 32 bytes of SHA-256, then an npz file. UserError: it cannot be written."""
    content = io.BytesIO()
    np.savez(content, position=fit.position, curve=fit.curve, settings=json.dumps(settings), **fit.state._asdict())
    path = epath.Path(path)
    # In an object store a file is there whole or not at all.
    unfinished = path if is_remote(path) else path.with_name(f".{path.name}.unfinished")
    try:
        unfinished.write_bytes(hashlib.sha256(content.getbuffer()).digest() + content.getbuffer())
        if unfinished != path:
            unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise UserError(f"cannot write {path} ({error.strerror}): make room or permit writing") from error


def read_fit(path: epath.PathLike, settings: Mapping[str, Any]) -> Fit:
    """What `write_fit` kept. UserError: the file is damaged, or of a fit with other settings.

    `max_batches` may have changed.
    """
    stored = epath.Path(path).read_bytes()
    if hashlib.sha256(stored[32:]).digest() != stored[:32]:
        raise UserError(f"{path} is damaged (other SHA-256): delete it to begin again")
    with np.load(io.BytesIO(stored[32:])) as arrays:
        fit = Fit(
            KMeansState(*(arrays[name] for name in KMeansState._fields)),
            int(arrays["position"]),
            arrays["curve"].tolist(),
        )
        before = json.loads(str(arrays["settings"]))
    now = json.loads(json.dumps(settings)) | {"max_batches": before["max_batches"]}
    if changed := differences(before, now):
        raise UserError(f"{path} is of another fit: {shortened(changed)}; delete it to begin again")
    return fit
