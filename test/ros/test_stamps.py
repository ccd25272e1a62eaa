"""A frame sent twice is not a camera without a clock."""

from vidseg_ros.stamps import MOST_REPEATS, Stamps


def test_stamps_that_change_are_frames():
    stamps = Stamps()
    assert [stamps.is_repeated(ns) for ns in (5, 6, 3, 4, 3)] == [False] * 5
    assert stamps.complaint is None


def test_a_repeated_stamp_is_the_same_frame():
    stamps = Stamps()
    assert [stamps.is_repeated(ns) for ns in (5, 5, 6, 6, 6, 7)] == [False, True, False, True, True, False]
    assert stamps.complaint is None


def test_stamps_of_zero_are_frames():
    stamps = Stamps()
    assert [stamps.is_repeated(0) for _ in range(4)] == [False] * 4
    assert stamps.complaint == "its stamps are zero"


def test_a_constant_stamp_is_no_stamp():
    stamps = Stamps()
    assert [stamps.is_repeated(2_500_000_000) for _ in range(MOST_REPEATS + 3)] == [
        False,
        *[True] * MOST_REPEATS,
        False,
        False,
    ]
    assert stamps.complaint == "its stamp stays at 2.500 s"


def test_a_clock_that_runs_again_is_believed_again():
    stamps = Stamps()
    for _ in range(20):
        stamps.is_repeated(1)
    assert [stamps.is_repeated(ns) for ns in (2, 2, 3)] == [False, True, False]
