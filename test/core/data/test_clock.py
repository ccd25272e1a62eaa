from itertools import accumulate
from types import SimpleNamespace

import pytest

from vidseg_core.data.clock import SAMPLE, Clock, Stamp, Times, pairs_by_receipt, period_ns, played_step_ns, step_ns

MS = 10**6
S = 10**9
START = 1_700_000_000 * S
DAYS_300 = 300 * 86400 * S
PERIOD = 50 * MS


def received(count):
    return [START + i * PERIOD for i in range(count)]


def stamps(headers, receives=None):
    """Stamps of all messages, the first `SAMPLE` of which are the sample; and what is wrong in the end."""
    times = [Times(*pair) for pair in zip(headers, receives or received(len(headers)), strict=True)]
    clock = Clock(times[:SAMPLE])
    return [clock.stamp(one) for one in times], clock.complaint


def own(*headers):
    return [Stamp(ns, True) for ns in headers]


@pytest.mark.parametrize("offset", [0, -5 * MS, -START, DAYS_300])
def test_stamps_that_work_are_taken_as_they_are(offset):
    headers = [START + offset + i * PERIOD + (i % 3) * MS + 1 for i in range(60)]
    assert stamps(headers) == (own(*headers), None)


def test_a_single_stamp_is_one():
    assert stamps([7]) == (own(7), None)
    assert stamps([]) == ([], None)


