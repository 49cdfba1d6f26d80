"""Which recordings hold audio that is in a collection too.

Landmarks propose and waveforms decide. Within 10 s of a recording, agreement of landmarks with a stretch of a track is
counted; the best stretches are then read from the collection and correlated with the recording, second by second.
Votes alone would not do: two pieces that one sequencer plays on the same presets, in one key and tempo, agree in as
many landmarks as a piece and its own 64 kbit/s copy (docs/contamination.md), their waveforms do not.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from musicssl_jax.mir.contamination.alignment import PAD, RUN, Alignment, align, emphasised, sounding, telling
from musicssl_jax.mir.contamination.index import Index
from musicssl_jax.mir.contamination.landmarks import HOP, RATE, Fingerprint, at_rate, landmarks
from musicssl_jax.shapes import Float, Int, Int16

MIN_SECONDS = 3.0
"""Of a recording, to be looked for."""
MIN_HASHES, MIN_TELLING = 12, 1
"""Different ones in a recording, and windows that are not one steady tone, to be looked for."""

_WINDOW, _WINDOW_STEP = 313, 156  # frames, 10 and 5 s, over which agreement is counted
_CELL, _CELL_VOTES = 16, 5  # frames, and what they count for at most: one chord in common is no piece in common
_MIN_VOTES = 6
_CANDIDATES = 4  # stretches of a collection that a window's waveform is compared with
_HITS = 100_000  # landmarks of the collection that a window is compared with
_SHIFTS = (0, HOP // 2)  # samples; with one of the two, frames lie within a quarter of a frame of the collection's
_HASH_BITS, _CELL_BITS = 23, 8


class Match(NamedTuple):
    """A recording that is in a collection as well.

    collection, split, track: where; the track that it shares most with. offset: seconds of that track at which the
    recording begins, under 0 if it begins earlier. share: of the recording's sound, what that track holds. votes:
    landmarks that agree in the best 10 s. correlation: mean over what is shared.
    """

    collection: str
    split: str
    track: str
    offset: float
    share: float
    votes: int
    correlation: float


class Undecided(NamedTuple):
    """A recording that cannot be told from others, and why."""

    reason: str


class _Candidate(NamedTuple):
    """The 10 s of the recording from frame `window` on may be those of the index from frame `start` on."""

    start: int
    window: int
    votes: int


class _Shared(NamedTuple):
    """A place that holds some of the recording, which begins at `offset` seconds of the track."""

    split: str
    track: int
    offset: float
    alignment: Alignment
    votes: int


def find_match(
    indexes: Sequence[Index], pcm: Int16[np.ndarray, " samples"], sample_rate: int
) -> Match | Undecided | None:
    """The track of the indexed collections that holds most of the recording; None: none holds as much as 2.5 s of it.

    Raises UserError: a shard of a collection is damaged.
    """
    waveform = at_rate(pcm, sample_rate)
    if len(waveform) < MIN_SECONDS * RATE:
        return Undecided(f"shorter than {MIN_SECONDS:g} s")
    emphasis = emphasised(waveform)
    sound = sounding(emphasis)
    if sound.sum() < RUN:
        return Undecided("silent")
    query = _query(waveform)
    if len(np.unique(query.hashes)) < MIN_HASHES or telling(emphasis).sum() < MIN_TELLING:
        return Undecided("too little happens in it")
    matches = [match for index in indexes if (match := _best_match(index, emphasis, query, int(sound.sum())))]
    return max(matches, key=lambda match: match.share, default=None)


def _query(waveform: Float[np.ndarray, " n"]) -> Fingerprint:
    """Landmarks on frames that begin at either of _SHIFTS, in order of time."""
    shifted = [landmarks(waveform[shift:]) for shift in _SHIFTS]
    hashes, times = (np.concatenate(column) for column in zip(*shifted, strict=True))
    order = np.argsort(times, kind="stable")
    return Fingerprint(hashes[order], times[order])


def _best_match(index: Index, emphasis: Float[np.ndarray, " n"], query: Fingerprint, sounding: int) -> Match | None:
    places = [*_shared(index, emphasis, query)]
    if not places:
        return None
    best = max(places, key=lambda place: place.alignment.same.sum())
    same = best.alignment.same
    return Match(
        collection=index.collection.folder.name,
        split=best.split,
        track=index.collection.splits[best.split].tracks.ids[best.track],
        offset=round(best.offset, 3),
        share=round(float(same.sum() / sounding), 3),
        votes=max(place.votes for place in places if place.track == best.track),
        correlation=round(float(best.alignment.correlation[same].mean()), 3),
    )


def _shared(index: Index, emphasis: Float[np.ndarray, " n"], query: Fingerprint) -> Iterator[_Shared]:
    """The places that candidates turn out to share some of the recording with."""
    found: set[int] = set()
    for candidate in _candidates(index, query):
        at = candidate.start - candidate.window
        if found & {at - 1, at, at + 1}:  # other windows of the same
            continue
        split, track, frame = index.locate(candidate.start)
        begin = candidate.window * HOP
        part = emphasis[begin : begin + _WINDOW * HOP]
        if not align(part, _stretch(index, split, track, frame * HOP, len(part))).same.any():
            continue
        start = (frame - candidate.window) * HOP
        alignment = align(emphasis, _stretch(index, split, track, start, len(emphasis)))
        if alignment.same.any():
            found.add(at)
            offset = (start + float(np.median(alignment.lag[alignment.same]))) / RATE
            yield _Shared(split, track, offset, alignment, candidate.votes)


def _stretch(index: Index, split: str, track: int, start: int, samples: int) -> Float[np.ndarray, " n"]:
    """The track from sample `start` at RATE on, with PAD on either side, emphasised; zeros where it is not."""
    rate, length = index.collection.sample_rate, int(index.collection.splits[split].tracks.lengths[track])
    begin, end = (round(at * rate / RATE) for at in (start - PAD, start + samples + PAD))
    pcm = np.zeros(end - begin, np.int16)
    first, last = max(begin, 0), min(end, length)
    if first < last:
        index.collection.splits[split].read(track, first, pcm[first - begin : last - begin])
    waveform = at_rate(pcm, rate)
    return emphasised(np.pad(waveform, (0, 1))[: samples + 2 * PAD])  # resampling may round down


def _candidates(index: Index, query: Fingerprint) -> Iterator[_Candidate]:
    """Of every window the stretches that most of its landmarks agree on, if enough do."""
    for window in range(0, int(query.times[-1]) + 1, _WINDOW_STEP):
        first, end = np.searchsorted(query.times, (window, window + _WINDOW))
        hashes, times = query.hashes[first:end], query.times[first:end] - window
        which, frames = index.places(hashes, _HITS)
        starts, votes = _votes(frames - times[which], hashes[which], times[which] // _CELL)
        for best in _separate(starts, votes)[:_CANDIDATES]:
            yield _Candidate(int(starts[best]), window, int(votes[best]))


def _separate(starts: Int[np.ndarray, " starts"], votes: Int[np.ndarray, " starts"]) -> list[int]:
    """Which have most votes, in order, without those right beside a better one. Starts rise."""
    follows = np.diff(starts) == 1
    less = np.zeros(len(starts), bool)
    less[:-1] |= follows & (votes[:-1] < votes[1:])
    less[1:] |= follows & (votes[1:] <= votes[:-1])
    return [int(n) for n in np.argsort(-votes, kind="stable") if not less[n]]


def _votes(
    starts: Int[np.ndarray, " hits"], hashes: Int[np.ndarray, " hits"], cells: Int[np.ndarray, " hits"]
) -> tuple[Int[np.ndarray, " starts"], Int[np.ndarray, " starts"]]:
    """(start, votes) for every start that has _MIN_VOTES. A start takes in the next one, since frames may fall between
    two; a hash counts once, and a cell for _CELL_VOTES at most.
    """
    found, counts = np.unique(starts, return_counts=True)
    follows = np.append(np.diff(found) == 1, False)
    counts += np.where(follows, np.append(counts[1:], 0), 0)
    begins = found[counts >= _MIN_VOTES]
    ours = [(begin, hits) for begin in (0, 1) for hits in [np.isin(starts, begins + begin)]]
    begin = np.concatenate([starts[hits] - shift for shift, hits in ours])
    hashes, cells = (np.concatenate([values[hits] for _, hits in ours]).astype(np.int64) for values in (hashes, cells))
    _, once = np.unique(begin << _HASH_BITS | hashes, return_index=True)
    in_cell, counts = np.unique(begin[once] << _CELL_BITS | cells[once], return_counts=True)
    found, which = np.unique(in_cell >> _CELL_BITS, return_inverse=True)
    votes = np.bincount(which, np.minimum(counts, _CELL_VOTES), len(found)).astype(np.int64)
    enough = votes >= _MIN_VOTES
    return found[enough], votes[enough]
