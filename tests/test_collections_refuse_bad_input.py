"""Missing, truncated, damaged, mismatched collections: a UserError that says what, where and what to do."""

import json
import re
import shutil
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from collection_fixtures import noise_tracks, records_of, write_collection

from data_pipelines.crops import crop_batches, tracks_left_out
from data_pipelines.records import RecordWriter, open_collection
from musicssl_jax.errors import UserError

TRACKS = noise_tracks([20_000, 12_000, 30_000])


@pytest.fixture
def folder(tmp_path):
    return write_collection(tmp_path / "data", {"train": TRACKS, "valid": {}}, record_samples=8000)


def first_shard(folder: Path) -> Path:
    return sorted(folder.glob("music-train*"))[0]


def crops(collections, **options):
    return crop_batches(collections, **{"crop_samples": 1000, "seed": 0, "clips": 4, "rows": range(4)} | options)


def test_what_is_written_is_what_is_read(folder):
    split = open_collection(folder).splits["train"]
    assert len(split.shards) > 1
    for track, pcm in enumerate(TRACKS.values()):
        out = np.empty(len(pcm) - 5, np.int16)
        split.read(track, 5, out)
        np.testing.assert_array_equal(out, pcm[5:])


def test_the_fingerprint_follows_the_content(folder, tmp_path):
    same = write_collection(tmp_path / "same", {"train": TRACKS, "valid": {}}, record_samples=8000)
    louder = {name: pcm // 2 for name, pcm in TRACKS.items()}
    other = write_collection(tmp_path / "other", {"train": louder, "valid": {}}, record_samples=8000)
    prints = [open_collection(path).fingerprint for path in (folder, same, other)]
    assert prints[0] == prints[1]
    assert prints[0] != prints[2]
    assert json.loads(json.dumps(prints[0])) == prints[0]
    assert open_collection(folder).hours("train") == pytest.approx(62_000 / 16_000 / 3600)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"nowhere: no such folder"):
        open_collection(tmp_path / "nowhere")


def test_a_folder_that_is_no_collection(tmp_path):
    with pytest.raises(UserError, match=r"not a built collection.*data_pipelines\.build"):
        open_collection(tmp_path)


def test_a_collection_of_another_version(folder):
    path = folder / "collection.json"
    path.write_text(path.read_text().replace('"version": 1', '"version": 99'))
    with pytest.raises(UserError, match=r"version 99.*rebuild"):
        open_collection(folder)


@pytest.mark.parametrize("name", ["collection.json", "tracks-train.npz"])
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_a_truncated_description(folder, name, keep):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(UserError, match=rf"{name}.* is damaged .*rebuild"):
        open_collection(folder)


def test_a_missing_shard_is_named_before_anything_is_read(folder):
    shard = first_shard(folder)
    shard.unlink()
    with pytest.raises(UserError, match=rf"{shard.name} is missing"):
        open_collection(folder)


def test_a_truncated_shard_is_named_before_anything_is_read(folder):
    shard = first_shard(folder)
    shard.write_bytes(shard.read_bytes()[:-7])
    with pytest.raises(UserError, match=rf"{shard.name} has \d+ bytes instead of \d+: it is truncated"):
        open_collection(folder)


def test_a_shard_of_another_build_with_the_same_size(folder, tmp_path):
    renamed = {f"x{name[1:]}": pcm for name, pcm in TRACKS.items()}
    other = write_collection(tmp_path / "renamed", {"train": renamed, "valid": {}}, record_samples=8000)
    shutil.copy(first_shard(other), first_shard(folder))
    with pytest.raises(UserError, match=rf"record 0 of shard .*{first_shard(folder).name}.*not sample 0 of track"):
        open_collection(folder).splits["train"].read(0, 0, np.empty(10, np.int16))


def test_another_sample_rate_than_asked_for(folder):
    with pytest.raises(UserError, match=r"16000 Hz, not at 24000.*--sample_rate=24000"):
        open_collection(folder, sample_rate=24_000)


def test_collections_of_different_sample_rates(folder, tmp_path):
    other = write_collection(tmp_path / "other", {"train": TRACKS}, sample_rate=24_000)
    with pytest.raises(UserError, match=r"16000 Hz and .*other at 24000"):
        crops([open_collection(folder), open_collection(other)])


def test_a_crop_longer_than_any_track_names_the_longest(folder):
    with pytest.raises(UserError, match=r"a crop of 2 s is longer than every track of .*data.*1\.875 s"):
        crops([open_collection(folder)], crop_samples=32_000)


