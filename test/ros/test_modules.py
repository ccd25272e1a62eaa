"""The programs of the package run as modules, too: where nothing is installed."""

import subprocess
import sys

import pytest

pytest.importorskip("rclpy", reason="needs ROS (extra `ros`)")


@pytest.mark.parametrize(
    ("module", "usage"),
    [
        ("vidseg_ros.demo", "usage: demo "),
        ("vidseg_ros.demo.main", "usage: demo "),
        ("vidseg_ros.demo.score", "usage: score "),
        ("vidseg_ros.player", "usage: camera_player "),
        ("vidseg_ros.player.camera_player", "usage: camera_player "),
        ("vidseg_ros.benchmarks.transport", "usage: transport.py "),
        ("vidseg_ros.benchmarks.cameras", "usage: cameras.py "),
    ],
)
def test_help_of_a_module(module, usage, checkout):
    done = subprocess.run([sys.executable, "-m", module, "--help"], cwd=checkout, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith(usage), done.stderr


def test_a_wrong_argument_is_the_user_s_error(checkout):
    command = [sys.executable, "-m", "vidseg_ros.player", "absent", "--rate", "0"]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True)
    assert done.returncode == 2 and "expected a number above 0, got 0" in done.stderr
