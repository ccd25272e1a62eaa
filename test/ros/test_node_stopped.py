"""The real node, as a process: whatever happened to its frames or to itself, it goes on with right labels."""

import os
import signal
import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS (extra `ros`)")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.qos import qos_profile_sensor_data  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402

from vidseg_core.engine.build import build_engine  # noqa: E402
from vidseg_core.engine.config import EngineConfig  # noqa: E402
from vidseg_core.frame import Frame  # noqa: E402
from vidseg_core.street import Street, StreetConfig  # noqa: E402
from vidseg_ros.benchmarks.transport import NAMESPACE, Trial, profiled_environment  # noqa: E402

pytestmark = pytest.mark.long

DEADLINE_S = 180.0
STEP_NS = 10_000_000
STOPPED_S = 5.0
PICTURES = 30
COMPARED = 12
# Without fusion a key frame depends on nothing before it, so that labels can be foretold from any key frame on.
OPTIONS = {
    "key_frames": "sync", "grid_stride": 4, "input_scale": 0.5, "fusion": False, "runtime": "eager", "num_threads": 1
}  # fmt: skip


class Drive:
    """The node, a camera that shows it a street, and the core's engine, which sees the same frames."""

    def __init__(self, ros, rig):
        self.rig = rig
        self.stamp_ns = time.time_ns()
        self.statuses, self.reports, self.labels = {}, [], {}
        self._shown = 0
        street = Street(StreetConfig(seed=2, width=320, height=240, rate_hz=30.0, num_frames=PICTURES))
        self._pictures = [street.render(index).image for index in range(PICTURES)]
        self._engine = build_engine(EngineConfig(**OPTIONS, interval=1000))  # key frames when the node has them
        self.node = ros.create_node("drive", namespace=NAMESPACE)
        self.publisher = self.node.create_publisher(Image, "image_raw", qos_profile_sensor_data)
        self.node.create_subscription(Image, "labels", self._on_labels, 100)
        self.node.create_subscription(DiagnosticArray, "status", self._on_status, 100)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_report, 10)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)

    def spin_until(self, condition):
        deadline_s = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline_s, self.reports[-1:]
            self._executor.spin_once(timeout_sec=0.05)

    def show(self, step_ns=STEP_NS):
        """Publish the next picture, and return what was published."""
        self.stamp_ns += step_ns
        message = Image(encoding="rgb8", height=240, width=320, step=3 * 320)
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(self.stamp_ns, 1_000_000_000)
        picture = self._pictures[self._shown % PICTURES]
        self._shown += 1
        message.data = picture.tobytes()
        self.publisher.publish(message)
        return Frame(picture, self.stamp_ns)

    def label(self, step_ns=STEP_NS):
        """Show a frame; return it, its labels and its status."""
        frame = self.show(step_ns)
        self.spin_until(lambda: frame.stamp_ns in self.labels and frame.stamp_ns in self.statuses)
        return frame, self.labels[frame.stamp_ns], self.statuses[frame.stamp_ns]

    def begin(self):
        """Show frames until labels and status of one have come."""
        self.spin_until(lambda: self.publisher.get_subscription_count() > 0)
        while self.stamp_ns not in self.labels or self.stamp_ns not in self.statuses:
            self.show()
            deadline_s = time.monotonic() + 1.0
            while time.monotonic() < deadline_s and self.stamp_ns not in self.statuses:
                self._executor.spin_once(timeout_sec=0.05)

    def compare(self, steps_ns=(STEP_NS,) * COMPARED):
        """Assert that from the first key frame on labels are those of the core's engine, which begins with it.

        Returns:
            Resets that the frames' statuses told.
        """
        stream, resets, propagated = None, [], 0
        steps_ns = list(steps_ns)
        while steps_ns:
            frame, labels, status = self.label(steps_ns[0])
            if status["Reset"] != "none":
                resets.append(status["Reset"])
            if status["Key frame"] == "true":
                stream = stream or self._engine.stream()
                stream.request_key_frame()
            if stream is None:
                continue
            steps_ns.pop(0)
            expected = stream.step(Frame(frame.image, self._shown * STEP_NS))
            assert str(expected.is_key).lower() == status["Key frame"]
            np.testing.assert_array_equal(labels, expected.labels)
            propagated += not expected.is_key
        assert propagated > 0
        return resets

    def report(self):
        """Wait for a report that knows all that has happened until now."""
        asked_ns = time.time_ns()
        self.spin_until(lambda: self.reports and self.reports[-1][0] > asked_ns)
        return self.reports[-1]

    def resets(self):
        _, _, values = self.report()
        assert (values["Engine faults"], values["Frames refused"]) == ("0", "0")
        return int(values["Resets"])

    def silence_s(self):
        """How long no frame has come, by the last report; 0 if it does not complain of that."""
        message = self.reports[-1][1].message
        return float(message.removeprefix("no frame for ").split()[0]) if message.startswith("no frame for") else 0.0

    def close(self):
        self._executor.remove_node(self.node)
        self.node.destroy_node()
        self._engine.close()

    def _on_labels(self, message):
        self.labels[self.rig.stamp_of(message)] = self.rig.array_of(message)

    def _on_status(self, message):
        self.statuses[self.rig.stamp_of(message)] = {one.key: one.value for one in message.status[0].values}

    def _on_report(self, message, info):
        values = {one.key: one.value for status in message.status for one in status.values}
        self.reports.append((info["source_timestamp"], message.status[0], values))


