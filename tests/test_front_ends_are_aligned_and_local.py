"""Frame i of every front end stands on the encoder's frame i, hears its window alone, and needs only its margins."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from front_end_fixtures import CENTRE, FIELD, HOP, crops, frames_of, front_end, track

from musicssl_jax.models.conv_encoder import frame_count
from musicssl_jax.targets.front_ends import FRONT_ENDS, make_front_end

CONV_LAYERS = ((512, 10, 5), *((512, 3, 2),) * 4, *((512, 2, 2),) * 2)
SAMPLES = 64100
# At the beginning; where the margin before holds less than a front end asks for; with real audio on both sides of
# the longest; near the end; at the end, where 100 samples are left.
STARTS = [0, HOP, 24000, 46720, 48000]

every_front_end = pytest.mark.parametrize("name", FRONT_ENDS)


@every_front_end
@pytest.mark.parametrize("samples", [400, 719, 720, 16123])
def test_there_is_a_frame_for_each_of_the_encoders(name, samples):
    frames = frames_of(front_end(name), track(samples))
    assert frames.shape == (frame_count(samples, CONV_LAYERS), front_end(name).width)
    assert frames.dtype == np.float32


def loudness(name, frames):
    """What grows with a frame's energy. The impulse is so quiet that chroma frames keep a length below 1."""
    if name.startswith("mfcc"):
        return frames[:, 0]
    return np.linalg.norm(frames, axis=1) if name.startswith("chroma") else frames.sum(1)


@every_front_end
def test_an_impulse_in_the_middle_of_an_encoder_frame_peaks_there(name):
    for frame in (0, 20, 49):
        impulse = np.zeros(HOP * 49 + FIELD, np.int16)
        impulse[HOP * frame + CENTRE] = 100
        heard = loudness(name, frames_of(front_end(name), impulse))
        assert heard.argmax() == frame
        assert (heard < heard[frame]).sum() == 49


@every_front_end
def test_a_frame_hears_its_window_and_nothing_else(name):
    features, frame = front_end(name), 60
    audio = track(HOP * 120 + FIELD)
    centres = HOP * np.arange(121) + CENTRE
    clicked = audio.copy()
    clicked[centres[frame]] += 20000
    changed = (frames_of(features, audio) != frames_of(features, clicked)).any(1)
    distance = abs(centres - centres[frame])
    assert not changed[distance > features.window / 2].any()
    assert changed[distance < 0.8 * features.window / 2].all()  # the window is not overstated


@pytest.mark.parametrize("name", ["mfcc39", "mfcc60"])
@pytest.mark.parametrize(
    ("sample", "frames"),
    [(HOP * 9 - 1, [8]), (HOP * 9, [8, 9]), (HOP * 8 + FIELD - 1, [8, 9]), (HOP * 8 + FIELD, [9])],
)
def test_cepstra_hear_exactly_the_receptive_field(name, sample, frames):
    """Those of encoder frame i change with the samples of [320 i, 320 i + 400), first and last included."""
    features, audio = front_end(name), track(8000)
    clicked = audio.copy()
    clicked[sample] += 20000
    changed = frames_of(features, audio) != frames_of(features, clicked)
    assert np.flatnonzero(changed[:, : features.width // 3].any(1)).tolist() == frames


@every_front_end
def test_a_crop_with_margins_has_the_frames_of_the_whole_track(name):
    features, audio, samples = front_end(name), track(SAMPLES), 16000
    whole = frames_of(features, audio)
    for start, frames in zip(STARTS, frames_of(features, audio, STARTS, samples), strict=True):
        same = whole[start // HOP :][: frame_count(samples, CONV_LAYERS)]
        # Bit for bit, but for the order in which a machine adds up.
        np.testing.assert_allclose(frames, same, rtol=0, atol=1e-4, err_msg=f"crop at {start}")


@every_front_end
def test_wider_margins_than_asked_for_change_nothing(name):
    features = front_end(name)
    asked, wider = (crops(track(SAMPLES), STARTS, 8000, features.margin + more) for more in (0, 777))
    expected, got = (jax.jit(features.apply)(features.kernels, batch) for batch in (asked, wider))
    np.testing.assert_array_equal(got, expected)


@every_front_end
def test_rows_stay_on_their_devices(name):
    """The program of a batch spread over eight devices has no communication: an FFT's would."""
    features = make_front_end(name)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows, whole = (jax.NamedSharding(mesh, jax.P(axis)) for axis in ("data", None))
    batch = crops(track(SAMPLES), [HOP] * 8, 4000, features.margin)
    where = (jax.tree.map(lambda _: whole, features.kernels), jax.tree.map(lambda _: rows, batch))
    program = jax.jit(features.apply, in_shardings=where, out_shardings=rows)
    text = program.lower(*jax.tree.map(jnp.asarray, (features.kernels, batch))).compile().as_text()
    assert not [word for word in ("all-gather", "all-reduce", "all-to-all", "collective-permute") if word in text]
