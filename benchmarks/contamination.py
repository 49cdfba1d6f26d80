"""Evaluation audio found in a pretraining collection: recall, false matches, speed and size.

    python -m benchmarks.contamination [--tracks=300] [--excerpts=60] [--hours=1000]

The collection: synthetic tracks of 60 s of both instrument families, and pieces of one sequencer (the same presets,
drums, key and tempo; other notes). Looked for: excerpts of it, cut anywhere and coded; tracks of other seeds; other
pieces of that sequencer. `--hours`: how long a search takes in an index of that size, whose landmarks are those of the
collection at random places.
"""

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from contamination_fixtures import CODECS, RATE, build_music, kbit_per_second, musicbox, sequenced, write_copy

from data_pipelines.decode import to_pcm16
from musicssl_jax.mir.contamination.alignment import _DRIFT, _SAME, _SAME_STEADY, RUN, align, emphasised, telling
from musicssl_jax.mir.contamination.index import PLACE_BITS, Index, Part, ensure_index
from musicssl_jax.mir.contamination.landmarks import FRAME_SECONDS, HOP, at_rate, fingerprint
from musicssl_jax.mir.contamination.matching import _WINDOW, Match, Undecided, _candidates, _query, _stretch, find_match

FAMILIES = ("additive", "plucked")
SECONDS = 60.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracks", type=int, default=300)
    parser.add_argument("--excerpts", type=int, default=60)
    parser.add_argument("--hours", type=float, default=1000.0)
    flags = parser.parse_args()
    print(
        f"{os.cpu_count()} cores, Python {platform.python_version()}, numpy {np.__version__}, "
        f"libsndfile {soundfile.__libsndfile_version__}"
    )
    tracks = musicbox(range(flags.tracks // 2), SECONDS)
    pieces = {f"sequencer-{family}-{n}": sequenced(n, family, 30.0) for family in FAMILIES for n in range(60)}
    with tempfile.TemporaryDirectory() as folder:
        index = measure_index(build_music(Path(folder), tracks | pieces))
        recall(index, tracks, flags.excerpts, Path(folder))
        others = musicbox(range(10_000, 10_000 + flags.tracks // 2), 30.0)
        false_matches(index, others, "tracks of other seeds", len(tracks))
        more = {f"{family}-{n}": sequenced(1000 + n, family, 30.0) for family in FAMILIES for n in range(60)}
        false_matches(index, more, "other pieces of the sequencer", len(pieces))
        large = with_noise(index, flags.hours)
        recall(large, tracks, flags.excerpts, Path(folder), codecs=["mp3 at 64 kbit/s"])
        false_matches(large, dict(list(others.items())[::5]), "tracks of other seeds", len(tracks))


def measure_index(folder: Path) -> Index:
    started = time.monotonic()
    index = ensure_index(folder, progress=False)
    seconds = time.monotonic() - started
    hours = sum(index.collection.hours(split) for split in index.collection.splits)
    size = sum(landmarks.nbytes for landmarks in index.landmarks)
    pcm = np.random.default_rng(0).integers(-9, 9, 600 * RATE).astype(np.int16)
    for split in index.collection.splits.values():
        for track in range(min(10, len(split.tracks.ids))):
            split.read(track, 0, pcm[track * 30 * RATE :][: int(min(30 * RATE, split.tracks.lengths[track]))])
    began = time.process_time()
    fingerprint(pcm, RATE)
    core = time.process_time() - began
    print(
        f"index: {hours:.2f} h in {seconds:.1f} s, {size / hours / 1e6:.2f} MB an hour, "
        f"{size / hours / 3600 / 8:.1f} landmarks a second; {600 / core:.0f} x real time on one core"
    )
    return index


def recall(
    index: Index, tracks: dict[str, np.ndarray], count: int, folder: Path, codecs: Sequence[str] = ("none", *CODECS)
) -> None:
    rng = np.random.default_rng(1)
    names = list(tracks)
    for codec in codecs:
        for seconds in (5.0, 10.0, 30.0):
            found, wrong, undecided, shares, lowest, rates = 0, 0, 0, [], [], []
            spent = 0.0
            for n in range(count):
                name = names[n * 7 % len(names)]
                start = int(rng.integers((SECONDS - seconds) * RATE))
                cut = tracks[name][start : start + round(seconds * RATE)]
                pcm, pcm_rate, rate = coded(cut, codec, folder)
                began = time.process_time()
                match = find_match([index], pcm, pcm_rate)
                spent += time.process_time() - began
                rates.append(rate)
                if isinstance(match, Match):
                    right = match.track == f"{name}.wav" and abs(match.offset - start / RATE) < 2 * FRAME_SECONDS
                    found, wrong = found + right, wrong + (not right)
                    shares.append(match.share)
                    lowest.append(match.correlation)
                undecided += isinstance(match, Undecided)
            print(
                f"recall: {codec:18} ({np.mean(rates):3.0f} kbit/s) {seconds:2.0f} s: {found} of {count} found, "
                f"{wrong} elsewhere, {undecided} undecided; share {np.mean(shares):.2f}, "
                f"correlation at least {min(lowest):.2f}; {spent / count:.2f} CPU-s a search",
                flush=True,
            )


def coded(cut: np.ndarray, codec: str, folder: Path) -> tuple[np.ndarray, int, float]:
    """(PCM, its rate, kbit/s)"""
    if codec == "none":
        return to_pcm16(cut), RATE, 256
    path = write_copy(folder / "excerpt", cut, codec)
    waveform, rate = soundfile.read(path, dtype="float32")
    return to_pcm16(waveform.mean(axis=1)), rate, kbit_per_second(path)


def false_matches(index: Index, others: dict[str, np.ndarray], what: str, against: int) -> None:
    """Whole searches, and how near the best proposals of each came: votes, and the correlation of 2.5 s in a row at one
    lag, as a share of what a match needs.
    """
    matches, votes, correlations = 0, [], []
    started = time.process_time()
    for waveform in others.values():
        matches += isinstance(find_match([index], to_pcm16(waveform), RATE), Match)
    seconds = (time.process_time() - started) / len(others)
    for waveform in others.values():
        low = at_rate(to_pcm16(waveform), RATE)
        emphasis = emphasised(low)
        proposed = [*_candidates(index, _query(low))]
        votes.append(max((c.votes for c in proposed), default=0))
        best = [0.0]
        for candidate in proposed:
            part = emphasis[candidate.window * HOP :][: _WINDOW * HOP]
            split, track, frame = index.locate(candidate.start)
            found = align(part, _stretch(index, split, track, frame * HOP, len(part)))
            share = found.correlation / np.where(telling(part), _SAME, _SAME_STEADY)
            best += [
                float(share[n : n + RUN].min())
                for n in range(len(share) - RUN + 1)
                if np.abs(np.diff(found.lag[n : n + RUN])).max() <= _DRIFT
            ]
        correlations.append(max(best))
    print(
        f"false: {what}: {matches} of {len(others)} 30 s excerpts found in {against} tracks "
        f"({len(others) * against} pairs); votes median {np.median(votes):.0f}, most {max(votes)}; "
        f"share of the correlation needed median {np.median(correlations):.2f}, most {max(correlations):.2f}; "
        f"{seconds:.2f} CPU-s a search"
    )


def with_noise(index: Index, hours: float) -> Index:
    """The index with another part: `hours` of landmarks, drawn from its own and put at random places."""
    rng = np.random.default_rng(2)
    held = sum(index.collection.hours(split) for split in index.collection.splits)
    hashes = np.concatenate([np.array(part) >> np.uint64(PLACE_BITS) for part in index.landmarks])
    frames = round(hours * 3600 / FRAME_SECONDS)
    noise = rng.choice(hashes, round(len(hashes) * hours / held))
    noise <<= np.uint64(PLACE_BITS)
    noise |= rng.integers(frames, size=len(noise), dtype=np.uint64)
    noise.sort()
    print(f"{hours:g} h of landmarks more, {noise.nbytes / 1e6:.0f} MB:")
    part = Part(index.parts[0].split, 0, 1, int(index.slots[-1][-1]))
    slots = np.array([part.frame, part.frame + frames])
    return replace(
        index,
        parts=(*index.parts, part),
        slots=(*index.slots, slots),
        landmarks=(*index.landmarks, noise),
    )


if __name__ == "__main__":
    main()
