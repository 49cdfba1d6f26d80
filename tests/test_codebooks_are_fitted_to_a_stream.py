"""A codebook follows from the seed and the stream of crops alone, and a stopped fit goes on as if it had not been."""

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from codebook_fixtures import CLIPS, FRAMES, GRID, SAMPLES, SMALL, band_energies, batches, crop, fit

from musicssl_jax.errors import PREEMPTED, TrainingStopped, UserError
from musicssl_jax.models.encoder import to_float
from musicssl_jax.parallel import make_mesh
from musicssl_jax.targets.fitting import SAVE_EVERY
from musicssl_jax.targets.frame_stream import FrameStream, silent_frames
from musicssl_jax.targets.kmeans import assign


@pytest.fixture(scope="module")
def uninterrupted():
    return fit()


def same(codebook, other) -> bool:
    arrays = [(x.centroids, x.inertia_curve, x.usage) for x in (codebook, other)]
    return all(np.array_equal(a, b) for a, b in zip(*arrays, strict=True))


def stream(crop=crop, features=None, *, position=0, seed=1, per_crop=5, mesh=None, per_device=CLIPS) -> FrameStream:
    mesh = mesh or make_mesh(1, 1)
    opened = batches(mesh, crop=crop, per_device=per_device)(position)
    features = features or band_energies()
    return FrameStream(features, opened, position, grid=GRID, mesh=mesh, per_crop=per_crop, seed=seed)


def every_frame(step: int, row: int) -> np.ndarray:
    features = band_energies()
    return np.asarray(features.apply(features.kernels, {"audio": jnp.asarray(crop(step, row))[None]})[0])


def numbered_frames(steps: int, **how) -> list[tuple[int, int, int]]:
    """(batch, row, number in the crop) of the frames that a stream draws of so many batches."""
    shape = (steps, CLIPS, FRAMES)

    def crop(step, row):
        audio = np.zeros(SAMPLES, np.int16)
        audio[: FRAMES * GRID.hop : GRID.hop] = 1 + np.ravel_multi_index((step, row, np.arange(FRAMES)), shape)
        return audio

    def first_samples(_, batch):
        return to_float(batch["audio"])[:, : FRAMES * GRID.hop : GRID.hop, None]

    frames = stream(crop, band_energies(first_samples), **how).on_host(steps * CLIPS * how["per_crop"])
    return list(zip(*np.unravel_index(np.round(frames[:, 0] * 32768).astype(int) - 1, shape), strict=True))


def test_a_codebook_describes_the_frames(uninterrupted):
    """Its inertia on crops of its own is that of the last batches, and far below the frames' variance."""
    assert uninterrupted.centroids.shape == (8, 5) and uninterrupted.centroids.dtype == np.float32
    frames = np.concatenate([every_frame(1000 + step, row) for step in range(10) for row in range(CLIPS)])
    labels = np.asarray(assign(jnp.asarray(uninterrupted.centroids), jnp.asarray(frames)))
    inertia = ((frames - uninterrupted.centroids[labels]) ** 2).sum(1).mean()
    assert inertia == pytest.approx(uninterrupted.inertia_curve[-5:].mean(), rel=0.15)
    assert inertia < 0.4 * frames.var(0).sum()
    assert uninterrupted.usage.sum() == len(uninterrupted.inertia_curve) * 150
    assert uninterrupted.settings["clusters"] == 8 and uninterrupted.settings["patience"] == SMALL.patience
    assert uninterrupted.data == "some music"


def test_the_same_seed_gives_the_same_codebook_and_another_one_another(uninterrupted):
    assert same(fit(), uninterrupted)
    assert not same(fit(options=dataclasses.replace(SMALL, seed=2)), uninterrupted)


