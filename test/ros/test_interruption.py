"""Signals that end a program, whenever they come."""

import os
import signal
import subprocess
import sys

import pytest

from vidseg_ros import interruption

# In place of rclpy: tells that it is being imported, and is for ever.
STAND_IN = """
import time
print("importing", flush=True)
while True:
    time.sleep(0.01)  # not `pause`, which a signal just before it leaves waiting for another
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
def test_one_that_comes_during_imports_leaves_one_line(program, name, status, number, tmp_path, checkout):
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_that_comes_while_python_starts_is_held_back(number, tmp_path, checkout):
    """As launch files start it: signals are blocked, and this one waits before any line of Python has run."""
    (tmp_path / "rclpy.py").write_text(STAND_IN)
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{checkout}"}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, interruption.ENDING)  # the process inherits it
    try:
        started = subprocess.Popen(
            [sys.executable, "-m", "vidseg_ros.node"], cwd=checkout, env=environment, stderr=subprocess.PIPE, text=True
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    started.send_signal(number)
    try:
        _, errors = started.communicate(timeout=DEADLINE_S)
    finally:
        started.kill()
    assert errors == f"vidseg_node: ended by {signal.Signals(number).name} while it was starting\n"
    assert started.returncode == 0


@pytest.fixture
def handlers():
    before = {one: signal.getsignal(one) for one in interruption.ENDING}
    yield
    for one, handler in before.items():
        signal.signal(one, handler)


def test_a_signal_that_comes_twice_interrupts_once(handlers, monkeypatch):
    times_s = iter([10.0, 10.5, 12.0])
    monkeypatch.setattr(interruption.time, "monotonic", lambda: next(times_s))
    interruption.interrupt_at_signal()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGTERM)  # half a second later
    with pytest.raises(KeyboardInterrupt):  # and one that is meant
        signal.raise_signal(signal.SIGINT)


def test_a_process_that_is_ending_does_so_in_peace(handlers):
    interruption.ignore_signals()
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGTERM)
