from dataclasses import replace

import pytest

from vidseg_core.engine.config import EngineConfig
from vidseg_core.errors import ConfigError
from vidseg_core.fleet.plan import LEAD_KEY_FRAMES, Choices, Drive, cut, pauses, settled

CONFIG = EngineConfig(runtime="eager", device="cpu")
DRIVE = Drive("drives/a", "c0ffee", "/camera/image_raw", None, 100, 15.0)


@pytest.mark.parametrize("num_frames", [1, 4, 99, 100, 101, 1234])
@pytest.mark.parametrize("breaks", [(), (1,), (40, 77)])
@pytest.mark.parametrize(("length", "lead", "period"), [(30, 10, 5), (1, 0, 1), (7, 3, 5), (10_000, 40, 5)])
def test_every_frame_is_in_one_segment_that_begins_where_key_frames_are(num_frames, breaks, length, lead, period):
    breaks = tuple(one for one in breaks if one < num_frames)
    parts = list(cut(num_frames, breaks, length, lead, period))
    assert [number for _, first, stop in parts for number in range(first, stop)] == list(range(num_frames))
    for begin, first, stop in parts:
        run = max([0, *(one for one in breaks if one <= first)])
        assert run <= begin <= first < stop
        assert (begin - run) % period == 0 and (first - run) % period == 0
        assert begin == run or first - begin >= lead
        assert not any(begin < one < stop for one in breaks)


def test_segments_are_about_as_long_as_is_asked_for():
    assert list(cut(100, (), 30, 8, 5)) == [(0, 0, 35), (25, 35, 70), (60, 70, 100)]
    assert list(cut(100, (60,), 1000, 8, 5)) == [(0, 0, 60), (60, 60, 100)]
    assert list(cut(0, (), 30, 8, 5)) == []


def test_the_lead_is_as_long_as_state_reaches():
    assert Choices("replay", replace(CONFIG, fusion=False)).is_exact
    assert Choices("replay", replace(CONFIG, fusion=False, interval=3)).lead == 4
    assert Choices("replay", replace(CONFIG, interval=3)).lead == 4 * LEAD_KEY_FRAMES
    adaptive = Choices("replay", replace(CONFIG, schedule="adaptive", fusion=False))
    assert (adaptive.is_exact, adaptive.period, adaptive.lead) == (False, 1, 13 * LEAD_KEY_FRAMES)
    assert Choices("replay", CONFIG, lead_frames=0).lead == 0


def test_results_depend_on_what_decides_them_and_on_nothing_else():
    files = {"weights": "aa"}
    base = Choices("replay", CONFIG)
    same = [replace(base, config=replace(CONFIG, num_threads=3)), replace(base, topics=("/a",))]
    other = [
        Choices("label", CONFIG),
        replace(base, config=replace(CONFIG, interval=2)),
        replace(base, skip_bad=True),
        replace(base, size=(120, 160)),
        replace(base, look_every=3),
        replace(base, labels="none"),
    ]
    assert {one.address(files) for one in same} == {base.address(files)}
    addresses = {one.address(files) for one in other} | {base.address(files), base.address({"weights": "bb"})}
    assert len(addresses) == len(other) + 2


def test_segments_are_addressed_by_content_and_not_by_place():
    choices = Choices("replay", CONFIG, segment_frames=50)
    segments = DRIVE.segments(choices, "x")
    assert [(one.begin, one.first, one.stop) for one in segments] == [(0, 0, 50), (10, 50, 100)]
    moved = replace(DRIVE, place="elsewhere/b").segments(choices, "x")
    assert [one.address for one in moved] == [one.address for one in segments]
    others = [replace(DRIVE, content="bad").segments(choices, "x"), DRIVE.segments(choices, "y")]
    others.append(replace(DRIVE, topic="/rear/image_raw").segments(choices, "x"))
    every = {one.address for one in segments} | {one.address for other in others for one in other}
    assert len(every) == 8


def test_pauses_are_longer_than_a_stream_goes_on():
    second = 10**9
    assert pauses([0, second, 3 * second, 4 * second], 1.0) == (2,)
    assert pauses([5, 5, 5], 1.0) == () == pauses([], 1.0)


def test_what_machines_would_choose_for_themselves_is_settled():
    config = settled(EngineConfig(), on_gpu=False)
    assert (config.device, config.runtime) == ("cpu", "openvino")
    config = settled(EngineConfig(), on_gpu=True)
    assert (config.device, config.runtime) == ("cuda", "eager")
    assert settled(EngineConfig(runtime="eager", device="cpu"), on_gpu=True).device == "cpu"


def test_choices_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="key_frames: expected sync"):
        Choices("replay", replace(CONFIG, key_frames="async"))
    for name, value in (("segment_frames", 0), ("look_every", 0), ("lead_frames", -1)):
        with pytest.raises(ConfigError, match=f"{name}: expected . or more, got {value}"):
            Choices("replay", CONFIG, **{name: value})
    with pytest.raises(ConfigError, match="kind"):
        Choices("train", CONFIG)
