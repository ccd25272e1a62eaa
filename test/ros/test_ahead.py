"""That a program looks for no garbage while it starts, and does so afterwards."""

import gc
import subprocess
import sys

import pytest

pytest.importorskip("rclpy", reason="needs ROS (extra `ros`)")

from vidseg_ros import node  # noqa: E402

PROGRAM = """
import gc, sys, types
from vidseg_ros.programs import vidseg_node

loaded = types.ModuleType("vidseg_ros.node")
loaded.program = lambda: print(gc.isenabled())
sys.modules["vidseg_ros.node"] = loaded
sys.argv = ["vidseg_node", "--ros-args", "-p", "engine:=pass_through"]
vidseg_node()
"""


class Started:
    """Stands for the node: it notes whether Python looks for garbage while it starts, and wants to end at once."""

    exit_code = 0

    def __init__(self, **arguments):
        self.collects = []
        Started.made = self

    def start(self):
        self.collects.append(gc.isenabled())

    def get_logger(self):
        return None

    def release(self):
        return True

    def destroy_node(self):
        self.collects.append(gc.isenabled())


class Executor:
    def add_node(self, one):
        pass


def test_the_program_looks_for_no_garbage_while_it_loads_the_node():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["False"]


def test_the_node_looks_for_garbage_once_it_has_started(monkeypatch):
    monkeypatch.setattr(node, "VidsegNode", Started)
    monkeypatch.setattr(node, "SingleThreadedExecutor", Executor)
    monkeypatch.setattr(node.signal, "signal", lambda number, handler: None)
    monkeypatch.setattr(node.logging.getLogger("vidseg_core"), "handlers", [])
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        assert node._run(None) == 0
        assert Started.made.collects == [False, True]
    finally:
        gc.enable() if was_enabled else gc.disable()
