"""Which crop stands where follows from (seed, global example index), on any number of processes, from any step."""

from itertools import islice

import numpy as np
import pytest
from collection_fixtures import noise_tracks, write_collection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_pipelines.crops import crop_batches
from data_pipelines.records import open_collection

TRACKS = noise_tracks([5200, 900, 12_345, 2000, 3000, 700])
OTHERS = noise_tracks([4000, 6100], seed=1)
CROP, GRID = 1500, 20


@pytest.fixture(scope="module")
def collections(tmp_path_factory):
    folder = tmp_path_factory.mktemp("collections")
    return [
        open_collection(write_collection(folder / name, {"train": tracks}))
        for name, tracks in {"first": TRACKS, "second": OTHERS}.items()
    ]


def batches(collections, steps, *, first_step=0, clips=8, rows=None, **options):
    iterator = crop_batches(
        collections,
        crop_samples=CROP,
        grid=GRID,
        clips=clips,
        rows=range(clips) if rows is None else rows,
        first_step=first_step,
        **{"seed": 7} | options,
    )
    taken = list(islice(iterator, steps))
    iterator.close()
    return {key: np.stack([batch[key] for batch in taken]) for key in taken[0]}


def origin(crop, tracks):
    """(track number, start) of a crop of random samples, found by looking for its first 16 bytes."""
    for number, pcm in enumerate(tracks.values()):
        at = pcm.tobytes().find(crop[:8].tobytes())
        if at >= 0:
            np.testing.assert_array_equal(crop, pcm[at // 2 : at // 2 + len(crop)])
            return number, at // 2
    raise AssertionError("the crop is not part of any track")


def assert_same(first, second):
    for key in first:
        np.testing.assert_array_equal(first[key], second[key])


def test_crops_are_the_tracks_samples_on_the_grid_across_records(collections):
    """Records hold 1000 samples and crops 1500: every crop spans two or three."""
    read = batches(collections[:1], 20)
    pcm = list(TRACKS.values())
    for crop, mean, std in zip(read["audio"].reshape(-1, CROP), read["mean"].flat, read["std"].flat, strict=True):
        track, start = origin(crop, TRACKS)
        assert start % GRID == 0
        np.testing.assert_allclose([mean, std], [(pcm[track] / 32768).mean(), (pcm[track] / 32768).std()], 1e-5)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    first_step=st.integers(0, 10**9),
    processes=st.sampled_from([1, 2, 4, 8]),
    threads=st.integers(0, 3),
    sampling=st.sampled_from(["duration", "track"]),
    mixed=st.booleans(),
    order=st.randoms(use_true_random=False),
)
def test_any_split_of_the_rows_gives_the_same_global_batches(
    collections, first_step, processes, threads, sampling, mixed, order
):
    chosen = collections if mixed else collections[:1]
    options = {"first_step": first_step, "sampling": sampling}
    whole = batches(chosen, 2, **options)
    rows = list(range(8))
    order.shuffle(rows)
    for process in range(processes):
        own = rows[process::processes]
        part = batches(chosen, 2, rows=own, threads=threads, **options)
        assert_same({key: values[:, own] for key, values in whole.items()}, part)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first_step=st.integers(0, 8), clips=st.sampled_from([2, 8, 16]), seed=st.integers(0, 2**40))
def test_a_run_resumed_at_any_step_sees_what_it_would_have_seen(collections, first_step, clips, seed):
    """Also with another number of clips: example index counts, not the batch around it."""
    whole = batches(collections, 80 // clips, clips=clips, seed=seed)
    examples = whole["audio"].reshape(-1, CROP)
    resumed = batches(collections, 2, clips=8, first_step=first_step, seed=seed)["audio"].reshape(-1, CROP)
    np.testing.assert_array_equal(resumed, examples[first_step * 8 :][:16])


def test_epochs_and_seeds_differ(collections):
    epoch = sum(len(pcm) for pcm in TRACKS.values() if len(pcm) >= CROP) // CROP
    first, second = np.split(batches(collections[:1], 2, clips=epoch)["audio"], 2)
    other_seed = batches(collections[:1], 1, clips=epoch, seed=8)["audio"]
    starts = [{origin(crop, TRACKS) for crop in part.reshape(-1, CROP)} for part in (first, second, other_seed)]
    assert starts[0] != starts[1]
    assert starts[0] != starts[2]


def test_an_epoch_by_track_takes_every_track_once(collections):
    usable = [n for n, pcm in enumerate(TRACKS.values()) if len(pcm) >= CROP]
    epochs = batches(collections[:1], 5, clips=len(usable), sampling="track")["audio"]
    for epoch in epochs:
        assert sorted(origin(crop, TRACKS)[0] for crop in epoch) == usable


def test_an_epoch_by_duration_visits_tracks_in_proportion_to_their_length(collections):
    lengths = np.array([len(pcm) if len(pcm) >= CROP else 0 for pcm in TRACKS.values()])
    epoch = int(lengths.sum()) // CROP
    epochs = batches(collections[:1], 40, clips=epoch)["audio"]
    visits = [np.bincount([origin(crop, TRACKS)[0] for crop in crops], minlength=len(lengths)) for crops in epochs]
    expected = lengths / lengths.sum() * epoch
    assert np.abs(visits - expected).max() < 2  # in each epoch
    np.testing.assert_allclose(np.mean(visits, 0), expected, atol=0.35)  # over 40


def test_crops_begin_everywhere_in_a_track(collections):
    crops = batches(collections[:1], 60, clips=16)["audio"].reshape(-1, CROP)
    starts = np.array([start for track, start in (origin(crop, TRACKS) for crop in crops) if track == 2])
    last = (12_345 - CROP) // GRID * GRID
    counts, _ = np.histogram(starts, bins=8, range=(0, last))
    assert counts.min() > 0.6 * counts.mean()
    assert starts.max() <= last


def test_weights_are_the_shares_of_clips(collections):
    crops = batches(collections, 40, clips=10, weights=(3.0, 1.0))["audio"].reshape(-1, CROP)
    everything = {**TRACKS, **{f"other {name}": pcm for name, pcm in OTHERS.items()}}
    from_first = np.mean([origin(crop, everything)[0] < len(TRACKS) for crop in crops])
    assert from_first == pytest.approx(0.75, abs=0.01)


def test_margins_are_the_audio_around_the_crop_or_zeros_outside_of_the_track(collections):
    margin = 400
    read = batches(collections[:1], 20, margin=margin)
    plain = batches(collections[:1], 20)
    np.testing.assert_array_equal(read["audio"], plain["audio"])
    pcm = list(TRACKS.values())
    joined = np.concatenate([read["before"], read["audio"], read["after"]], axis=-1).reshape(-1, CROP + 2 * margin)
    cut_short = 0
    for audio, before, after in zip(joined, read["real_before"].flat, read["real_after"].flat, strict=True):
        track, start = origin(audio[margin:-margin], TRACKS)
        padded = np.pad(pcm[track], margin)
        np.testing.assert_array_equal(audio, padded[start : start + CROP + 2 * margin])
        assert before == min(margin, start)
        assert after == min(margin, len(pcm[track]) - start - CROP)
        cut_short += before + after < 2 * margin
    assert cut_short
