import time

import torch

from vidseg_core.engine.event_times import EventTimes
from vidseg_core.engine.state import StageTimes


class Clock:
    """Stands in for a CUDA event: a device that needs 2 ms from one event to the next."""

    now_ms = 0.0

    def __init__(self, enable_timing):
        assert enable_timing
        self.at_ms = None
        self.reached = False

    def record(self):
        Clock.now_ms += 2.0
        self.at_ms = Clock.now_ms

    def synchronize(self):
        self.reached = True

    def elapsed_time(self, end):
        assert end.reached, "a time is known when the device has come that far"
        return end.at_ms - self.at_ms


def test_a_device_s_stages_are_timed_by_its_events(monkeypatch):
    monkeypatch.setattr(torch.cuda, "Event", Clock)
    times, key_frame = EventTimes(), EventTimes()
    for name in ("flow", "warp", "flow"):
        with times.stage(name):
            pass
    with key_frame.stage("segment"):
        pass
    times.include(key_frame)
    assert times == {}, "nothing waits for the device inside a frame"
    assert times.milliseconds() == {"flow": 4.0, "warp": 2.0, "segment": 2.0} == times.milliseconds()


def test_a_stage_that_comes_twice_counts_twice(monkeypatch):
    clock = iter((1.0, 1.5, 2.0, 2.25))
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    times = StageTimes()
    for _ in range(2):
        with times.stage("flow"):
            pass
    times.include(StageTimes(segment=3.0))
    assert times.milliseconds() == {"flow": 750.0, "segment": 3.0}
