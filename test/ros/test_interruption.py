"""A signal that comes while a program still loads its libraries."""

import os
import signal
import subprocess
import sys

import pytest

# In place of rclpy: tells that it is being imported, and is for ever.
STAND_IN = """
import signal
print("importing", flush=True)
while True:
    signal.pause()
"""
DEADLINE_S = 60


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("program", "name", "status"),
    [
        (("-m", "vidseg_ros.node"), "vidseg_node", 0),
        (("-m", "vidseg_ros.player.camera_player"), "camera_player", 0),
        (("-m", "vidseg_ros.player"), "camera_player", 0),
        (("-m", "vidseg_ros.demo.score"), "score", 0),
        (("-m", "vidseg_ros.demo"), "demo", 130),
        (("-c", "from vidseg_ros.programs import vidseg_node; vidseg_node()"), "vidseg_node", 0),
    ],
    ids=lambda value: value[1] if isinstance(value, tuple) else None,
)
def test_it_leaves_one_line(program, name, status, number, tmp_path, checkout):
    (tmp_path / "rclpy.py").write_text(STAND_IN)
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{checkout}"}
    command = [sys.executable, *program]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=checkout, env=environment, **pipes) as started:
        try:
            assert started.stdout.readline() == "importing\n"
            started.send_signal(number)
            _, errors = started.communicate(timeout=DEADLINE_S)
        finally:
            started.kill()
    assert errors == f"{name}: ended by {signal.Signals(number).name} while it was starting\n"
    assert started.returncode == status
