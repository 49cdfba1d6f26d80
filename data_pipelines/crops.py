"""Batches of random crops of a collection's tracks, as a function of the step.

Which crop of which track stands in row r of step s follows from (seed, s * clips + r) alone: never from the
process that builds it, nor from where the run was resumed. Every process builds the rows that it needs.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import grain
import numpy as np

from data_pipelines.records import Collection, Split
from musicssl_jax.errors import UserError
from musicssl_jax.shapes import Float, Int

Sampling = Literal["duration", "track"]
Batch = dict[str, np.ndarray]


class Crop(NamedTuple):
    """The crop that begins at sample `start` of track number `track` of split number `source`."""

    source: int
    track: int
    start: int


class Place(NamedTuple):
    """The same, told by the `build_id` of the collection and the name of its split."""

    collection: str
    split: str
    track: int
    start: int


class _Layout(NamedTuple):
    """The tracks long enough for a crop, where each ends when laid end to end, how many crops begin in it."""

    tracks: Int[np.ndarray, " usable"]
    ends: Float[np.ndarray, " usable"]
    starts: Int[np.ndarray, " usable"]


def crop_batches(
    collections: Sequence[Collection],
    *,
    split: str = "train",
    weights: Sequence[float] = (),
    crop_samples: int,
    grid: int = 320,
    sampling: Sampling = "duration",
    seed: int,
    clips: int,
    rows: Sequence[int],
    first_step: int = 0,
    margin: int = 0,
    annotate: Callable[[Sequence[Place]], Batch] | None = None,
    threads: int = 2,
) -> grain.DatasetIterator[Batch]:
    """Endless iterator over the batches of steps `first_step`, `first_step + 1`, ...

    `.close()` ends its threads; it holds about `threads` + 1 batches (0 threads: it reads when asked).

    A batch has the given `rows` of the step's `clips` crops, as `read_crops` reads them, and what `annotate` has to
    say of their places: more arrays (rows, ...) by name. It is called from several threads.

    Crops begin at multiples of `grid` samples of their track. An epoch of sampling "duration" visits tracks
    in proportion to their lengths and spreads a track's crops over it; one of "track" takes one crop of every
    track. `weights` are the shares of clips from each collection; by default all tracks count as one
    collection. Tracks shorter than a crop are left out (`tracks_left_out` counts them).

    Raises UserError where the collections' sample rates differ, the split is missing or empty, no track is
    long enough, or weights do not fit; the iterator raises it for a damaged record.
    """
    splits = _checked_splits(collections, split, crop_samples)
    order = _order(splits, weights, crop_samples, grid, sampling, seed)

    def batch(step: int) -> Batch:
        crops = [order[step * clips + row] for row in rows]
        read = read_crops(crops, splits, crop_samples, margin)
        if annotate:
            read |= annotate(
                [Place(collections[crop.source].build_id, split, crop.track, crop.start) for crop in crops]
            )
        return read

    steps = grain.MapDataset.range(first_step, sys.maxsize).map(batch)
    return iter(steps.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)))


def tracks_left_out(collections: Sequence[Collection], split: str, crop_samples: int) -> int:
    """How many tracks of the split are shorter than a crop. Raises UserError as `crop_batches` does for the data."""
    splits = _checked_splits(collections, split, crop_samples)
    return sum(int((s.tracks.lengths < crop_samples).sum()) for s in splits)


def _checked_splits(collections: Sequence[Collection], name: str, crop_samples: int) -> list[Split]:
    first = collections[0]
    for other in collections[1:]:
        if other.sample_rate != first.sample_rate:
            raise UserError(
                f"{first.folder} is sampled at {first.sample_rate} Hz and {other.folder} at "
                f"{other.sample_rate}: rebuild one of them"
            )
    splits = [_split(collection, name) for collection in collections]
    for collection, split in zip(collections, splits, strict=True):
        longest = split.tracks.lengths.max()
        if longest < crop_samples:
            raise UserError(
                f"a crop of {crop_samples / collection.sample_rate:g} s is longer than every track of "
                f"{collection.folder} (the longest has {longest / collection.sample_rate:g} s): "
                "set a shorter data.crop_seconds"
            )
    return splits


def _split(collection: Collection, name: str) -> Split:
    if name not in collection.splits or not collection.splits[name].tracks.ids:
        raise UserError(f"{collection.folder} has no tracks in split {name!r}: build it from more tracks")
    return collection.splits[name]


def _order(
    splits: Sequence[Split],
    weights: Sequence[float],
    crop_samples: int,
    grid: int,
    sampling: Sampling,
    seed: int,
) -> grain.MapDataset[Crop]:
    """Global example index -> crop."""
    layouts = [_layout(split.tracks.lengths, crop_samples, grid) for split in splits]
    epochs = [len(x.tracks) if sampling == "track" else int(x.ends[-1]) // crop_samples for x in layouts]
    shares = list(weights) or epochs
    if len(shares) != len(splits) or min(shares) <= 0:
        raise UserError(
            f"data.weights must be {len(splits)} positive numbers, one for each of data.path, and is {tuple(weights)}"
        )
    orders = []
    for source, (layout, epoch) in enumerate(zip(layouts, epochs, strict=True)):
        own_seed = int(np.random.SeedSequence([seed, source]).generate_state(1)[0])
        slots = grain.MapDataset.range(epoch).seed(own_seed).shuffle().repeat()
        orders.append(slots.random_map(_place(source, layout, epoch, grid, sampling)))
    return orders[0] if len(orders) == 1 else grain.MapDataset.mix(orders, shares)


def _layout(lengths: np.ndarray, crop_samples: int, grid: int) -> _Layout:
    tracks = np.flatnonzero(lengths >= crop_samples)
    usable = lengths[tracks]
    return _Layout(tracks, np.cumsum(usable, dtype=np.float64), (usable - crop_samples) // grid + 1)


def _place(
    source: int, layout: _Layout, epoch: int, grid: int, sampling: Sampling
) -> Callable[[int, np.random.Generator], Crop]:
    """(slot of an epoch, randomness) -> crop.

    By duration, the tracks laid end to end are divided into as many equal slots as crops fit; a slot's crop
    is where a uniformly drawn point of it falls: in which track, and how far into it.
    """
    tracks, ends, starts = layout
    slot_samples = ends[-1] / epoch

    def place(slot: int, rng: np.random.Generator) -> Crop:
        if sampling == "track":
            row, fraction = slot, rng.random()
        else:
            point = min((slot + rng.random()) * slot_samples, np.nextafter(ends[-1], 0))
            row = int(np.searchsorted(ends, point, side="right"))
            begin = ends[row - 1] if row else 0.0
            fraction = (point - begin) / (ends[row] - begin)
        return Crop(source, int(tracks[row]), int(fraction * starts[row]) * grid)

    return place


def read_crops(crops: Sequence[Crop], splits: Sequence[Split], crop_samples: int, margin: int) -> Batch:
    """The audio of crops, and their tracks' statistics.

    "audio" int16 (rows, crop_samples), and "mean" and "std" float32 (rows,) of each crop's whole track, as a waveform
    in [-1, 1]. With a `margin`, also "before" and "after" int16 (rows, margin), what the track has on both sides of
    the crop, and "real_before" and "real_after" int32 (rows,), how many samples of these are the track's. All is zeros
    beyond the track; of a crop that itself reaches beyond its end, "real_after" is negative by as many samples.

    Raises UserError for a damaged record.
    """
    size = crop_samples + 2 * margin
    audio = np.empty((len(crops), size), np.int16)
    mean, std = np.empty((2, len(crops)), np.float32)
    real_before, real_after = np.empty((2, len(crops)), np.int32)
    for row, (source, track, start) in enumerate(crops):
        tracks = splits[source].tracks
        before = min(margin, start)
        after = min(margin, int(tracks.lengths[track]) - start - crop_samples)
        first, last = margin - before, size - margin + after
        real_before[row], real_after[row] = before, after
        audio[row, :first] = 0
        audio[row, last:] = 0
        splits[source].read(track, start - before, audio[row, first:last])
        mean[row], std[row] = tracks.means[track], tracks.stds[track]
    batch: Batch = {"audio": audio[:, margin : size - margin], "mean": mean, "std": std}
    if margin:
        batch |= {"before": audio[:, :margin], "after": audio[:, size - margin :]}
        batch |= {"real_before": real_before, "real_after": real_after}
    return batch
