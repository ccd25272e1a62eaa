"""Stalls of a thread, with the clock in the test's hand."""

import pytest

from vidseg_ros.heartbeat import BEAT_S, Heartbeat


def test_beats_in_time_are_no_stall():
    heartbeat = Heartbeat(10.0)
    for i in range(1, 20):
        heartbeat.beat(10.0 + i * BEAT_S * 1.9)
    assert heartbeat.stalled_since_s(0.0) == 0


def test_a_stall_is_what_a_beat_is_overdue():
    heartbeat = Heartbeat(10.0)
    heartbeat.beat(15.2)
    assert heartbeat.stalled_since_s(10.0) == pytest.approx(5.2 - BEAT_S)
    assert heartbeat.stalled_since_s(14.0) == pytest.approx(1.2)
    assert heartbeat.stalled_since_s(15.2) == 0
    heartbeat.beat(18.2)
    assert heartbeat.stalled_since_s(10.0) == pytest.approx(8.2 - 2 * BEAT_S)


def test_nothing_grows_with_time():
    heartbeat = Heartbeat(0.0)
    for i in range(10_000):
        heartbeat.beat(i * 1.0)
    assert heartbeat.stalled_since_s(0.0) < 100
