import threading
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from vidseg_core.errors import ConfigError
from vidseg_core.evaluation.replay.live import Arrival, Scoreboard, WorkerTimes, arrivals, play, simulate
from vidseg_core.frame import Frame, Segmentation

MS = 10**6
SIZE = (64, 64)


def labels(i):
    """Of the frame of number i: all class i."""
    return np.full(SIZE, i, np.uint8)


def frames(*stamps_ms, truth=True):
    image = np.zeros((*SIZE, 3), np.uint8)
    return [Frame(image, t * MS, name=str(i), labels=labels(i) if truth else None) for i, t in enumerate(stamps_ms)]


def result(frame, is_key=False):
    return Segmentation(labels(int(frame.name)), frame.stamp_ns, is_key, 0, "because")


def simulated(stamps_ms, took_ms, period_ms):
    """A log, and (number, begin, end) of all steps, in milliseconds. The step for frame i takes took_ms[i]."""
    seen = []

    def step(frame, now_ns):
        i = int(frame.name)
        seen.append((i, now_ns // MS, now_ns // MS + took_ms[i]))
        return result(frame), took_ms[i] * MS

    coming = arrivals(frames(*stamps_ms), period_ms * MS)
    return simulate(step, coming, 10, period_ms * MS), seen


def test_who_is_idle_takes_a_frame_at_once():
    log, seen = simulated([0, 10, 20, 30], [5, 5, 5, 5], 10)
    assert seen == [(0, 0, 5), (1, 10, 15), (2, 20, 25), (3, 30, 35)]
    assert (log.frames, log.dropped, len(log.outputs), log.duration_ns) == (4, 0, 4, 40 * MS)


def test_the_newest_frame_waits_and_the_one_before_it_gives_way():
    log, seen = simulated([0, 10, 20, 30, 40, 50], [35, 5, 5, 5, 5, 5], 10)
    # 1 and 2 give way to 3, which waits from 30 to 35; its step ends as 4 arrives, which begins at once.
    assert seen == [(0, 0, 35), (3, 35, 40), (4, 40, 45), (5, 50, 55)]
    assert log.dropped == 2
    summary = log.summary()
    assert summary["latency_ms"]["max"] == 35 and summary["latency_ms"]["p50"] == pytest.approx((5 + 10) / 2)
    assert summary["rate_hz"] == pytest.approx(4 / 0.060, abs=1e-3)


def test_only_pauses_of_the_camera_are_told():
    """1 and 2 give way to 3; the longest pause since frame 0 was before 2."""
    pauses = {}

    def step(frame, now_ns):
        pauses[int(frame.name)] = frame.pause_s
        return result(frame), (55 if frame.name == "0" else 1) * MS

    simulate(step, arrivals(frames(0, 10, 40, 50, 90), 10 * MS), 10, 10 * MS)
    assert pauses == {0: 0, 3: 0.03, 4: 0.04}


def test_what_still_waits_at_the_end_is_processed():
    _, seen = simulated([0, 10, 20], [100, 1, 50], 10)
    assert seen == [(0, 0, 100), (2, 100, 150)]


def test_truth_is_compared_with_the_newest_labels_at_its_stamp_and_a_period_later():
    log, seen = simulated([0, 10, 20, 30], [4, 4, 4, 12], 10)
    assert seen[-1] == (3, 30, 42)
    board = log.board
    # Streaming: void, 0, 1, 2 where 0, 1, 2, 3 is right. Deadline: at 10: 0, at 20: 1, at 30: 2, at 40: still 2.
    assert (board.frames, board.too_early) == (4, 1)
    assert np.diag(board.streaming.counts).tolist() == [0] * 10
    assert [int(board.streaming.counts[i, i - 1]) for i in (1, 2, 3)] == [64 * 64] * 3
    assert board.streaming.num_pixels == 4 * 64 * 64  # void counts as wrong
    assert np.diag(board.deadline.counts).tolist()[:4] == [64 * 64] * 3 + [0]
    assert board.deadline.counts[3, 2] == 64 * 64
    assert log.summary()["deadline_miou"] == pytest.approx(100 * (1 + 1 + 0.5 + 0) / 4)


def test_labels_that_are_there_just_in_time_count():
    board = Scoreboard(10, 10)
    board.published(100, labels(1))
    board.arrived(100, labels(1))
    board.published(110, labels(2))
    board.finish()
    assert board.streaming.counts[1, 1] == 64 * 64
    assert board.deadline.counts[1, 2] == 64 * 64  # at 110 those of 110 are the newest


def test_labels_of_another_size_are_wrong():
    board = Scoreboard(10, 10)
    board.published(0, np.zeros((32, 32), np.uint8))
    board.arrived(1, np.zeros(SIZE, np.uint8))
    board.finish()
    assert board.streaming.num_pixels == 64 * 64 and board.streaming.mean_iou() == 0


def test_frames_without_truth_are_not_compared():
    coming = arrivals(frames(0, 10, truth=False), 10 * MS)
    summary = simulate(lambda frame, now_ns: (result(frame), MS), coming, 10, 10 * MS).summary()
    assert summary["labelled_frames"] == 0 and summary["streaming_miou"] is None and summary["outputs"] == 2


def test_stamps_that_do_not_advance_come_one_period_later():
    coming = list(arrivals(frames(500, 510, 510, 100, 115), 10 * MS))
    assert [arrival.at_ns // MS for arrival in coming] == [0, 10, 20, 30, 45]
    assert [arrival.frame.stamp_ns // MS for arrival in coming] == [500, 510, 510, 100, 115]


def test_a_jump_of_the_clock_takes_as_long_as_the_recorder_says():
    days = 300 * 86400 * 1000
    recorded = zip(frames(0, 0, 500, 510, days, days + 10, 20), (0, 9, 21, 31, 43, 53, 60), strict=True)
    coming = list(arrivals([replace(frame, received_ns=t * MS) for frame, t in recorded], 10 * MS))
    assert [arrival.at_ns // MS for arrival in coming] == [0, 9, 509, 519, 531, 541, 548]
    twice = [arrival.at_ns / MS for arrival in arrivals([arrival.frame for arrival in coming], 10 * MS, speed=2.0)]
    assert twice == [at_ns / MS / 2 for at_ns, _ in coming]
    assert [arrival.at_ns // MS for arrival in arrivals(frames(0, days, days + 10), 10 * MS)] == [0, 10, 20]


def test_played_at_double_rate_stamps_are_those_of_a_faster_camera():
    coming = list(arrivals(frames(500, 510, 530), 10 * MS, speed=2.0))
    assert [arrival.at_ns // MS for arrival in coming] == [0, 5, 15]
    assert [arrival.frame.stamp_ns // MS for arrival in coming] == [250, 255, 265]


def test_real_threads_drop_all_but_the_newest():
    coming = [Arrival(i * MS, frame) for i, frame in enumerate(frames(*range(8)))]
    begun, gate = [], threading.Event()

    class Coming(list):
        """Lets the worker go on once the last frame but one has been left."""

        def __iter__(self):
            for i, arrival in enumerate(list.__iter__(self)):
                if i == 1:
                    while not begun:
                        gate.wait(0.001)
                yield arrival
                if i == len(self) - 1:
                    gate.set()

    def step(frame):
        begun.append(frame.name)
        assert gate.wait(60)
        return result(frame, is_key=True)

    log = play(step, Coming(coming), 10, MS)
    assert begun == ["0", "7"]
    assert (log.frames, log.dropped, len(log.outputs)) == (8, 6, 2)
    assert all(o.arrived_ns <= o.begun_ns <= o.done_ns for o in log.outputs)
    assert all(a.done_ns <= b.begun_ns for a, b in pairwise(log.outputs))
    assert log.summary()["key_frames"] == 2


def test_what_the_worker_raises_is_raised():
    def step(frame):
        raise ValueError("no labels today")

    with pytest.raises(ValueError, match="no labels today"):
        play(step, list(arrivals(frames(0, 1, 2), MS)), 10, MS)


def test_timings_from_text():
    assert WorkerTimes.parse("key_ms=80,step_ms=10.5") == WorkerTimes(80.0, 10.5)
    assert WorkerTimes.parse("step_ms=1, key_ms=2") == WorkerTimes(2.0, 1.0)
    for text in ("key_ms=80", "key_ms=80,step_ms=0", "key_ms=a,step_ms=1", "a=1,b=2", "key_ms=1,key_ms=1", "", "80,10"):
        with pytest.raises(ConfigError, match="timings: expected key_ms=A,step_ms=B"):
            WorkerTimes.parse(text)
