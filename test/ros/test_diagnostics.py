"""Levels, rates and percentiles, with both clocks in the test's hand."""

import pytest

pytest.importorskip("diagnostic_msgs", reason="needs ROS (extra `ros`)")

from vidseg_ros.demo.listener import OUTCOMES  # noqa: E402
from vidseg_ros.diagnostics import ERROR, OK, WARN, Rates, Statistics, Tick, device_name  # noqa: E402

SECOND = 1_000_000_000
TOPIC = "/front/image_raw"


class Camera:
    """A camera whose clocks and frames are as told."""

    def __init__(self, wanted=0.0):
        self.steady_ns, self.now_ns, self.wanted = 5 * SECOND, 1_700_000_000 * SECOND, wanted
        self.statistics = Statistics(TOPIC, self.steady_ns)
        self.publishers, self.state = 1, "active"

    def second(self, received=30, processed=None, ros_s=1.0, steady_s=1.0, **tick):
        """One second of frames, and the report at its end."""
        processed = received if processed is None else processed
        for i in range(received):
            self.statistics.received(self.steady_ns + round(steady_s * SECOND * (i + 1) / received))
        for i in range(processed):
            self.statistics.processed(make_tick(is_key=i % 5 == 0, label_age=i % 5, **tick))
        self.statistics.counts.dropped += received - processed
        self.steady_ns += round(steady_s * SECOND)
        self.now_ns += round(ros_s * SECOND)
        return self.report()

    def report(self):
        return self.statistics.report(self.now_ns, self.steady_ns, self.wanted, self.publishers, self.state)


def make_tick(age_ns=20_000_000, processing_ns=10_000_000, is_key=False, label_age=1, reset=None, timings=None):
    return Tick(age_ns, processing_ns, is_key, label_age, reset, {"flow": 2.0} if timings is None else timings)


def run(camera, seconds, **second):
    for _ in range(seconds):
        report = camera.second(**second)
    return report


def test_a_camera_at_its_rate_is_ok():
    report = run(Camera(), 3)
    assert report.level_and_message() == (OK, "30.0 Hz")
    values = report.values()
    assert values["Input frequency (Hz)"] == values["Actual frequency (Hz)"] == "30.00"
    assert values["Key frame frequency (Hz)"] == "6.00"
    assert values["Minimum acceptable frequency (Hz)"] == "27.00"
    assert (values["Frames received"], values["Frames processed"], values["Frames dropped"]) == ("90", "90", "0")
    assert values["Age of the key frame (frames)"] == "4"
    assert sum(int(values[outcome]) for outcome in OUTCOMES) == 90


def test_status_has_the_names_of_the_design():
    status = run(Camera(), 2).status("vidseg", "AMD EPYC")
    assert (status.name, status.hardware_id, status.level) == (f"vidseg: {TOPIC}", "AMD EPYC", OK)


def test_percentiles_are_of_the_last_period():
    camera = Camera()
    run(camera, 2, processing_ns=900_000_000)
    for took_ms in range(1, 101):
        camera.statistics.processed(make_tick(processing_ns=took_ms * 1_000_000, age_ns=took_ms * 2_000_000))
    values = camera.report().values()
    assert values["Processing latency p50 (ms)"] == "50.50"
    assert values["Processing latency p95 (ms)"] == "95.05"
    assert values["Processing latency max (ms)"] == "100.00"
    assert values["Age p50 (ms)"] == "101.00" and values["Age max (ms)"] == "200.00"
    assert camera.report().values()["Processing latency max (ms)"] == "unknown"


def test_stages_are_averaged_over_the_frames_that_had_them():
    camera = Camera()
    camera.statistics.processed(make_tick(timings={"segment": 100.0, "decode": 1.0}))
    camera.statistics.processed(make_tick(timings={"flow": 4.0, "decode": 3.0}))
    values = camera.report().values()
    assert values["Engine segment (ms)"] == "100.00" and values["Engine flow (ms)"] == "4.00"
    assert values["Engine decode (ms)"] == "2.00" and values["Engine total (ms)"] == "54.00"


def test_a_slow_engine_warns_with_the_reason():
    report = run(Camera(), 3, received=60, processed=5, timings={"segment": 200.0})
    assert report.level_and_message() == (
        WARN,
        "5.0 Hz, wanted 60.0 Hz: the engine takes 200 ms per frame and 55.0 frames per second are dropped",
    )


