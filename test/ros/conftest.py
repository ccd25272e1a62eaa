"""Tests that speak DDS do it on this machine only, in a domain of their own, and log to a temporary folder."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vidseg_ros.transport import profile_environment

# Above this the ports of a domain lie among those that Linux hands out to anybody.
HIGHEST_DOMAIN = 100
END_S = 10


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


@pytest.fixture(scope="session")
def rig(ros):
    """The module `rig.py` beside this file: `rig.Rig` is a camera, the node and a listener on real DDS."""
    specification = importlib.util.spec_from_file_location("rig", Path(__file__).with_name("rig.py"))
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


def end(process: subprocess.Popen) -> None:
    """Ask first: who is killed leaves 64 MB of shared memory behind."""
    process.terminate()
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture
def process(ros_environment, checkout):
    """Starts the node as a process of its own: parameters as `name:=value`, or another script in its place."""
    started = []

    def start(*parameters, script=None, namespace="/outside", files=()):
        command = ["-m", "vidseg_ros.node"] if script is None else ["-c", script]
        given = [part for parameter in parameters for part in ("-p", parameter)]
        given += [part for file in files for part in ("--params-file", str(file))]
        arguments = [sys.executable, *command, "--ros-args", "-r", f"__ns:={namespace}", *given]
        started.append(subprocess.Popen(arguments, cwd=checkout, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for one in started:
        end(one)
        one.stderr.close()


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """A segmentation network of CamVid's 11 classes that nobody has trained."""
    import torch

    from vidseg_core.classes import load_classes
    from vidseg_core.models.files import save_weights
    from vidseg_core.networks.swiftnet import SwiftNet

    path = tmp_path_factory.mktemp("weights") / "untrained.safetensors"
    torch.manual_seed(0)
    metadata = {"architecture": "swiftnet-r18", "classes": load_classes("camvid").to_dict()}
    save_weights(path, SwiftNet(11).state_dict(), metadata)
    return path
