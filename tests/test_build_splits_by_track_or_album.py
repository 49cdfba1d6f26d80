"""Which track is held out follows from its name (or album) and the seed, whatever else is in the folder."""

import csv
import json

import pytest
from audio_fixtures import build_ok, lines, read_tracks, run_build, sound, write_audio, write_music
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.audio_files import Rejected
from data_pipelines.decode import Decoded
from data_pipelines.plan import Settings, arrange, plan_parts
from data_pipelines.sources import Source


def plan(names: list[str], **fields) -> dict[str, list[str]]:
    """Split -> track names in record order, of one-second tracks."""
    options = Settings(sample_rate=1000, **fields)
    order = arrange([Source(name, name, name.rpartition("/")[0], 0, 0) for name in names], options)
    splits: dict[str, list[str]] = {"train": [], "valid": []}
    for part in plan_parts([(source, decoded(source.track)) for source in order], options):
        splits[part.split] += [track.source.track for track in part.tracks]
    return splits


def decoded(name: str) -> Decoded:
    return Decoded(1000, 0.0, 0.1, 0.5, 0.0, f"digest of {name}", 1000, 1, "WAV PCM_16")


tracks = st.sets(st.builds("album{}/song{}".format, st.integers(0, 9), st.integers(0, 99)), min_size=2)


@settings(deadline=None)
@given(names=tracks, more=tracks, seed=st.integers(0, 3), split_by=st.sampled_from(["track", "album"]))
def test_no_track_changes_sides_when_others_come(names, more, seed, split_by):
    """But for the ones that stand in where the draw left a split of a small collection empty."""
    options = {"seed": seed, "valid_fraction": 0.3, "split_by": split_by}
    before, after = plan(sorted(names), **options), plan(sorted(names | more), **options)
    group = (lambda name: name.partition("/")[0]) if split_by == "album" else (lambda name: name)
    stand_ins = set()
    for splits in (before, after):
        in_order = [group(name) for name in splits["valid"] + splits["train"]]
        stand_ins |= {in_order[0], in_order[-1]}
    for split, other in (("train", "valid"), ("valid", "train")):
        moved = set(before[split]) & set(after[other])
        assert {group(name) for name in moved} <= stand_ins


@settings(deadline=None)
@given(names=tracks, seed=st.integers(0, 9), fraction=st.sampled_from([0.01, 0.5, 0.99]))
def test_two_tracks_or_more_give_both_splits(names, seed, fraction):
    splits = plan(sorted(names), seed=seed, valid_fraction=fraction)
    assert splits["train"]
    assert splits["valid"]
    assert sorted(splits["train"] + splits["valid"]) == sorted(names)


def test_of_many_tracks_the_asked_share_is_held_out():
    splits = plan([f"song{number}" for number in range(20_000)], valid_fraction=0.05)
    assert len(splits["valid"]) == pytest.approx(1000, rel=0.1)


def test_one_track_trains_and_no_share_holds_out_none():
    assert plan(["a"]) == {"train": ["a"], "valid": []}
    assert plan(["a", "b", "c"], valid_fraction=0.0)["valid"] == []


def test_rejects_and_duplicates_leave_the_split_of_the_rest():
    names = [f"song{number}" for number in range(200)]
    options = Settings(sample_rate=1000, valid_fraction=0.2)
    order = arrange([Source(name, name, "", 0, 0) for name in names], options)
    whole = plan(names, valid_fraction=0.2)
    outcomes = [(s, Rejected("silent", "") if index % 3 == 0 else decoded(s.track)) for index, s in enumerate(order)]
    for part in plan_parts(outcomes, options):
        assert {track.source.track for track in part.tracks} <= set(whole[part.split])


def test_albums_stay_together(tmp_path):
    music = write_music(tmp_path / "music", 12)
    build_ok(f"--input={music}", f"--output={tmp_path / 'out'}", "--split_by=album", "--valid_fraction=0.4")
    found = {split: list(read_tracks(tmp_path / "out", split)) for split in ("train", "valid")}
    names = [str(path.relative_to(music)) for path in music.rglob("*.wav")]
    assert found == plan(names, split_by="album", valid_fraction=0.4)
    sides = [{name.partition("/")[0] for name in of_split} for of_split in found.values()]
    assert all(sides)
    assert not sides[0] & sides[1]


def test_another_seed_gives_another_order_and_split():
    names = [f"song{number}" for number in range(50)]
    first, second = (plan(names, seed=seed, valid_fraction=0.2) for seed in (0, 1))
    assert set(first["valid"]) != set(second["valid"])
    assert first["train"] != sorted(first["train"])


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_manifest_names_files_ids_and_albums(tmp_path, kind):
    music = write_music(tmp_path / "music", 6)
    rows = [
        {"path": f"album{n % 3}/song{n}.wav", "id": f"track {n}", "album": "one" if n < 3 else "two"} for n in range(5)
    ]
    manifest = tmp_path / f"list.{kind}"
    with open(manifest, "w", newline="") as file:
        if kind == "csv":
            writer = csv.DictWriter(file, ["path", "id", "album"])
            writer.writeheader()
            writer.writerows(rows)
        else:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "ids.txt").write_text("track 4\nnot there\n")
    out = tmp_path / "out"
    command = (f"--manifest={manifest}", f"--input={music}", f"--output={out}", "--split_by=album")
    assert "1 of 5 files excluded" in build_ok(*command, f"--exclude={tmp_path / 'ids.txt'}")
    sides = [set(read_tracks(out, split)) for split in ("train", "valid")]
    assert sorted(map(sorted, sides)) == [["track 0", "track 1", "track 2"], ["track 3"]]


def test_a_manifest_line_that_is_wrong_is_named(tmp_path):
    write_audio(tmp_path / "a.wav", sound(1))
    (tmp_path / "list.jsonl").write_text('{"path": "a.wav"}\n\n{"file": "b.wav"}\n')
    done = run_build(f"--manifest={tmp_path / 'list.jsonl'}", f"--output={tmp_path / 'out'}")
    assert done.returncode == 2
    assert "list.jsonl:3: no `path`" in done.stderr
    (tmp_path / "list.jsonl").write_text('{"path": "a.wav"}\n{"audio_path": "gone.wav"}\n')
    build_ok(f"--manifest={tmp_path / 'list.jsonl'}", f"--output={tmp_path / 'out'}")
    assert [reject["track"] for reject in lines(tmp_path / "out/rejects.jsonl")] == ["gone.wav"]
