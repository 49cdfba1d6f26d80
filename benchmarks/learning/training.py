"""Trains one arm with the product's own step, on music in memory: crops are drawn on the device."""

import functools
import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from benchmarks.learning.controls import PIECE, with_control, with_other
from benchmarks.learning.settings import Arm, Size, config_of
from benchmarks.learning.store import write_arrays
from musicssl_jax.models.objective import make_objective
from musicssl_jax.shapes import Array, Float, Int, Int16, Shaped
from musicssl_jax.targets.filter_bank import frame_grid
from musicssl_jax.targets.fitting import FitOptions, fit_codebook
from musicssl_jax.targets.front_ends import make_front_end
from musicssl_jax.targets.target_set import TargetSet, target_sets
from musicssl_jax.training.optimizer import make_optimizer, make_schedule
from musicssl_jax.training.state import TrainState
from musicssl_jax.training.step import make_train_step, make_valid_step, sharded_state

STATE = "state.npz"
OTHER_STEPS = 1 << 24
LOG_POINTS = 40
"""Rows of a run's curves, or a few less; each is the mean of the steps since the one before."""


class Tracks(NamedTuple):
    """Music on the device, with silence of a front end's margin around each track; mean and deviation of each."""

    pcm: Int16[Array, "tracks padded"]
    mean: Float[Array, " tracks"]
    std: Float[Array, " tracks"]


class Crops(Protocol):
    """Draws a batch. avoid: of each clip the piece that it must not be of."""

    def __call__(
        self, tracks: Tracks, seed: Any, step: Any, avoid: Int[Array, " B"] | None = None
    ) -> dict[str, Shaped[Array, "1 B ..."]]: ...


class Program(NamedTuple):
    """An arm's compiled functions. margin: that its tracks need. advance: (state, frozen, tracks, seed) -> (state,
    metrics). validate: (state, frozen, tracks, number of a batch) -> metrics. init: seed -> state."""

    config: Any
    objective: Any
    margin: int
    frozen: tuple[TargetSet, ...]
    init: Callable[[int], TrainState]
    advance: Callable
    validate: Callable


def make_program(arm: Arm, size: Size, codebooks: dict[tuple[str, int], np.ndarray], mesh: Mesh) -> Program:
    """codebooks: centroids by front end and number of clusters."""
    config = config_of(arm, size)
    platform = mesh.local_devices[0].platform
    objective = make_objective(config, platform)
    if arm.control:
        objective = with_control(objective, arm.control)
    schedule = make_schedule(config.schedule, config.steps)
    optimizer = make_optimizer(config.optimizer, schedule)
    fronts = front_ends(config)
    labelled = zip(config.targets, config.clusters, strict=True) if fronts else ()
    regressed = [None] if fronts and config.regression else []
    frozen = target_sets(fronts, [*(codebooks[one] for one in labelled), *regressed], mesh)
    margin = max((front.margin for front in fronts), default=0)
    crops = make_crops(config, margin)
    draw = _with_other_crops(crops) if arm.control else crops

    @functools.partial(jax.jit, donate_argnums=0)
    def advance(state, frozen, tracks, seed):
        step = make_train_step(objective, optimizer, schedule, mesh, seed)
        return step(state, frozen, draw(tracks, seed, state.step))

    @jax.jit
    def validate(state, frozen, tracks, number):
        return make_valid_step(objective, mesh, 0)(state, frozen, draw(tracks, 0, number), number)

    return Program(
        config,
        objective,
        margin,
        frozen,
        lambda seed: sharded_state(objective, optimizer, mesh, seed),
        advance,
        validate,
    )


def front_ends(config: Any) -> list:
    """Of the config's label sets, and of what is regressed."""
    if config.objective != "hubert":
        return []
    names = [*config.targets, *filter(None, [config.regression])]
    return [make_front_end(name, **frame_grid(config)._asdict()) for name in names]


def on_device(tracks: Int16[np.ndarray, "tracks samples"], margin: int) -> Tracks:
    """Tracks as crops are drawn from."""
    mean, std = zip(*((track.mean() / 32768, track.std() / 32768) for track in tracks), strict=True)
    pcm = jnp.pad(jax.device_put(tracks), ((0, 0), (margin, margin)))
    return Tracks(pcm, jnp.array(mean, jnp.float32), jnp.array(std, jnp.float32))