def batches_until(patience: int, curve) -> int:
    """Batches after which the smoothed inertia of a long curve has not improved for so many."""
    smoothed, best, stale = curve[1], curve[1], 0
    for number, inertia in enumerate(curve[2:], start=3):
        smoothed += 2 / (patience + 1) * (inertia - smoothed)
        stale = 0 if smoothed < best else stale + 1
        best = min(best, smoothed)
        if stale == patience:
            return number
    raise AssertionError("the curve is too short")


def test_the_fit_ends_when_patience_does(uninterrupted):
    for patience in (1, 4):
        impatient = fit(options=dataclasses.replace(SMALL, patience=patience))
        count = len(impatient.inertia_curve)
        assert count == batches_until(patience, uninterrupted.inertia_curve) < SMALL.max_batches
        np.testing.assert_array_equal(impatient.inertia_curve, uninterrupted.inertia_curve[:count])
    assert len(fit(options=dataclasses.replace(SMALL, max_batches=3)).inertia_curve) == 3


@pytest.mark.parametrize(("data", "fsdp", "per_device"), [(1, 1, 4), (8, 1, 1), (2, 2, 1)])
def test_devices_and_micro_batches_draw_the_same_frames(data, fsdp, per_device):
    """Also where the batch is filled up: 4 in a micro-batch and 8 devices leave two rows empty.

    To float32's rounding of sums, whose order is the compiler's: it differs with a program's rows and by processor.
    """
    divided = stream(mesh=make_mesh(data, fsdp), per_device=per_device)
    np.testing.assert_allclose(divided.on_host(100), stream().on_host(100), rtol=1e-5, atol=1e-5)
    frames, real = map(np.asarray, divided.on_devices(100))
    expected = stream(position=4).on_host(120)
    assert divided.position == 8 and real.sum() == len(expected) == 120
    np.testing.assert_allclose(np.sort(frames[real], 0), np.sort(expected, 0), rtol=1e-5, atol=1e-5)


def test_eight_devices_fit_the_codebook_of_one(uninterrupted):
    divided = fit(mesh=make_mesh(8, 1), per_device=1)
    count = min(len(divided.inertia_curve), len(uninterrupted.inertia_curve))
    np.testing.assert_allclose(divided.inertia_curve[:count], uninterrupted.inertia_curve[:count], rtol=1e-4)
    assert len(divided.inertia_curve) == len(uninterrupted.inertia_curve)


def test_a_crop_gives_few_frames_and_none_twice():
    found = numbered_frames(40, per_crop=4)
    assert len(set(found)) == len(found) == 40 * CLIPS * 4
    assert np.bincount([number for _, _, number in found], minlength=FRAMES).min() > 0.6 * len(found) / FRAMES
    assert [(step, row) for step, row, _ in found[::4]] == [(s, r) for s in range(40) for r in range(CLIPS)]
    assert len(set(found) & set(numbered_frames(40, per_crop=4, seed=2))) < 0.6 * len(found)
    by_step = np.array([number for _, _, number in found]).reshape(40, -1)
    assert len(np.unique(by_step, axis=0)) == 40
    assert len(stream(per_crop=50).on_host(500)) == 500  # all of a crop, where it is shorter


def test_memory_does_not_grow_with_the_stream():
    """What is alive after a hundred batches is what was alive after ten."""
    frames = stream()

    def alive():
        frames.on_devices(5 * CLIPS)
        return sum(x.nbytes for x in jax.live_arrays())

    sizes = [alive() for _ in range(100)]
    assert sizes[-1] <= sizes[10]


class Killed(Exception):
    pass