def test_tracks_shorter_than_the_crop_are_left_out_and_counted(folder):
    collection = open_collection(folder)
    assert tracks_left_out([collection], "train", 20_000) == 1
    batch = next(crops([collection], crop_samples=20_000))
    assert batch["audio"].shape == (4, 20_000)


@pytest.mark.parametrize("split", ["valid", "test"])
def test_an_empty_split(folder, split):
    with pytest.raises(UserError, match=f"no tracks in split '{split}'"):
        crops([open_collection(folder)], split=split)


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.0,), (-1.0,)])
def test_weights_that_do_not_fit(folder, weights):
    with pytest.raises(UserError, match=r"data\.weights must be 1 positive"):
        crops([open_collection(folder)], weights=weights)


def test_records_out_of_order_are_not_written(tmp_path):
    records = records_of("track", np.arange(3000, dtype=np.int16), 1000)

    def write_without_the_second():
        with RecordWriter(tmp_path / "data", "train") as writer:
            writer.write(records[0])
            writer.write(records[2])

    with pytest.raises(ValueError, match="track, 2000"):
        write_without_the_second()
    assert not list((tmp_path / "data").iterdir())


def test_an_unwritable_output(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"), RecordWriter(tmp_path / "file" / "data", "train"):
        pass


# In a process of its own: a reader that crashes or hangs on damaged bytes must fail the test, not the suite.
READ_DAMAGED = """
import sys
from itertools import islice
from pathlib import Path

import numpy as np

sys.path[:0] = [sys.argv[2], str(Path(sys.argv[2]).parent)]
from collection_fixtures import noise_tracks
from data_pipelines.records import open_collection
from musicssl_jax.errors import UserError

folder = Path(sys.argv[1])
tracks = list(noise_tracks([60_000, 45_000]).values())
shard = next(folder.glob("music-train*"))
intact = shard.read_bytes()
used = max(n for n, byte in enumerate(intact) if byte)  # the rest pads the last block
rng = np.random.default_rng(0)


def outcome():
    split = open_collection(folder).splits["train"]
    try:
        for number, pcm in enumerate(tracks):
            out = np.empty_like(pcm)
            split.read(number, 0, out)
            assert (out == pcm).all(), "damaged audio was returned"
    except UserError as error:
        assert shard.name in str(error) and "record" in str(error) and "\\n" not in str(error), str(error)
        return "refused"
    return "intact"


def flipped(position):
    damaged = bytearray(intact)
    damaged[position] ^= 1 << int(rng.integers(8))
    return damaged


samples = 2 * sum(map(len, tracks))
block_headers = [block + n for block in range(65536, samples, 65536) for n in range(24)]
for position in block_headers + rng.integers(64, samples, 150).tolist():
    shard.write_bytes(flipped(position))
    assert outcome() == "refused", position

file_header = list(range(64))
footer = [n for n in range(used - 2000, used + 1) if intact[n]][-300:]
for position in file_header + footer + rng.integers(samples, len(intact), 50).tolist():
    shard.write_bytes(flipped(position))
    outcome()  # some of these bytes are never read

for begin in rng.integers(0, samples - 5000, 20):  # blocks that never reached the disk
    shard.write_bytes(intact[:begin] + bytes(5000) + intact[begin + 5000 :])
    assert outcome() == "refused", begin
shard.write_bytes(bytes(len(intact)))
assert outcome() == "refused"
"""


def test_no_flipped_bit_yields_wrong_audio_a_crash_or_a_hang(tmp_path):
    tracks = noise_tracks([60_000, 45_000])
    folder = write_collection(tmp_path / "data", {"train": tracks}, record_samples=16_000, shard_bytes=10**9)
    command = [sys.executable, "-c", READ_DAMAGED, str(folder), str(Path(__file__).parent)]
    subprocess.run(command, check=True, timeout=120)


@pytest.mark.parametrize("threads", [0, 2])
def test_damage_met_while_training_reaches_the_loop_as_one_line(folder, threads):
    """Through Grain's reading threads, after the collection was opened."""
    collection = open_collection(folder)
    shard = first_shard(folder)
    content = bytearray(shard.read_bytes())
    content[5000] ^= 4
    shard.write_bytes(content)
    batches = crops([collection], threads=threads)
    with pytest.raises(UserError) as refusal:
        list(islice(batches, 100))
    batches.close()
    assert re.fullmatch(rf"record 0 of shard .*{shard.name} cannot be read .*rebuild.*", str(refusal.value))
