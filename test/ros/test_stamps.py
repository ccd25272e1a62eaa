"""A frame sent twice is not a camera without a clock."""

from vidseg_ros.stamps import MOST_REPEATS, Runs, Stamps


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


def test_a_run_ends_with_a_pause():
    runs = Runs(max_gap_s=1.0)
    first, same, pause, after = (runs.add(round(at * 1e9), 0.0) for at in (10.0, 11.0, 13.5, 13.6))
    assert first is same and first.pause_s == 0
    assert pause is after and pause is not first and pause.pause_s == 2.5


def test_time_in_which_nothing_could_be_received_is_no_pause():
    runs = Runs(max_gap_s=1.0)
    first = runs.add(0, 0.0)
    assert runs.add(5_000_000_000, 4.5) is first
    assert runs.add(10_000_000_000, 3.0).pause_s == 2.0


def test_time_that_runs_back_is_no_pause():
    runs = Runs(max_gap_s=1.0)
    assert runs.add(9_000_000_000, 0.0) is runs.add(0, 0.0) is runs.current
