"""The largest micro-batch by compiles that lines point to; what compilers say of programs that are too large."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musicssl_jax.planning.compiled import needed_bytes
from musicssl_jax.planning.memory import GRANULARITY, MOST_COMPILES, largest_micro_batch

GIB = 2**30


def search(first: int, capacity: int, needed, **options):
    """(what was found, sizes that were compiled)."""
    tried = [first]

    def compiled(clips):
        assert clips not in tried
        tried.append(clips)
        return needed(clips)

    return largest_micro_batch((first, needed(first)), compiled, capacity, **options), tried


@pytest.mark.parametrize("first", [1, 2, 7, 40, 300])
def test_a_line_is_found_from_anywhere(first):
    found, tried = search(first, 1000, lambda clips: 100 + 9 * clips)
    assert (found.clips, found.fixed, found.per_clip) == (100, 100, 9)
    assert found.confirmed and found.memory == 1000
    assert len(tried) <= 3 and found.predicted == 100


def test_what_does_not_fit_after_all_is_looked_for_below():
    def needed(clips):
        return 10 * clips if clips < 50 else 11 * clips + 50

    found, tried = search(10, 1000, needed)
    assert tried == [10, 20, 100, 87, 86]
    assert (found.clips, found.confirmed, found.memory) == (86, True, 996)
    found, tried = search(10, 1000, needed, compiles=2)
    # The line between what fits and what does not says where a third compile would look.
    assert tried == [10, 20, 100] and (found.clips, found.confirmed, found.predicted) == (20, True, 87)


def test_room_that_a_confirmed_micro_batch_leaves_is_used():
    """As a TPU's compiler had it: 32, 64 and 105 clips need 5.96, 10.19 and 14.53 of 15.75 GiB."""

    def needed(clips):
        return clips * 142 + 1853 if clips <= 64 else 10_945 + (clips - 64) * 113

    found, tried = search(64, 16_911, needed)
    assert tried == [64, 32, 106, 116] and (found.clips, found.confirmed, found.predicted) == (116, True, 116)


def test_where_nothing_that_was_tried_fits_it_is_the_lines_word():
    found, tried = search(64, 1000, lambda clips: 90 + clips**2)
    assert (found.clips, found.confirmed) == (30, True) and len(tried) <= 1 + MOST_COMPILES
    found, tried = search(64, 1000, lambda clips: 90 + clips**2, compiles=1)
    assert tried == [64, 32] and (found.clips, found.confirmed) == (30, False)


slopes = st.lists(st.integers(1, 40), min_size=1, max_size=4)


@given(
    first=st.integers(1, 400),
    fixed=st.integers(0, 3000),
    slopes=slopes,
    bends=st.lists(st.integers(1, 300), min_size=4, max_size=4),
    step=st.integers(1, 200),
    convex=st.booleans(),
)
def test_whatever_the_memory_is_the_word_is_kept(first, fixed, slopes, bends, step, convex):
    """Piecewise linear, steeper and steeper or not, in steps as allocators round: what is called confirmed was compiled
    and fits, and more clips are known or predicted not to fit, if there were compiles left to ask."""
    slopes = sorted(slopes) if convex else slopes

    def needed(clips):
        size, here = fixed, 0
        for slope, bend in zip(slopes[:-1], bends, strict=False):
            part = min(max(clips - here, 0), bend)
            size, here = size + slope * part, here + bend
        size += slopes[-1] * max(clips - here, 0)
        return -(-size // step) * step

    capacity = 6000
    found, tried = search(first, capacity, needed)
    assert len(tried) <= 1 + MOST_COMPILES and found.tried == tuple((clips, needed(clips)) for clips in sorted(tried))
    best = max((clips for clips in tried if needed(clips) <= capacity), default=0)
    if best:
        assert (found.clips, found.confirmed, found.memory) == (best, True, needed(best))
    else:
        assert not found.confirmed and found.clips < min(tried)
    following = found.clips + max(math.floor(GRANULARITY * found.clips), 1)
    known = any(found.clips < clips <= following and needed(clips) > capacity for clips in tried)
    flat = found.per_clip <= 0
    assert known or found.predicted < following or flat or len(tried) == 1 + MOST_COMPILES
    if convex and step == 1 and needed(1) <= capacity:
        true = next(clips for clips in range(1, 10_000) if needed(clips + 1) > capacity)
        assert true - found.clips < max(GRANULARITY * true, 1)


def test_without_a_compiler_nothing_is_confirmed():
    found, tried = search(10, 1000, lambda clips: 10 * clips, confirm=False)
    assert (found.clips, found.confirmed, tried) == (100, False, [10, 20])


def test_not_even_one_clip_may_fit():
    found, _ = search(4, 100, lambda clips: 200 + clips)
    assert (found.clips, found.confirmed) == (0, False)
    found, _ = search(1, 100, lambda clips: 200)
    assert (found.clips, found.confirmed) == (0, False)


def test_clips_that_weigh_nothing_are_no_reason_to_refuse_them():
    found, _ = search(4, 1000, lambda clips: 200)
    assert (found.clips, found.confirmed, found.memory) == (8, True, 200)


@pytest.mark.parametrize(
    ("message", "needed"),
    [
        ("RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 17.11G of "
         "15.75G hbm. Exceeded hbm capacity by 1.36G.", int(17.11 * GIB)),
        ("RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (896.00G) "
         "exceeds available HBM (15.75G).", 896 * GIB + 5),
        ("RESOURCE_EXHAUSTED: out of patience", None),
        ("UNIMPLEMENTED: Used 17.11G of 15.75G hbm", None),
    ],
)  # fmt: skip
def test_the_compilers_complaint_says_what_is_needed(message, needed):
    assert needed_bytes(message, 5) == needed