@pytest.fixture(scope="module")
def trial():
    with Trial(profiled_environment()) as running:
        given = [f"{name}:={str(value).lower()}" for name, value in (OPTIONS | {"interval": 3}).items()]
        parameters = [part for one in given for part in ("-p", one)]
        running.start("node", ("vidseg_ros.node", "--ros-args", "-r", f"__ns:={NAMESPACE}", *parameters))
        yield running


@pytest.fixture(scope="module")
def drive(ros, rig, trial):
    made = Drive(ros, rig)
    made.begin()
    made.compare()
    yield made
    made.close()


def test_stamps_that_jitter_at_100_hz_reset_nothing(drive):
    """Each stamp is up to 8 ms early or late, so that some run back."""
    off_ns = np.random.default_rng(1).integers(-8_000_000, 8_000_001, 61)
    steps_ns = [STEP_NS + int(step) for step in np.diff(off_ns)]
    assert min(steps_ns) < -1_000_000 and 0 not in steps_ns
    before = drive.resets()
    assert drive.compare(steps_ns) == []
    for step_ns in steps_ns * 3:  # and at the camera's own pace, whatever is dropped
        last = drive.show(step_ns)
        due_s = time.monotonic() + STEP_NS / 1e9
        drive.spin_until(lambda due_s=due_s: time.monotonic() >= due_s)
    drive.stamp_ns = max(drive.stamp_ns, last.stamp_ns) + 100_000_000
    assert drive.compare() == []
    assert drive.resets() == before


def test_a_minute_without_frames(drive):
    before = drive.resets()
    drive.spin_until(lambda: drive.silence_s() >= 60)
    assert drive.reports[-1][1].level == DiagnosticStatus.ERROR
    drive.stamp_ns += round(drive.silence_s() * 1e9)
    [reset] = drive.compare()
    assert reset.startswith("no frame for 6")
    assert drive.resets() == before + 1


def test_a_process_that_was_stopped(drive, trial):
    before = drive.resets()
    os.kill(trial.pid("node"), signal.SIGSTOP)
    deadline_s = time.monotonic() + STOPPED_S
    while time.monotonic() < deadline_s:  # the camera goes on
        drive.show(100_000_000)
        time.sleep(0.1)
    os.kill(trial.pid("node"), signal.SIGCONT)
    drive.label(100_000_000)
    drive.compare()
    assert drive.resets() - before <= 1