def test_a_slow_camera_warns_where_more_is_wanted():
    report = run(Camera(wanted=30.0), 3, received=10)
    assert report.level_and_message() == (WARN, "10.0 Hz, wanted 30.0 Hz: the camera delivers 10.0 Hz")
    assert report.input_too_slow
    assert run(Camera(), 3, received=10).level_and_message() == (OK, "10.0 Hz")


def test_no_frames_are_an_error():
    camera = Camera()
    run(camera, 2)
    silent = run(camera, 3, received=0)
    assert silent.level_and_message() == (ERROR, f"no frame for 3.0 s, though {TOPIC} has a publisher")
    camera.publishers = 0
    assert camera.second(received=0).level_and_message() == (ERROR, f"no frame for 4.0 s: nobody publishes {TOPIC}")
    assert run(camera, 4).level_and_message() == (OK, "30.0 Hz")


def test_a_slow_camera_is_given_its_time():
    camera = Camera(wanted=0.5)
    run(camera, 2, received=1)
    assert not run(camera, 3, received=0).is_silent
    assert run(camera, 4, received=0).is_silent


def test_before_the_first_frame_it_waits():
    assert run(Camera(), 2, received=0).level_and_message() == (OK, "waiting for frames")


@pytest.mark.parametrize("state", ["inactive", "disabled"])
def test_who_is_not_active_is_not_silent(state):
    camera = Camera()
    camera.state = state
    assert run(camera, 9, received=0).level_and_message() == (OK, state)


def test_what_failed_is_an_error_until_the_next_report():
    camera = Camera()
    run(camera, 2)
    camera.statistics.failed("frame refused")
    assert camera.second().level_and_message() == (ERROR, "frame refused")
    recovered = camera.second()
    assert recovered.level_and_message() == (OK, "30.0 Hz")
    assert recovered.values()["Last error"] == "frame refused"


def test_resets_are_counted_with_their_reason():
    camera = Camera()
    assert camera.second().values()["Last reset"] == "none"
    camera.statistics.processed(make_tick(reset="time ran back by 2.000 s"))
    values = camera.report().values()
    assert (values["Resets"], values["Last reset"]) == ("1", "time ran back by 2.000 s")


def test_rates_are_in_ros_time():
    twice_as_fast = run(Camera(), 4, received=60, ros_s=2.0)
    assert twice_as_fast.values()["Actual frequency (Hz)"] == "30.00"


def test_a_clock_that_stands_still_has_no_rates_and_says_so():
    camera = Camera()
    run(camera, 3)
    paused = run(camera, 3, received=0, ros_s=0)
    level, message = paused.level_and_message()
    assert level == WARN and "stands still" in message
    assert paused.values()["Actual frequency (Hz)"] == "unknown"
    assert run(camera, 3).values()["Actual frequency (Hz)"] == "30.00"


def test_a_clock_that_jumps_back_starts_the_rates_afresh():
    camera = Camera()
    run(camera, 3)
    assert camera.second(ros_s=-100.0).rates is None
    assert camera.second().values()["Actual frequency (Hz)"] == "30.00"


@pytest.mark.parametrize(("age_s", "seconds"), [(-0.5, "-0.500"), (3600, "3600.000")])
def test_clocks_that_disagree_are_named(age_s, seconds):
    report = run(Camera(), 3, age_ns=round(age_s * SECOND))
    text = f"clocks disagree: stamps are {seconds} s old"
    assert report.level_and_message() == (OK, f"30.0 Hz, {text}")
    assert report.values()["Clocks"] == text
    assert report.values()["Processing latency p50 (ms)"] == "10.00"


def test_frames_without_stamps_have_no_age():
    values = run(Camera(), 2, age_ns=None).values()
    assert values["Age p50 (ms)"] == values["Age max (ms)"] == "no stamps"


def test_rates_span_several_reports():
    rates = Rates()
    assert rates.update(0, (0, 0)) is None
    assert rates.update(SECOND, (10, 1)) == (10.0, 1.0)
    assert rates.update(2 * SECOND, (30, 1)) == (15.0, 0.5)
    for second in range(3, 7):
        last = rates.update(second * SECOND, (30 + 20 * (second - 2), 1))
    assert last == (20.0, 0.0)


def test_nothing_grows_when_nobody_reports():
    camera = Camera()
    for _ in range(10_000):
        camera.statistics.processed(make_tick())
    assert len(camera.report().period.ticks) < 10_000


def test_the_cpu_has_a_name():
    assert device_name("cpu").strip()
