"""Rates and ages by the node's clock, simulated or not; latencies and reports by the steady one."""

import time
from dataclasses import replace

import pytest

pytest.importorskip("rclpy", reason="needs ROS (extra `ros`)")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402

from vidseg_ros.diagnostics import RATES_OVER_REPORTS  # noqa: E402

SECOND = 1_000_000_000
START_NS = 50 * SECOND
REPORT_S = 0.4  # for more frames in each


class Simulation:
    """Drives the clock and the camera of a rig together, as fast as frames are labelled."""

    def __init__(self, bench, rig):
        self.bench, self.rig = bench, rig
        self.now_ns = START_NS
        self.clock = bench.tester.create_publisher(Clock, "/clock", 10)

    def set_clock(self, now_ns):
        """Until the node has it."""
        self.now_ns = now_ns
        message = Clock()
        message.clock.sec, message.clock.nanosec = divmod(now_ns, SECOND)

        def arrived():
            self.clock.publish(message)
            return self.bench.node.get_clock().now().nanoseconds == now_ns

        self.bench.spin_until(arrived)

    def frame(self, step_ns=SECOND // 30, age_ns=0):
        """The next frame, labelled, and its age noted, which the node does after it has sent the labels."""
        self.set_clock(self.now_ns + step_ns)
        (camera,) = self.bench.node.cameras
        before = camera.statistics.counts.processed
        found = self.bench.exchange(self.bench.image(self.rig.picture(), stamp_ns=self.now_ns - age_ns))
        self.bench.spin_until(lambda: camera.statistics.counts.processed > before)
        return found

    def report(self, **frame):
        """Frames until a report has come that is about such frames only, and finds nothing wrong.

        Where few frames are labelled in its time, one that is under way looks like one that was dropped.
        """
        deadline, reports = time.monotonic() + self.rig.DEADLINE_S, -1  # one may be under way
        while reports < RATES_OVER_REPORTS or self.bench.statuses[-1].level != DiagnosticStatus.OK:
            assert time.monotonic() < deadline, self.bench.statuses[-1].message
            begun = len(self.bench.statuses)
            while len(self.bench.statuses) == begun:
                self.frame(**frame)
            reports += 1
        return self.bench.statuses[-1]

    def rates(self, **frame):
        """Input and output (Hz) in such a report, and how far each may be off: by a frame that is under way."""
        values = self.bench.values(self.report(**frame))
        begin = self.bench.values(self.bench.statuses[-RATES_OVER_REPORTS])
        off = 1.5 / (int(values["Frames processed"]) - int(begin["Frames processed"]))
        return [pytest.approx(float(values[f"{which} frequency (Hz)"]), rel=off) for which in ("Input", "Actual")]


@pytest.fixture
def simulation(rig, ros):
    with rig.Rig(ros, rig.StandIn(), report_s=REPORT_S, use_sim_time=True) as bench:
        driven = Simulation(bench, rig)
        driven.set_clock(START_NS)
        bench.stamp_ns = START_NS - SECOND
        bench.prime()
        yield driven


def test_rates_follow_the_simulated_clock(simulation):
    assert simulation.rates() == [30, 30]
    assert simulation.rates(step_ns=SECOND // 60) == [60, 60]


def test_reports_go_on_while_the_clock_is_paused(simulation):
    simulation.report()
    paused = simulation.bench.spin_reports(3)
    assert paused.level == DiagnosticStatus.WARN and "stands still" in paused.message
    assert simulation.bench.values(paused)["Actual frequency (Hz)"] == "unknown"
    assert simulation.rates() == [30, 30]
    assert simulation.bench.statuses[-1].level == DiagnosticStatus.OK


def test_frames_are_labelled_while_the_clock_is_paused(simulation):
    bench, rig = simulation.bench, simulation.rig
    message = bench.image(rig.picture(), stamp_ns=START_NS + 5)
    assert bench.exchange(message)["labels"].header == message.header


def test_without_a_clock_it_says_so(rig, ros):
    with rig.Rig(ros, rig.StandIn(), report_s=REPORT_S, use_sim_time=True) as bench:
        bench.prime()
        status = bench.spin_reports(3)
        assert status.level == DiagnosticStatus.WARN and "use_sim_time" in status.message


def test_age_and_processing_latency_are_separate(simulation):
    values = simulation.bench.values(simulation.report(age_ns=4 * SECOND))
    # The clock is set before a frame is sent, and stands still while it is labelled.
    assert values["Age p50 (ms)"] == values["Age max (ms)"] == "4000.00"
    assert 0 < float(values["Processing latency p50 (ms)"]) < 4000
    assert "Clocks" not in values


@pytest.mark.parametrize("age_ns", [-SECOND, 11 * SECOND])
def test_clocks_that_disagree(simulation, age_ns):
    status = simulation.report(age_ns=age_ns)
    assert "clocks disagree" in status.message and status.level == DiagnosticStatus.OK
    assert simulation.bench.values(status)["Clocks"] == f"clocks disagree: stamps are {age_ns / SECOND:.3f} s old"


def test_a_bag_that_loops_resets_the_stream_and_the_rates(rig, ros, weights):
    """Clock and stamps go back together; the stream notices by itself."""
    with rig.Rig(ros, weights=str(weights), num_threads=1, report_s=REPORT_S, use_sim_time=True) as bench:
        driven = Simulation(bench, rig)
        driven.set_clock(START_NS)
        bench.stamp_ns = START_NS - SECOND
        bench.prime()
        for _ in range(3):
            driven.frame()
        driven.set_clock(START_NS - 20 * SECOND)
        driven.frame()
        assert driven.rates() == [30, 30]
        assert bench.values(bench.statuses[-1])["Last reset"].startswith("time ran back by ")


def test_a_slow_frame_resets_nothing(rig, ros):
    """The engine is at one frame while the camera sends two seconds of them: no pause of the camera's."""
    engine, gate = rig.StandIn(), rig.Gate()
    with rig.Rig(ros, engine) as bench:
        bench.prime()
        engine.before = gate
        bench.publisher("image_raw").publish(bench.image(rig.picture()))
        bench.spin_until(gate.reached.is_set)
        [camera] = bench.node.cameras
        begun = camera.statistics.counts.received
        for i in range(1, 61):  # one at a time: only the newest waits in DDS
            bench.publisher("image_raw").publish(bench.image(rig.picture()))
            bench.spin_until(lambda i=i: camera.statistics.counts.received == begun + i)
        engine.before = lambda frame: None
        gate.open()
        bench.spin_until(lambda: engine.steps[-1].stamp_ns == bench.stamp_ns)
        assert engine.steps[-1].stamp_ns - engine.steps[-2].stamp_ns == 60 * rig.STEP_NS
        assert engine.steps[-1].pause_s == 0


def test_a_pause_of_the_camera_is_told_to_the_stream(rig, ros):
    engine = rig.StandIn()
    with rig.Rig(ros, engine) as bench:
        bench.prime()
        bench.stamp_ns += 3 * SECOND
        bench.exchange(bench.image(rig.picture()))
        assert engine.steps[-1].pause_s == pytest.approx(3 + rig.STEP_NS / SECOND, abs=0.5)
        bench.exchange(bench.image(rig.picture()))
        assert engine.steps[-1].pause_s == 0


def test_after_a_stall_of_the_process_the_next_frame_is_a_key_frame_and_nothing_is_reset(rig, ros):
    engine = rig.StandIn()
    with rig.Rig(ros, engine, max_gap_s=0.3) as bench:
        bench.prime()
        bench.exchange(bench.image(rig.picture()))
        stream = engine.streams[-1]
        resets, requests = len(stream.resets), stream.key_requests
        time.sleep(1.0)  # the executor's thread does not run, as in a stopped process
        bench.stamp_ns += SECOND
        bench.exchange(bench.image(rig.picture()))
        assert (len(stream.resets), stream.key_requests) == (resets, requests + 1)
        assert engine.steps[-1].pause_s == 0


class Aged:
    """Make the stand-in's labels as old as is said."""

    def __init__(self, rig, age_s):
        self.engine, self.age_s = rig.StandIn(), age_s
        step, aged = rig.StandInStream.step, self

        class Stream(rig.StandInStream):
            def step(self, frame):
                result = step(self, frame)
                return replace(result, evidence_ns=result.stamp_ns - round(aged.age_s * SECOND))

        self.engine.stream = lambda ego_mask=None, phase=0.0: Stream(self.engine, ego_mask, phase)


def test_old_evidence_is_not_passed_off_as_new(rig, ros):
    aged = Aged(rig, 0.5)
    with rig.Rig(ros, aged.engine, outputs=("labels", "confidence"), publish_confidence=True) as bench:
        bench.prime()
        image = rig.picture()
        good = bench.exchange(bench.image(image))
        assert (rig.array_of(good["labels"]) == image[..., 0] % 11).all()
        aged.age_s = 1.5
        old = bench.exchange(bench.image(image))
        assert (rig.array_of(old["labels"]) == 255).all() and not rig.array_of(old["confidence"]).any()
        bench.spin_until(lambda: bench.statuses[-1].level == DiagnosticStatus.ERROR)
        assert bench.statuses[-1].message == "labels are void: their evidence is 1.50 s old, max_age_s is 1"
        assert bench.values(bench.statuses[-1])["Frames with outdated labels"] == "1"
        assert bench.set("max_age_s", 2.0).successful
        again = bench.exchange(bench.image(image))
        assert (rig.array_of(again["labels"]) == image[..., 0] % 11).all()


def test_the_status_of_each_frame_comes_with_its_stamp(rig, ros):
    aged = Aged(rig, 0.25)
    with rig.Rig(ros, aged.engine) as bench:
        bench.listen("status", DiagnosticArray)
        bench.prime()
        topic = f"{bench.namespace}/status"
        bench.spin_until(lambda: bench.node.count_subscribers(topic) and bench.tester.count_publishers(topic))
        bench.spin_until(lambda: bench.node.cameras[0]._status.get_subscription_count() > 0)
        message = bench.image(rig.picture())
        bench.exchange(message)
        bench.spin_until(lambda: bench.received["status"] and bench.received["status"][-1].header == message.header)
        [status] = bench.received["status"][-1].status
        assert (status.level, status.message) == (DiagnosticStatus.OK, "key frame")
        assert status.name.endswith(f"{bench.namespace}/image_raw")
        assert bench.values(status) == {
            "Key frame": "true",
            "Reason": "stand-in",
            "Age (s)": "0.250",
            "Age (frames)": "0",
            "Void share": "0.0000",
            "Reset": "none",
        }
        aged.age_s = 9.0
        message = bench.image(rig.picture())
        bench.exchange(message)
        bench.spin_until(lambda: bench.received["status"][-1].header == message.header)
        [status] = bench.received["status"][-1].status
        assert (status.level, status.message) == (DiagnosticStatus.ERROR, "outdated")
        assert bench.values(status)["Void share"] == "1.0000"