@pytest.mark.parametrize("batch", [1, SAVE_EVERY, SAVE_EVERY + 5])
def test_a_stopped_fit_goes_on_bit_for_bit(uninterrupted, tmp_path, batch):
    """Stopped when only the start was saved, as soon as more is, and when newer batches are lost."""
    state_file, opened = tmp_path / "fit", []

    def kill(_, done, __):
        if done == batch:
            raise Killed

    with pytest.raises(Killed):
        fit(state_file=state_file, progress=kill, opened=opened)
    assert same(fit(state_file=state_file, opened=opened), uninterrupted)
    assert opened[1][0] > 0  # it went on, rather than from the start
    assert len(opened) == 2  # both were closed
    assert same(fit(state_file=state_file, opened=opened), uninterrupted)  # finished: nothing is left to do
    assert opened[2][0] == opened[2][1]
    assert os.listdir(tmp_path) == ["fit"]


@pytest.mark.parametrize("when", ["2 batches of crops", "the best of 3 starts", "inertia"])
def test_a_signal_ends_the_fit_with_all_that_was_done(uninterrupted, tmp_path, when):
    """While the start's frames are read, before it is chosen, and between updates."""
    state_file, opened, signals = tmp_path / "fit", [], []

    def progress(what, done, _):
        if what.startswith(when) and done in (0, SAVE_EVERY + 2):
            signals.append("SIGTERM")

    done = SAVE_EVERY + 2 if when == "inertia" else 0
    with pytest.raises(
        TrainingStopped, match=f"SIGTERM: the codebook of bands is kept after {done} of at most"
    ) as stop:
        fit(state_file=state_file, progress=progress, opened=opened, signals=signals)
    assert stop.value.code == PREEMPTED
    assert state_file.exists() == (when != "2 batches of crops")
    curve = []
    again = fit(state_file=state_file, opened=opened, progress=lambda _, done, __: curve.append(done))
    assert same(again, uninterrupted) and curve[0] == done


@pytest.mark.long
def test_a_killed_process_leaves_what_another_goes_on_with(uninterrupted, tmp_path):
    program = f"""
import os, signal, conftest  # the same devices and compiler
from codebook_fixtures import fit
def kill(_, done, __):
    if done == {SAVE_EVERY + 3}:
        os.kill(os.getpid(), signal.SIGKILL)
fit(state_file={str(tmp_path / "fit")!r}, progress=kill)
"""
    tests = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent)])}
    ended = subprocess.run([sys.executable, "-c", program], cwd=tests, env=environment, timeout=300)
    assert ended.returncode == -signal.SIGKILL
    assert same(fit(state_file=tmp_path / "fit"), uninterrupted)


