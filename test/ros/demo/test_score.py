"""The score of a run, as the process that `replay.launch.py` starts beside a camera player and the node."""

import json
import re
import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS (extra `ros`)")

DEADLINE_S = 120
NUM_FRAMES = 8


@pytest.fixture
def start(checkout, ros_environment):
    started = []

    def run(module, *arguments):
        command = [sys.executable, "-m", module, *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, cwd=checkout, **pipes))
        return started[-1]

    yield run
    for one in started:
        one.terminate()
        one.communicate(timeout=DEADLINE_S)


@pytest.fixture
def drive(tmp_path):
    """Two thirds of each picture are what the pass-through engine takes everything for, the rest is class 3."""
    images, labels = tmp_path / "images", tmp_path / "labels"
    images.mkdir()
    labels.mkdir()
    ids = np.zeros((96, 128), np.uint8)
    ids[64:] = 3
    for i in range(NUM_FRAMES):
        cv2.imwrite(str(images / f"{i}.png"), np.full((96, 128, 3), 20 * i, np.uint8))
        cv2.imwrite(str(labels / f"{i}.png"), ids)
    return images, "--labels", labels, "--rate", "20", "--wait-for", "image_raw", "camera_info"


def test_a_run_is_followed_to_its_end(start, drive, tmp_path):
    file, ours = tmp_path / "score.json", ("--ros-args", "-r", "__ns:=/scored")
    score = start("vidseg_ros.demo.score", "--namespace", "/scored", "--json", file)
    start("vidseg_ros.node", *ours, "-p", "engine:=pass_through")
    start("vidseg_ros.player.camera_player", *drive, *ours)
    printed, complaints = score.communicate(timeout=DEADLINE_S)
    assert score.returncode == 0, complaints
    figures = json.loads(file.read_text())
    labelled = figures["frames"]["labelled"]
    assert figures["frames"] == {"sent": NUM_FRAMES, "labelled": labelled, "overlays": 0} and labelled >= 1
    # One of the two classes that occur is found in two thirds of its union, the other nowhere.
    assert figures["miou"] == 33.33 and figures["labels_evaluated"] == labelled
    assert figures["node_counts"]["Frames processed"] == str(labelled) and figures["key_ratio"] == 1.0
    assert re.fullmatch(rf"/scored: {labelled} of 8 frames labelled; .*mIoU 33.3 %; .*\n", printed)


def test_an_interrupt_ends_it_with_what_has_come(start, tmp_path):
    score = start("vidseg_ros.demo.score", "--namespace", "/nobody", "--json", tmp_path / "score.json")
    assert "waiting for the camera" in score.stderr.readline()
    score.send_signal(signal.SIGINT)
    printed, complaints = score.communicate(timeout=DEADLINE_S)
    assert score.returncode == 0, complaints  # `launch` takes any other status for a failure
    assert printed == "/nobody: 0 of 0 frames labelled\n"
    assert json.loads((tmp_path / "score.json").read_text())["interrupted"] is True


def test_classes_that_are_not_there_are_an_error(start):
    score = start("vidseg_ros.demo.score", "--classes", "none_such")
    _, complaints = score.communicate(timeout=DEADLINE_S)
    assert score.returncode == 2 and complaints.startswith("score: error: ") and "none_such" in complaints
