"""The largest micro-batch by two compiles and one that confirms; what compilers say of programs that are too large."""

import pytest

from musicssl_jax.planning.compiled import needed_bytes
from musicssl_jax.planning.memory import largest_micro_batch

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
    assert len(tried) <= 3


def test_what_does_not_fit_after_all_is_taken_back():
    found, tried = search(10, 1000, lambda clips: 10 * clips if clips < 50 else 11 * clips + 50)
    assert tried == [10, 20, 100]
    # By the line through 10 and 100, which a fourth compile would have to confirm.
    assert (found.clips, found.confirmed) == (87, False)


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