def test_a_state_file_of_another_fit_or_a_damaged_one_is_refused(tmp_path):
    state_file = tmp_path / "fit"
    short = dataclasses.replace(SMALL, max_batches=2)
    fit(state_file=state_file, options=short)
    for change, complaint in [
        ({"clusters": 9}, "clusters 8 instead of 9"),
        ({"data": "other music"}, 'data "some music" instead of "other music"'),
        ({"options": dataclasses.replace(short, restarts=4)}, "restarts 3 instead of 4"),
        ({"features": band_energies(bands=3)}, "front_end"),
    ]:
        with pytest.raises(UserError, match=rf"{state_file} is of another fit: {complaint}.*delete it"):
            fit(state_file=state_file, **{"options": short} | change)
    longer = fit(state_file=state_file, options=dataclasses.replace(SMALL, max_batches=4))
    assert len(longer.inertia_curve) == 4
    stored = bytearray(state_file.read_bytes())
    stored[len(stored) // 2] ^= 1
    state_file.write_bytes(stored)
    with pytest.raises(UserError, match=rf"{state_file} is damaged.*delete it"):
        fit(state_file=state_file)
    with pytest.raises(UserError, match=r"cannot write .*nowhere.*make room"):
        fit(state_file=tmp_path / "nowhere" / "fit", options=short)


def half_silent(step, row):
    """Every third crop is silent, the others begin so."""
    return crop(step, row) * (row % 3 > 0) * (np.arange(SAMPLES) >= SAMPLES // 2).astype(np.int16)


def test_silence_is_not_fitted_on():
    frames = stream(half_silent).on_host(120)
    assert len(frames) == 120 * 2 // 3
    assert (frames[:, -1] > 0).all()  # every frame has a sample that sounds
    codebook = fit(crop=half_silent, options=dataclasses.replace(SMALL, max_batches=3))
    assert codebook.usage.sum() == 3 * 150 * 2 // 3
    silent = silent_frames(jnp.asarray(half_silent(0, 1))[None], GRID)[0]
    first = -(-(SAMPLES // 2 - GRID.receptive_field + 1) // GRID.hop)
    np.testing.assert_array_equal(silent, np.arange(FRAMES) < first)


def test_the_quietest_sample_sounds():
    audio = np.zeros((3, SAMPLES), np.int16)
    audio[0, 700], audio[1, 700] = 1, -1
    silent = np.asarray(silent_frames(jnp.asarray(audio), GRID))
    np.testing.assert_array_equal(~silent, [[n in (1, 2) for n in range(FRAMES)]] * 2 + [[False] * FRAMES])
    np.testing.assert_array_equal(silent_frames(jnp.asarray(audio / 32768, jnp.float32), GRID), silent)


def test_features_that_are_not_finite_are_refused_by_name():
    bands = band_energies()

    def apply(kernels, batch):
        frames = bands.apply(kernels, batch)
        return frames.at[:, 3].set(jnp.where(batch["std"][:, None] == 2, jnp.nan, frames[:, 3]))

    def scaled(step):
        return np.float32(2 if step == 6 else 1)

    mesh = make_mesh(1, 1)
    plain = batches(mesh)
    marked = (batch | {"std": batch["std"] * scaled(step)} for step, batch in enumerate(plain(0)))
    frames = FrameStream(band_energies(apply), marked, 0, grid=GRID, mesh=mesh, per_crop=1, seed=0)
    frames.on_devices(6 * CLIPS)
    with pytest.raises(UserError, match="bands gives NaN or infinite values for a crop of batch 6"):
        frames.on_devices(CLIPS)


def test_rows_that_fill_up_may_be_anything():
    """A batch of 6 crops on 4 devices: the two rows more are zeros, whose logarithm is not finite."""
    features = band_energies(lambda kernels, batch: jnp.log(band_energies().apply(kernels, batch)[..., -1:]))
    frames, real = stream(features=features, mesh=make_mesh(4, 1), per_device=1).on_devices(60)
    assert np.isfinite(frames).all() and real.sum() == 60 < len(frames)


def test_rows_without_weight_are_left_out():
    """Whatever they hold: here half of the crops lose their weight."""
    mesh = make_mesh(1, 1)
    weight = jnp.asarray([[1, 0, 1, 0, 1, 0]], jnp.float32)
    opened = (batch | {"weight": weight} for batch in batches(mesh)(0))
    frames = FrameStream(band_energies(), opened, 0, grid=GRID, mesh=mesh, per_crop=5, seed=1).on_host(60)
    expected = stream().on_host(120).reshape(-1, 5, 5)[::2].reshape(60, 5)
    np.testing.assert_array_equal(frames, expected)


def test_more_clusters_than_frames_is_the_users_error():
    with pytest.raises(UserError, match="201 clusters are more than the 200 frames that they start from"):
        fit(clusters=201)
    for clusters, crops, complaint in [
        (141, half_silent, r"141 clusters .* 140 different frames of bands .*140 of 200 are not digital silence"),
        (8, lambda *_: np.zeros(SAMPLES, np.int16), r"0 different frames .*0 of 200 are not digital silence"),
        (8, lambda *_: np.full(SAMPLES, 77, np.int16), r"1 different frames .*200 of 200 are not digital silence"),
    ]:
        with pytest.raises(UserError, match=complaint):
            fit(clusters=clusters, crop=crops)
    with pytest.raises(UserError, match="a crop of 399 samples is shorter than a frame"):
        fit(crop=lambda step, row: crop(step, row)[:399])
