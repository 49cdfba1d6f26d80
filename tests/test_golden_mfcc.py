"""Static MFCCs are Kaldi's, as kaldi-native-fbank computed them."""

import jax
import numpy as np
import pytest
from golden_reference import FOLDER

from musicssl_jax.targets.kaldi import MEL_BANDS, mfcc, mfcc_kernels

FILES = sorted(FOLDER.glob("kaldi_mfcc*.npz"))


def test_golden_mfcc_is_there():
    assert FILES, f"no kaldi_mfcc*.npz in {FOLDER} (set by MUSICSSL_GOLDEN)"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_golden_mfcc_of_every_waveform(path):
    with np.load(path) as arrays:
        pairs = [(arrays[name], arrays[name.replace("waveform", "mfcc")]) for name in arrays if "waveform/" in name]
    assert pairs
    for waveform, expected in pairs:
        kernels = mfcc_kernels(cepstra=expected.shape[1], sample_rate=16000, shift=160, window=400)
        ours = jax.jit(lambda kernels, waveform: mfcc(kernels, waveform, window=400))(kernels, waveform[None])[0]
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-2)
        # The first cepstrum is the mean log energy times sqrt(bands): energies agree to a thousandth.
        np.testing.assert_allclose(ours[:, 0], expected[:, 0], rtol=0, atol=1e-3 * MEL_BANDS**0.5)