def make_crops(config: Any, margin: int) -> Crops:
    """Random crops of random tracks, on the frames' grid, with their margins; which, follows from (seed, step)."""
    clips, hop = config.batch.clips, frame_grid(config).hop
    samples = round(config.data.crop_seconds * config.data.sample_rate)

    def crops(tracks, seed, step, avoid=None):
        key = jax.random.fold_in(jax.random.key(seed), step)
        of_track, of_start, of_draw = jax.random.split(key, 3)
        count, length = tracks.pcm.shape[0], tracks.pcm.shape[1] - 2 * margin
        if avoid is None:
            which = jax.random.randint(of_track, (clips,), 0, count)
        else:  # so many pieces further on: all others are equally likely
            which = (avoid + jax.random.randint(of_track, (clips,), 1, count)) % count
        starts = jax.random.randint(of_start, (clips,), 0, (length - samples) // hop + 1) * hop
        cut = jax.vmap(lambda *at: jax.lax.dynamic_slice(tracks.pcm, at, (1, samples + 2 * margin))[0])(which, starts)
        batch = {
            "audio": cut[:, margin : margin + samples],
            "before": cut[:, :margin],
            "after": cut[:, margin + samples :],
            "real_before": jnp.minimum(starts, margin),
            "real_after": jnp.minimum(length - samples - starts, margin),
            "mean": tracks.mean[which],
            "std": tracks.std[which],
            PIECE: which,
            "row": jnp.arange(clips),
            "weight": jnp.ones(clips),
            "draw": jax.random.bits(of_draw, (clips,)),
        }
        return {name: column[None] for name, column in batch.items()}

    return crops


def _with_other_crops(crops: Crops) -> Callable[[Tracks, Any, Any], dict[str, Array]]:
    """For controls: beside each clip another one, of another piece, drawn by steps that no run comes to. Where there is
    but one piece, of that."""

    def both(tracks, seed, step):
        own = crops(tracks, seed, step)
        return with_other(own, crops(tracks, seed, step + OTHER_STEPS, avoid=own[PIECE][0]))

    return both


def fit_centroids(
    target: str, clusters: int, config: Any, tracks: Int16[np.ndarray, "tracks samples"], mesh: Mesh
) -> tuple[Float[np.ndarray, "K W"], float]:
    """A codebook of a front end, fitted to crops of the tracks as a run of the product fits its own, and the entropy of
    its labels in nats: what guessing by frequency costs."""
    grid = frame_grid(config)
    front = make_front_end(target, **grid._asdict())
    crops = jax.jit(make_crops(config, front.margin))
    music = on_device(tracks, front.margin)

    def batches(first: int) -> Iterator[dict[str, Array]]:
        step = first
        while True:
            yield crops(music, 0, step)
            step += 1

    options = FitOptions(
        batch_frames=4000, frames_per_crop=100, initial_frames=8000, restarts=3, patience=20, max_batches=60
    )
    with closing(batches(0)) as opened:
        fitted = fit_codebook(
            front, lambda _: opened, clusters=clusters, grid=grid, mesh=mesh, options=options, data="musicbox"
        )
    share = fitted.usage / fitted.usage.sum()
    return fitted.centroids, float(-np.sum(share * np.log(np.maximum(share, 1e-30))))


class Point(NamedTuple):
    """A run at one of its points of evaluation, from 0. curve: rows so far. seconds: of training so far."""

    number: int
    step: int
    params: dict
    curve: list[dict[str, float]]
    seconds: float


def train(
    program: Program,
    size: Size,
    seed: int,
    tracks: Tracks,
    held_out: Tracks,
    folder: Path,
    pause: Callable[[], None] = lambda: None,
) -> Iterator[Point]:
    """Trains with this seed, from what the folder holds, and yields at the point it is at and all that follow.

    pause: called after each row of the curve; what it raises ends the run, which goes on from there the next time.
    """
    steps = program.config.steps
    stops, rows_at = _schedule(steps, size.points)
    state = program.init(seed)
    curve: list[dict[str, float]] = []
    seconds = 0.0
    if (folder / STATE).exists():
        state, curve, seconds = _restore(folder, state)
    begun = int(state.step)
    if begun in stops:  # saved, but perhaps not looked at any more
        yield Point(stops.index(begun), begun, state.params, curve, seconds)
    rows: list[dict[str, Array]] = []
    for step in range(begun + 1, steps + 1):
        state, row = program.advance(state, program.frozen, tracks, seed)
        rows.append(row)
        if step == begun + 1:  # the time before is the compiler's
            jax.block_until_ready(row)
            began = time.perf_counter()
        if step not in rows_at:
            continue
        jax.block_until_ready(row)
        seconds += time.perf_counter() - began
        curve.append(_mean_row(step, rows) | _validation(program, size, state, held_out))
        rows = []
        if step in stops:
            _save(folder, state, curve, seconds)
            yield Point(stops.index(step), step, state.params, curve, seconds)
        try:
            pause()
        except BaseException:
            _save(folder, state, curve, seconds)
            raise
        began = time.perf_counter()


def _schedule(steps: int, points: int) -> tuple[list[int], set[int]]:
    """The steps of the points of evaluation, and those of the curve's rows: equally far apart, those among them."""
    between = max(1, min(steps, LOG_POINTS) // (points - 1))
    stops = [round(steps * n / (points - 1)) for n in range(points)]
    rows = (points - 1) * between
    return stops, {round(steps * n / rows) for n in range(1, rows + 1)}


def _mean_row(step: int, rows: list[dict[str, Array]]) -> dict[str, float]:
    found = jax.device_get(rows)
    return {"step": step} | {name: float(np.mean([row[name] for row in found])) for name in found[0]}


def _validation(program: Program, size: Size, state: TrainState, tracks: Tracks) -> dict[str, float]:
    rows = [program.validate(state, program.frozen, tracks, number) for number in range(size.valid_batches)]
    found = jax.device_get(rows)
    return {f"valid/{name}": float(np.mean([row[name] for row in found])) for name in found[0]}


def _save(folder: Path, state: TrainState, curve: list, seconds: float) -> None:
    """The curve goes into the same file, so that the two never part."""
    leaves = {str(n): np.asarray(leaf) for n, leaf in enumerate(jax.tree.leaves(state))}
    write_arrays(folder / STATE, leaves | {"curve": np.array(json.dumps(curve)), "seconds": np.array(seconds)})


def _restore(folder: Path, state: TrainState) -> tuple[TrainState, list, float]:
    with np.load(folder / STATE) as saved:
        like, tree = jax.tree.flatten(state)
        leaves = [jax.device_put(saved[str(n)], leaf.sharding) for n, leaf in enumerate(like)]
        return jax.tree.unflatten(tree, leaves), json.loads(str(saved["curve"])), float(saved["seconds"])
