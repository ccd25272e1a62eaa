"""The launch files as a user starts them, with `ros2 launch`: from this checkout, and from a colcon workspace.

`launch`, `launch_ros` and `ros2launch` come with a ROS distribution and are not on PyPI.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("ros2launch", reason="needs `ros2 launch`, which comes with a ROS distribution")
pytest.importorskip("launch_ros", reason="needs launch_ros, which comes with a ROS distribution")

from sensor_msgs.msg import Image

from vidseg_core.data.bag_writer import BagWriter
from vidseg_ros import launching
from vidseg_ros.transport import PROFILE_VARIABLES, profile_path

DEADLINE_S = 60
FILES = ("vidseg", "surround", "replay", "demo")
ROS2 = (sys.executable, "-c", "import sys; from ros2cli.cli import main; sys.exit(main())", "launch")


class Launch:
    """`ros2 launch` in a session of its own, so that whatever it leaves behind is found."""

    def __init__(self, log, *arguments, prefix=(), **environment):
        self._log = log
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
        inherited = {name: value for name, value in os.environ.items() if name not in PROFILE_VARIABLES}
        self.process = subprocess.Popen(
            [*prefix, *ROS2, *map(str, arguments)],
            env=inherited | {"PATH": path} | environment,
            cwd=log.parent,
            stdin=subprocess.DEVNULL,
            stdout=log.open("wb"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    @property
    def printed(self):
        return self._log.read_text()

    def members(self, word=""):
        """Process numbers of its session whose command line has this word; what only waits to be reaped is gone.

        Copies that a process has split off, with the same command line, are left out.
        """
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                command = (folder / "cmdline").read_text()
            except OSError:
                continue
            if int(fields[3]) == self.process.pid and fields[0] != "Z" and word in command:
                found[int(folder.name)] = int(fields[1])
        return [one for one, parent in found.items() if not word or parent not in found]

    def until(self, condition):
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline and self.process.poll() is None, self.printed
            time.sleep(0.1)

    def environment_of(self, word):
        [pid] = self.members(word)
        return dict(item.partition("=")[::2] for item in Path(f"/proc/{pid}/environ").read_text().split("\0") if item)

    def end(self, number=signal.SIGINT):
        self.process.send_signal(number)
        return self.status()

    def status(self):
        """Of its end, by when all that it started must have ended, too."""
        status = self.process.wait(DEADLINE_S)
        deadline = time.monotonic() + DEADLINE_S
        while self.members():
            assert time.monotonic() < deadline, f"left behind: {self.members()}\n{self.printed}"
            time.sleep(0.1)
        return status


@pytest.fixture
def launch(tmp_path, checkout, ros_environment):
    started = []

    def start(*arguments, **options):
        first = checkout / "launch" / f"{arguments[0]}.launch.py" if arguments[0] in FILES else arguments[0]
        started.append(Launch(tmp_path / f"launch{len(started)}.log", first, *arguments[1:], **options))
        return started[-1]

    yield start
    for one in started:
        for pid in one.members():
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def parameters(tmp_path):
    path = tmp_path / "parameters.yaml"
    path.write_text("/**:\n  ros__parameters:\n    engine: pass_through\n")
    return f"params_file:={path}"


@pytest.fixture
def drive(tmp_path):
    """Pictures whose lower half is class 3; the pass-through engine takes everything for class 0."""
    images, labels = tmp_path / "images", tmp_path / "labels"
    images.mkdir()
    labels.mkdir()
    ids = np.zeros((96, 128), np.uint8)
    ids[48:] = 3
    for i in range(10):
        cv2.imwrite(str(images / f"{i}.png"), np.full((96, 128, 3), 20 * i, np.uint8))
        cv2.imwrite(str(labels / f"{i}.png"), ids)
    return f"source:={images}", f"labels:={labels}", "rate:=20"


@pytest.fixture
def recording(tmp_path):
    """A recording with ground truth, whose lower half is class 3, and with annotations, all of class 0."""
    truth = np.zeros((96, 128), np.uint8)
    truth[48:] = 3
    with BagWriter(tmp_path / "recording") as bag:
        for i in range(10):
            at_ns = 1_000_000_000 + i * 50_000_000
            bag.write_image("/front/image_raw", "rgb8", np.full((96, 128, 3), 20 * i, np.uint8), at_ns)
            bag.write_image("/front/labels_truth", "mono8", truth, at_ns)
            bag.write_image("/front/annotations", "mono8", np.zeros_like(truth), at_ns)
    return tmp_path / "recording"


@pytest.fixture
def exchange(ros):
    """Publishes images on a topic until labels with one of their stamps arrive on another."""
    node = ros.create_node("tester")

    def until_labelled(launch, image, labels):
        publisher = node.create_publisher(Image, image, 10)
        message = Image(height=64, width=80, step=240, encoding="rgb8", data=bytes(64 * 240))
        received, sent = [], set()
        subscription = node.create_subscription(Image, labels, received.append, 10)
        deadline = time.monotonic() + DEADLINE_S
        while not received:
            assert time.monotonic() < deadline and launch.process.poll() is None, launch.printed
            message.header.stamp = node.get_clock().now().to_msg()
            sent.add((message.header.stamp.sec, message.header.stamp.nanosec))
            publisher.publish(message)
            ros.spin_once(node, timeout_sec=0.2)
        node.destroy_subscription(subscription)
        node.destroy_publisher(publisher)
        assert (received[0].header.stamp.sec, received[0].header.stamp.nanosec) in sent
        assert (received[0].height, received[0].width, received[0].encoding) == (64, 80, "mono8")

    yield until_labelled
    node.destroy_node()


@pytest.mark.parametrize("name", FILES)
def test_arguments_have_descriptions(name, launch):
    shown = launch(name, "--show-args")
    assert shown.status() == 0, shown.printed
    described = dict(re.findall(r"^    '(\w+)':\n        (.*)$", shown.printed, re.MULTILINE))
    wanted = {"params_file"} if name == "demo" else set(launching.NODE_ARGUMENTS)
    wanted |= {
        "vidseg": {"image", "respawn", "rviz"},
        "surround": {"cameras", "respawn"},
        "replay": {"source", "topic", "labels", "classes", "rate", "duration", "rviz", "json"},
        "demo": {"source", "duration", "rviz"},
    }[name]
    assert wanted <= set(described)
    assert all(text and text != "no description given" for text in described.values())


@pytest.fixture
def rviz(tmp_path):
    """A package rviz2 in which the program of that name writes down how it was called."""
    prefix, calls = tmp_path / "rviz", tmp_path / "rviz_was_called"
    (prefix / "share/ament_index/resource_index/packages").mkdir(parents=True)
    (prefix / "share/ament_index/resource_index/packages/rviz2").touch()
    (prefix / "lib/rviz2").mkdir(parents=True)
    program = prefix / "lib/rviz2/rviz2"
    program.write_text(f'#!/bin/sh\necho "$@" > {calls}\nexec sleep 1000\n')
    program.chmod(0o755)
    path = os.pathsep.join(filter(None, (str(prefix), os.environ.get("AMENT_PREFIX_PATH"))))
    return {"AMENT_PREFIX_PATH": path}, calls


def test_one_camera(launch, parameters, exchange, rviz, checkout):
    environment, calls = rviz
    arguments = ("image:=/driver/image", "namespace:=front", parameters, "device:=cpu", "rviz:=true")
    started = launch("vidseg", *arguments, **environment)
    exchange(started, "/driver/image", "/front/labels")
    environment = started.environment_of("vidseg_ros.node")
    assert environment["FASTDDS_DEFAULT_PROFILES_FILE"] == str(profile_path())
    call = calls.read_text()
    assert f"-d {checkout / 'config/vidseg.rviz'} " in call
    remapped = dict(re.findall(r"-r (/\w+):=(\S+)", call))
    assert remapped == {
        "/image_raw": "/driver/image",
        "/overlay": "/front/overlay",
        "/labels_color": "/front/labels_color",
    }
    assert started.end() == 0
    assert "process has finished cleanly" in started.printed


def test_a_node_that_ends_is_started_again_and_none_survives_the_launch(launch, parameters, exchange):
    started = launch("vidseg", "image:=/driver/image", parameters)
    exchange(started, "/driver/image", "/labels")
    [first] = started.members("vidseg_ros.node")
    os.kill(first, signal.SIGKILL)
    exchange(started, "/driver/image", "/labels")
    assert started.members("vidseg_ros.node") != [first]
    assert started.end(signal.SIGTERM) != 0  # launch itself dies of it


def test_a_node_that_cannot_start_ends_the_launch_with_an_error(launch):
    started = launch("vidseg", "weights:=none_such", "respawn:=false")
    assert started.status() == 1
    assert "configure failed: none_such: neither a weight file nor the name of one" in started.printed
    assert "vidseg_node-1 ended with status 1" in started.printed


def test_several_cameras(launch, parameters, exchange, tmp_path):
    cameras = tmp_path / "cameras.yaml"
    cameras.write_text("- name: front\n- {name: rear/left, image: /driver/rear, labels_encoding: mono8}\n")
    started = launch("surround", f"cameras:={cameras}", "namespace:=car", parameters)
    exchange(started, "/car/front/image_raw", "/car/front/labels")
    exchange(started, "/driver/rear", "/car/rear/left/labels")
    assert len(started.members("vidseg_ros.node")) == 1
    assert started.end() == 0


def test_a_replay_is_scored_and_ends(launch, parameters, drive, tmp_path):
    started = launch("replay", *drive, parameters, f"json:={tmp_path / 'score.json'}")
    assert started.status() == 0, started.printed
    score = json.loads((tmp_path / "score.json").read_text())
    assert score["frames"]["sent"] == 10 and 1 <= score["frames"]["labelled"] <= 10
    # Of the two classes that occur one has half of its union, the other none.
    assert score["miou"] == 25.0 and score["labels_evaluated"] == score["frames"]["labelled"]
    assert score["problems"] == [] and score["frames"]["overlays"] == 0
    assert re.search(rf"/camera: {score['frames']['labelled']} of 10 frames labelled; .*mIoU 25.0 %", started.printed)


def test_a_replay_takes_the_label_topic_of_a_recording(launch, parameters, recording, tmp_path):
    """Its own `labels_truth` without being told to, and the topic that is named."""
    for i, labels in enumerate([(), ("labels:=/front/annotations",)]):
        file = tmp_path / f"score{i}.json"
        played = (f"source:={recording}", "topic:=/front/image_raw", *labels)
        started = launch("replay", *played, parameters, f"json:={file}")
        assert started.status() == 0, started.printed
        assert json.loads(file.read_text())["miou"] == (25.0, 100.0)[i], started.printed


def test_ctrl_c_ends_a_replay_cleanly(launch, parameters, drive):
    started = launch("replay", *drive, "duration:=600", parameters)
    started.until(lambda: re.search(r"latency +\d+ ms", started.printed))  # of labels
    assert started.end() == 0
    assert "[ERROR]" not in started.printed and "Traceback" not in started.printed
    assert started.printed.count("process has finished cleanly") == 3


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (("replay", "source:=/nowhere"), "/nowhere: expected a folder of images, a video file or a recording"),
        (("vidseg", "log_level:=loud", "respawn:=false"), "vidseg_node: error: .*Couldn't parse log level: .*loud"),
    ],
)
def test_an_argument_that_cannot_be_used_ends_the_launch_with_an_error(arguments, complaint, launch, parameters):
    started = launch(*arguments, parameters)
    assert started.status() == 1
    assert len(re.findall(complaint, started.printed)) == 1 and "Traceback" not in started.printed


def test_the_demo_plays_for_its_time_and_ends(launch, parameters, drive):
    started = launch("demo", drive[0], "duration:=1", parameters)
    assert started.status() == 0, started.printed
    assert re.search(r"/camera: \d+ of \d+ frames labelled; .* 100 % key frames;", started.printed)


@pytest.mark.long  # the build compiles the kernels
@pytest.mark.skipif(find_spec("colcon_core") is None, reason="needs colcon (extra `dev`)")
def test_from_a_colcon_workspace(launch, parameters, exchange, checkout, tmp_path):
    tree = tmp_path / "src/vidseg"
    ignored = shutil.ignore_patterns(".git", ".venv*", "__pycache__", "test", "*.part", "build", "install", "log")
    shutil.copytree(checkout, tree, ignore=ignored)
    build = (sys.executable, "-m", "colcon", "build", "--base-paths", "src")
    subprocess.run(build, cwd=tmp_path, check=True, capture_output=True)
    sourced = ("bash", "-c", f'. "{tmp_path}/install/setup.bash" && exec "$@"', "bash")
    clean = {"PYTHONPATH": "", "AMENT_PREFIX_PATH": os.environ.get("AMENT_PREFIX_PATH", "")}
    arguments = ("vidseg_ros", "vidseg.launch.py", "image:=/driver/image", parameters)
    started = launch(*arguments, prefix=sourced, **clean)
    exchange(started, "/driver/image", "/labels")
    prefix = tmp_path / "install/vidseg_ros"
    environment = started.environment_of("vidseg_node")
    assert environment["FASTDDS_DEFAULT_PROFILES_FILE"] == str(prefix / "share/vidseg_ros/config/fastdds_images.xml")
    assert started.members(str(prefix / "lib/vidseg_ros/vidseg_node"))
    assert started.end() == 0


def test_a_profile_of_the_users_own_stays(monkeypatch):
    monkeypatch.setenv(PROFILE_VARIABLES[0], "/somewhere/else.xml")
    assert launching.transport() == []
    monkeypatch.delenv(PROFILE_VARIABLES[0])
    for takes_old_name, number in ((True, 2), (False, 1)):
        monkeypatch.setattr("vidseg_ros.transport.takes_old_name", lambda environ, old=takes_old_name: old)
        assert len(launching.transport()) == number


def test_cameras_of_a_list(checkout, tmp_path):
    parameters, remappings = launching.cameras(checkout / "config/surround.yaml")
    assert parameters == {"cameras": ["front", "left", "right"], "front.interval": 4, "left.interval": 9,
                          "right.interval": 9}  # fmt: skip
    assert remappings == [("left/image_raw", "left/image_raw"), ("right/image_raw", "right/image_raw")]
    with pytest.raises(FileNotFoundError, match="no such file: .*none.yaml"):
        launching.cameras(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "expected a list of cameras, got None"),
        ("cameras: [front]", "expected a list of cameras, got {'cameras'"),
        ("[front]", "expected a camera with a name, got 'front'"),
        ("- {image: /front}", "expected a camera with a name, got {'image'"),
    ],
)
def test_what_is_no_list_of_cameras_is_refused(text, complaint, tmp_path):
    path = tmp_path / "cameras.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(f"{path}: {complaint}")):
        launching.cameras(path)
