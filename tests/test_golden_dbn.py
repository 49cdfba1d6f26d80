"""Beats are madmom's, of the same activations."""

import mir_eval
import numpy as np
import pytest
from golden_reference import FOLDER

from musicssl_jax.mir.beat_decoding import decode_beats

FILES = sorted(FOLDER.glob("dbn_*.npz"))
FPS = 50


def test_golden_dbn_is_there():
    assert FILES, f"no dbn_*.npz in {FOLDER} (set by MUSICSSL_GOLDEN)"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_golden_dbn_of_every_activation(path):
    with np.load(path) as arrays:
        activations = {name: arrays[name] for name in arrays if name.startswith("activation/")}
        expected = [arrays[name.replace("activation", "beats")] for name in activations]
    assert activations
    for beats, reference in zip(decode_beats(list(activations.values()), FPS), expected, strict=True):
        np.testing.assert_allclose(beats, reference, rtol=0, atol=1 / FPS + 1e-9)
        assert not len(reference) or mir_eval.beat.f_measure(reference, beats, 0.02) == 1
