import pytest

from vidseg_core.engine.config import EngineConfig
from vidseg_core.engine.schedule import Adaptive, FixedInterval, schedule_of


@pytest.mark.parametrize(("interval", "expected"), [(0, "KKKKKKK"), (1, "K.K.K.K"), (4, "K....K.")])
def test_fixed_interval(interval, expected):
    schedule, age, seen = FixedInterval(interval), None, ""
    for _ in expected:
        is_key = schedule.decide(age).is_key
        age = 0 if is_key else age + 1
        seen += "K" if is_key else "."
    assert seen == expected


def test_reasons():
    schedule = FixedInterval(2)
    assert schedule.decide(None).reason == "first frame"
    assert schedule.decide(2).reason == "interval"
    assert schedule.decide(1).reason == "propagated"


def test_adaptive_asks_when_the_picture_has_changed_within_its_bounds():
    schedule = Adaptive(2, 5, 0.3)
    assert schedule.decide(None, 0.0).reason == "first frame"
    assert [schedule.decide(n, 0.0).is_key for n in range(7)] == [False] * 5 + [True] * 2
    assert [schedule.decide(n, 0.3).is_key for n in range(7)] == [False] * 2 + [True] * 5
    assert schedule.decide(1, 1.0).reason == "propagated"
    assert schedule.decide(3, 0.4).reason == "picture changed"
    assert schedule.decide(5, 0.4).reason == "interval"


def test_the_configuration_s_schedule():
    fixed = schedule_of(EngineConfig(interval=7))
    assert isinstance(fixed, FixedInterval) and fixed.longest == 7 and not fixed.looks
    adaptive = schedule_of(EngineConfig(schedule="adaptive", min_interval=2, max_interval=9, change_threshold=0.1))
    assert (adaptive.shortest, adaptive.longest, adaptive.threshold, adaptive.looks) == (2, 9, 0.1, True)
