"""Tests that speak DDS do it on this machine only, in a domain of their own, and log to a temporary folder."""

import os

import pytest

from vidseg_ros.transport import profile_environment

# Above this the ports of a domain lie among those that Linux hands out to anybody.
HIGHEST_DOMAIN = 100


@pytest.fixture(scope="session", autouse=True)
def ros_environment(tmp_path_factory):
    """The variables that are set, for processes that a test starts; they are in this process's environment too."""
    variables = {
        "ROS_DOMAIN_ID": str(1 + os.getpid() % HIGHEST_DOMAIN),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "ROS_LOG_DIR": str(tmp_path_factory.mktemp("ros_log")),
        **profile_environment(os.environ),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield variables


@pytest.fixture(scope="session")
def ros(ros_environment):
    """rclpy, initialised once for all tests in this process."""
    rclpy = pytest.importorskip("rclpy", reason="needs ROS (extra `ros`)")
    rclpy.init()
    yield rclpy
    rclpy.try_shutdown()
