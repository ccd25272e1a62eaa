"""The real node, as a process: stopped for seconds it goes on afterwards, with one reset at most."""

import os
import signal
import time

import pytest

pytest.importorskip("rclpy", reason="needs ROS (extra `ros`)")

from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402

from vidseg_ros.benchmarks.transport import (  # noqa: E402
    NAMESPACE,
    PROCESSES,
    START_S,
    Load,
    Trial,
    camera_arguments,
    profiled_environment,
)

STOPPED_S = 5.0
LOAD = Load(320, 192, 10.0, 10**9)


@pytest.mark.long
def test_a_process_that_was_stopped_goes_on(ros):
    reports = []
    node = ros.create_node("observer")
    node.create_subscription(
        DiagnosticArray,
        "/diagnostics",
        lambda message: reports.extend({one.key: one.value for one in status.values} for status in message.status),
        10,
    )
    executor = SingleThreadedExecutor()
    executor.add_node(node)

    def wait_for(condition):
        deadline_s = time.monotonic() + START_S
        while not (reports and condition(reports[-1])):
            assert time.monotonic() < deadline_s, reports[-1:]
            executor.spin_once(timeout_sec=1.0)
        return reports[-1]

    with Trial(profiled_environment()) as trial:
        trial.start("camera", (PROCESSES, "camera", "--reliability", "best_effort", *camera_arguments(LOAD)))
        trial.start("node", ("vidseg_ros.node", "--ros-args", "-r", f"__ns:={NAMESPACE}"))
        before = wait_for(lambda values: int(values["Frames processed"]) > 20)
        os.kill(trial.pid("node"), signal.SIGSTOP)
        time.sleep(STOPPED_S)
        os.kill(trial.pid("node"), signal.SIGCONT)
        processed = int(before["Frames processed"])
        after = wait_for(lambda values: int(values["Frames processed"]) > processed + 50)
        assert int(after["Resets"]) - int(before["Resets"]) <= 1
        assert int(after["Engine faults"]) == 0
        assert trial.cpu_s("node") > 0  # it is the same process
    node.destroy_node()
