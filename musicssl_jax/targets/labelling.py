"""Labels of whole tracks: those of consecutive crops, by the functions that label a crop in the train step.

Front ends whose frames hang on the samples around them alone are given real margins, and cutting a track into crops
does not show. A layer of an encoder sees its crop and nothing else: the labels are those of crops of the length that
its codebook was fitted on, and how much they depend on where a crop begins is measured.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing

import grain
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from tqdm import tqdm

from data_pipelines.crops import Crop, read_crops
from data_pipelines.records import Split
from musicssl_jax.shapes import Float, UInt16
from musicssl_jax.targets.codebook import Codebook
from musicssl_jax.targets.filter_bank import FrameGrid
from musicssl_jax.targets.kmeans import ROWS
from musicssl_jax.targets.precomputed import Labels, finish_labels, is_described, missing_shards, write_shard
from musicssl_jax.targets.target_set import TargetSet

CropLabels = UInt16[np.ndarray, "T S"]
Label = Callable[[Split, Iterable[tuple[int, int]]], Iterator[CropLabels]]
"""(split, (number of a track, first sample) of crops) -> labels of each."""

PAIRS = 32  # of overlapping crops that are compared


def crop_labeller(
    sets: Sequence[TargetSet], mesh: Mesh, *, crop_samples: int, margin: int, per_device: int, threads: int
) -> Label:
    """A function that labels crops of a split in all `sets`, `per_device` at once on each device of the mesh.

    `margin`: the largest that a set needs. `threads`: that read ahead. Beyond a track's end there is silence.
    """
    rows = per_device * mesh.size

    def labels(sets, batch):
        return jnp.stack([one.labels(batch) for one in sets], axis=-1).astype(jnp.uint16)

    on_devices = jax.jit(
        jax.shard_map(
            labels,
            mesh=mesh,
            in_specs=(P(), ROWS),
            out_specs=ROWS,
            axis_names=set(mesh.axis_names),
            check_vma=False,
        )
    )

    def label(split: Split, crops: Iterable[tuple[int, int]]) -> Iterator[CropLabels]:
        wanted = [Crop(0, track, start) for track, start in crops]

        def read(number: int):
            chosen = wanted[number * rows :][:rows]
            filled = chosen + chosen[-1:] * (rows - len(chosen))  # one compiled shape
            return read_crops(filled, [split], crop_samples, margin)

        batches = grain.MapDataset.range(-(-len(wanted) // rows)).map(read)
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
        with closing(iter(batches.to_iter_dataset(options))) as ahead:
            for number, batch in enumerate(ahead):
                found = np.asarray(on_devices(tuple(sets), jax.device_put(batch, NamedSharding(mesh, ROWS))))
                yield from found[: len(wanted) - number * rows]

    return label


def windows(samples: int, crop_samples: int, grid: FrameGrid) -> list[int]:
    """First frames of the crops that together hold all frames of a track; the last crop reaches back to be whole."""
    frames, of_crop = grid.count(samples), grid.count(crop_samples)
    return [max(0, min(first, frames - of_crop)) for first in range(0, frames, of_crop)]


def track_labels(
    label: Label,
    split: Split,
    tracks: Sequence[int],
    *,
    sets: int,
    crop_samples: int,
    grid: FrameGrid,
    progress: Callable[[int], object] = lambda _: None,
) -> list[UInt16[np.ndarray, "_ S"]]:
    """Labels of all encoder frames of these tracks. `progress` is told of every crop that is done.

    Where the last crop of a track reaches back, its labels are taken. A track that is shorter than a crop is labelled
    with silence behind it, one that is shorter than a frame has no labels.
    """
    of_tracks, places = [], []
    for row, track in enumerate(tracks):
        samples = int(split.tracks.lengths[track])
        of_tracks.append(np.zeros((max(0, grid.count(samples)), sets), np.uint16))
        places += [(row, first) for first in windows(samples, crop_samples, grid)]
    found = label(split, [(tracks[row], first * grid.hop) for row, first in places])
    for (row, first), labels in zip(places, found, strict=True):
        frames = of_tracks[row][first : first + len(labels)]
        frames[:] = labels[: len(frames)]
        progress(1)
    return of_tracks


def overlap_agreement(
    label: Label, split: Split, *, crop_samples: int, grid: FrameGrid, seed: int, pairs: int = PAIRS
) -> Float[np.ndarray, " S"] | None:
    """The share of equal labels of each set on the frames that two crops have in common which overlap by half.

    `pairs` of random crops, anywhere in the split with equal chances. None: no track is long enough.
    """
    by = grid.count(crop_samples) // 2
    apart = by * grid.hop
    starts = np.maximum(0, (split.tracks.lengths - crop_samples - apart) // grid.hop + 1)
    if not starts.any():
        return None
    ends = np.cumsum(starts)
    drawn = np.random.default_rng(seed).integers(ends[-1], size=pairs)
    tracks = np.searchsorted(ends, drawn, side="right")
    firsts = (drawn - (ends - starts)[tracks]) * grid.hop
    before, after = (
        np.stack(list(label(split, zip(tracks.tolist(), chosen.tolist(), strict=True))))
        for chosen in (firsts, firsts + apart)
    )
    return (before[:, by:] == after[:, : before.shape[1] - by]).mean((0, 1))


def longest(splits: Iterable[Split]) -> Split:
    """The split with the most music."""
    return max(splits, key=lambda split: split.tracks.lengths.sum())


def label_collection(
    labels: Labels,
    label: Label,
    codebooks: Sequence[Codebook],
    *,
    crop_samples: int,
    seed: int,
    say: Callable[[str], None],
) -> None:
    """Computes and writes what is not yet in the folder of `labels`; `codebooks` are those of its sets.

    Raises UserError: the folder holds other labels, cannot be written, or a track cannot be read.
    """
    grid, splits = labels.grid, labels.collection.splits
    described, missing = is_described(labels), missing_shards(labels)
    if described and not missing:
        say(f"{labels.folder}: all labels are there")
        return
    crops = sum(
        len(windows(int(splits[name].tracks.lengths[track]), crop_samples, grid))
        for name, _, tracks in missing
        for track in tracks
    )
    with tqdm(total=crops, desc=labels.folder.name, unit="crop", disable=None) as bar:
        for name, file, tracks in missing:
            values = track_labels(
                label,
                splits[name],
                tracks,
                sets=len(labels.sets),
                crop_samples=crop_samples,
                grid=grid,
                progress=bar.update,
            )
            write_shard(labels, name, file, tracks, values)
    agreement = {}
    equal = overlap_agreement(label, longest(splits.values()), crop_samples=crop_samples, grid=grid, seed=seed)
    if equal is not None:
        agreement = dict(zip([one.name for one in labels.sets], equal.tolist(), strict=True))
        shares = ", ".join(f"{name} {share:.2%}" for name, share in agreement.items())
        say(f"labels that are equal where two crops ({PAIRS} pairs) overlap by half: {shares}")
    finish_labels(labels, codebooks, agreement)
    frames = sum(int(split.frames.sum()) for split in labels.splits.values())
    say(f"{labels.folder}: {frames} frames of {sum(len(s.tracks) for s in labels.splits.values())} tracks")
