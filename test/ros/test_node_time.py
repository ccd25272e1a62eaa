"""Rates and ages by the node's clock, simulated or not; latencies and reports by the steady one."""

import time

import pytest

pytest.importorskip("rclpy", reason="needs ROS (extra `ros`)")

from diagnostic_msgs.msg import DiagnosticStatus  # noqa: E402
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
        """The next frame, labelled."""
        self.set_clock(self.now_ns + step_ns)
        return self.bench.exchange(self.bench.image(self.rig.picture(), stamp_ns=self.now_ns - age_ns))

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
