"""A collection opens with TFDS, without TensorFlow, and holds the samples that were written."""

import subprocess
import sys

import numpy as np
from collection_fixtures import noise_tracks, write_collection

READ_WITH_TFDS = """
import sys
import numpy as np
import tensorflow_datasets as tfds

folder, output = sys.argv[1:]
source = tfds.builder_from_directory(folder).as_data_source("train")
elements = [source[n] for n in range(len(source))]
assert "tensorflow" not in sys.modules
np.savez(
    output,
    audio=np.concatenate([element["audio"] for element in elements]),
    **{name: np.array([element[name] for element in elements]) for name in elements[0] if name != "audio"},
)
"""


def test_tfds_reads_every_feature_without_tensorflow(tmp_path):
    tracks = noise_tracks([2500, 300, 12_000])
    folder = write_collection(tmp_path / "data", {"train": tracks, "valid": noise_tracks([1000], seed=1)})
    output = tmp_path / "read.npz"
    subprocess.run([sys.executable, "-c", READ_WITH_TFDS, str(folder), str(output)], check=True)

    read = np.load(output)
    np.testing.assert_array_equal(read["audio"], np.concatenate(list(tracks.values())))
    counts = [3, 1, 12]
    assert [name.decode() for name in read["track"].tolist()] == list(np.repeat(list(tracks), counts))
    np.testing.assert_array_equal(read["track_length"], np.repeat([2500, 300, 12_000], counts))
    np.testing.assert_array_equal(read["start"], np.concatenate([np.arange(n) * 1000 for n in counts]))
    means = np.repeat([(pcm / 32768).mean() for pcm in tracks.values()], counts)
    np.testing.assert_allclose(read["mean"], means, rtol=1e-6)
    assert read["audio"].dtype == np.int16