@pytest.mark.parametrize(
    ("headers", "complaint"),
    [
        ([0] * 30, "its stamps are zero"),
        ([0], "its stamps are zero"),
        ([5 * S] * 30, "its stamps stay at 5.000 s"),
        ([START - i * PERIOD for i in range(30)], "its stamps do not advance as time does"),
        ([(START + S // 2 + i * PERIOD) // S * S for i in range(30)], "its stamps do not advance as time does"),
        ([START + i * PERIOD // 1000 for i in range(30)], "its stamps do not advance as time does"),
        ([START + i * PERIOD * 1000 for i in range(30)], "its stamps do not advance as time does"),
        ([START + i * PERIOD - i % 2 * DAYS_300 for i in range(30)], "its stamps do not advance as time does"),
    ],
    ids=["zero", "one zero", "constant", "backward", "whole seconds", "too slow", "too fast", "two clocks in turn"],
)
def test_stamps_that_cannot_be_used_are_replaced_by_receive_times(headers, complaint):
    found = [Stamp(ns, False) for ns in received(len(headers))]
    assert stamps(headers) == (found, f"{complaint}; receive times take their place")


def test_zeros_among_good_stamps_go_by_the_receive_time_on_the_camera_s_clock():
    headers = [0, 0, *(10 * S + i * PERIOD for i in range(2, 8))]
    headers[5] = 0
    found, complaint = stamps(headers)
    assert [stamp.ns for stamp in found] == [10 * S + i * PERIOD for i in range(8)]
    assert [stamp.is_own for stamp in found] == [False, False, True, True, True, False, True, True]
    assert complaint == "some of its stamps are zero; receive times take their place"


def test_zeros_later_on_go_by_what_the_clocks_differed_last():
    headers = [START + i * PERIOD for i in range(30)] + [0, 0]
    receives = [ns + 3 * MS for ns in received(30)] + [START + 30 * PERIOD + 4 * MS, START + 31 * PERIOD + MS]
    found, complaint = stamps(headers, receives)
    assert found[:30] == own(*headers[:30])
    assert found[30:] == [Stamp(START + 30 * PERIOD + MS, False), Stamp(START + 31 * PERIOD - 2 * MS, False)]
    assert complaint == "some of its stamps are zero; receive times take their place"


def test_a_message_that_came_twice_is_a_little_later():
    headers = [START + i // 2 * PERIOD for i in range(40)]
    receives = [START + i // 2 * PERIOD + i % 2 * MS for i in range(40)]
    found, complaint = stamps(headers, receives)
    assert found == [Stamp(ns, i % 2 == 0) for i, ns in enumerate(receives)]
    assert complaint == "some of its stamps come again; receive times take their place"


def test_a_clock_that_stops_while_recording_goes_on_with_the_receive_time():
    headers = [START + min(i, 25) * PERIOD for i in range(40)]
    found, _ = stamps(headers)
    assert [stamp.ns for stamp in found] == received(40)
    assert [stamp.is_own for stamp in found] == [True] * 26 + [False] * 14


@pytest.mark.parametrize("jump", [DAYS_300, -DAYS_300, -2 * S])
def test_stamps_after_a_jump_are_still_the_camera_s(jump):
    headers = [START + i * PERIOD + (jump if i >= 3 else 0) for i in range(6)]
    told = f"its stamps jump by {(jump + PERIOD) / 1e9:.3f} s, the receive times do not"
    assert stamps(headers) == (own(*headers), told)


def test_a_recorder_that_falls_behind_and_pauses_are_no_jumps():
    headers = [START + i * PERIOD + (60 * S if i >= 30 else 0) for i in range(60)]
    receives = list(headers)
    receives[10:30] = [START + 9 * S + i for i in range(20)]
    assert stamps(headers, receives) == (own(*headers), None)


@pytest.mark.parametrize(
    "receives", [[START] * 30, [START + i for i in range(30)], [START - i * PERIOD for i in range(30)]],
    ids=["constant", "as fast as a converter writes", "backward"],
)  # fmt: skip
def test_good_stamps_are_believed_whatever_the_recorder_s_clock_did(receives):
    headers = [START + i * PERIOD for i in range(30)]
    assert stamps(headers, receives) == (own(*headers), None)


def timed(stamp_ns, received_ns=None):
    return SimpleNamespace(stamp_ns=stamp_ns, received_ns=received_ns)


@pytest.mark.parametrize(
    ("stamp", "receive", "step"),
    [
        (PERIOD, None, PERIOD),
        (PERIOD, 70 * MS, PERIOD),
        (PERIOD, 0, PERIOD),
        (PERIOD, -DAYS_300, PERIOD),
        (PERIOD, DAYS_300, PERIOD),
        (3 * S, 70 * MS, 3 * S),  # what came late was followed at once
        (60 * S, 61 * S, 60 * S),
        (60 * S, 70 * MS, 70 * MS),
        (DAYS_300, 70 * MS, 70 * MS),
        (-DAYS_300, 70 * MS, 70 * MS),
        (-MS, 70 * MS, 70 * MS),
        (0, 70 * MS, 70 * MS),
        (0, None, None),
        (0, 0, None),
        (-5 * S, -5 * S, None),
        (-5 * S, None, None),
        (DAYS_300, None, None),
        (DAYS_300, DAYS_300, None),
        (-S, DAYS_300, None),
    ],
)
def test_the_time_between_two_frames(stamp, receive, step):
    after = timed(START + stamp, None if receive is None else START + receive)
    assert step_ns(timed(START, None if receive is None else START), after) == step


@pytest.mark.parametrize(
    ("step", "period", "played"),
    [
        (9 * S, PERIOD, 9 * S),
        (11 * S, PERIOD, PERIOD),
        (DAYS_300, PERIOD, PERIOD),
        (-S, PERIOD, PERIOD),
        (0, PERIOD, PERIOD),
        (130 * S, 60 * S, 130 * S),
        (700 * S, 60 * S, 60 * S),
    ],
)
def test_nobody_waits_for_a_break(step, period, played):
    assert played_step_ns(timed(0), timed(step), period) == played
    assert played_step_ns(timed(0, 0), timed(step, step), period) == played


def test_a_jump_is_played_as_long_as_it_took():
    assert played_step_ns(timed(START, START), timed(START + DAYS_300, START + 70 * MS), PERIOD) == 70 * MS


def test_the_period_is_the_median_of_the_steps_that_are_known():
    steps = [PERIOD, PERIOD + MS, 5 * S, -DAYS_300, PERIOD + 2 * MS, PERIOD - MS]
    assert period_ns(timed(ns) for ns in accumulate(steps, initial=START)) == PERIOD + MS
    assert period_ns([timed(START, START), timed(START + DAYS_300, START + PERIOD)]) == PERIOD
    assert period_ns([timed(START), timed(START)]) is None
    assert period_ns([timed(START)]) is None and period_ns([]) is None


def at_ms(*times):
    return [START + round(time * MS) for time in times]


@pytest.mark.parametrize(
    ("images", "labels", "pairs"),
    [
        ((0, 50, 100), (1, 51, 101), {0: 0, 1: 1, 2: 2}),
        ((0, 50, 100), (0, 50, 100), {0: 0, 1: 1, 2: 2}),
        ((0, 50, 100), (-2, 47, 99), {0: 0, 1: 1, 2: 2}),
        ((0, 50, 100, 150), (90, 140, 190, 240), {0: 0, 1: 1, 2: 2, 3: 3}),  # of a network that takes its time
        ((0, 50, 100, 150), (3, 102), {0: 0, 2: 1}),
        ((0, 50, 100, 150), (40, 140), {1: 0, 3: 1}),
        ((0, 50, 100, 150), (25, 120), {}),  # of neither
        ((0, 50, 100, 150), (1, 3, 51), {0: 0, 1: 2}),  # no image has two
        ((0, 0, 0), (0, 0, 0), {0: 0, 1: 1, 2: 2}),  # a converter's
        ((0, 0, 0), (0, 0), {}),
        ((0,), (7,), {0: 0}),
        ((0, 50), (), {}),
        ((0, 50, 100), (0, 50, 170), {0: 0, 1: 1}),
    ],
)
def test_labels_without_stamps_belong_to_images_by_receipt(images, labels, pairs):
    assert pairs_by_receipt(at_ms(*images), at_ms(*labels)) == pairs
