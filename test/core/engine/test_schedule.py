import pytest

from vidseg_core.engine.schedule import FixedInterval


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
