"""The player as a process of its own, heard over DDS."""

import logging
import math
import os
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

from vidseg_core.classes import load_classes
from vidseg_core.data.bag_writer import BagWriter
from vidseg_core.data.open import open_source

pytest.importorskip("rclpy", reason="needs ROS (extra `ros`)")

from vidseg_core.data.encodings import to_rgb
from vidseg_core.data.wire import parse_compressed, parse_image
from vidseg_ros.player import camera_player

NUM_FRAMES = 6
HEIGHT, WIDTH = 240, 320
DEADLINE_S = 240
FIRST_STAMP_NS = 10**9
WAIT_FOR_ALL = ("--wait-for", "image_raw", "camera_info", "labels_truth")


@pytest.fixture(scope="module")
def drive(tmp_path_factory):
    """A folder of smooth pictures that differ, and one of their labels."""
    root = tmp_path_factory.mktemp("drive")
    images, labels = root / "images", root / "labels"
    images.mkdir()
    labels.mkdir()
    rng = np.random.default_rng(0)
    for i in range(NUM_FRAMES):
        image = cv2.resize(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), (WIDTH, HEIGHT))
        ids = cv2.resize(rng.integers(0, 11, (6, 8), dtype=np.uint8), (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST)
        cv2.imwrite(str(images / f"{i:03d}.png"), image)
        cv2.imwrite(str(labels / f"{i:03d}.png"), ids)
    return images, labels


class Listener:
    """Keeps what comes from the topics of a player."""

    def __init__(self, ros, namespace, compressed=False, reliability="RELIABLE"):
        from rclpy.qos import QoSProfile, ReliabilityPolicy
        from sensor_msgs.msg import CameraInfo, CompressedImage, Image

        self._ros = ros
        self.node = ros.create_node("listener", namespace=namespace)
        self.images, self.infos, self.truth = [], [], []
        quality = QoSProfile(depth=100, reliability=ReliabilityPolicy[reliability])
        subscribe = self.node.create_subscription
        if compressed:
            subscribe(CompressedImage, "image_raw/compressed", self.images.append, quality, raw=True)
        else:
            subscribe(Image, "image_raw", self.images.append, quality, raw=True)
        subscribe(CameraInfo, "camera_info", self.infos.append, quality)
        subscribe(Image, "labels_truth", self.truth.append, quality, raw=True)

    def until(self, condition, process):
        """Spin until the condition holds; a process that has ended has sent what it will send."""
        deadline = time.monotonic() + DEADLINE_S
        while not condition() and time.monotonic() < deadline:
            ended = process.poll() is not None
            self._ros.spin_once(self.node, timeout_sec=0.2)
            if ended and not condition():
                for _ in range(20):
                    self._ros.spin_once(self.node, timeout_sec=0.05)
                break
        assert condition(), (len(self.images), len(self.infos), len(self.truth), process.poll())


@pytest.fixture
def listen(ros, request):
    """Makes a listener; every test has a namespace of its own."""
    listeners = []

    def make(**options):
        listeners.append(Listener(ros, namespace_of(request), **options))
        return listeners[-1]

    yield make
    for listener in listeners:
        listener.node.destroy_node()


@pytest.fixture
def play(request, checkout):
    """Starts players; none outlives its test."""
    processes = []

    def start(*arguments, ros_arguments=()):
        command = [sys.executable, "-m", "vidseg_ros.player.camera_player", *map(str, arguments)]
        command += ["--ros-args", "-r", f"__ns:={namespace_of(request)}", *ros_arguments]
        process = subprocess.Popen(command, cwd=checkout, stderr=subprocess.PIPE, text=True)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def namespace_of(request):
    return "/" + "".join(c if c.isalnum() else "_" for c in request.node.name)


def ended(process):
    """Exit status and standard error of a process that ends by itself."""
    _, errors = process.communicate(timeout=DEADLINE_S)
    return process.returncode, errors


def stamp_ns(header):
    return header.stamp.sec * 10**9 + header.stamp.nanosec


def test_a_folder_once_with_its_own_stamps_and_its_truth(drive, listen, play):
    images, labels = drive
    listener = listen()
    options = ("--rate", 10, "--stamps", "source", "--frame-id", "front_optical", "--view-angle", 90)
    process = play(images, "--labels", labels, *options, *WAIT_FOR_ALL)
    everything = [listener.images, listener.infos, listener.truth]
    listener.until(lambda: all(len(received) == NUM_FRAMES for received in everything), process)
    status, errors = ended(process)
    assert status == 0 and f"{NUM_FRAMES} frames sent" in errors

    frames = list(open_source(images, labels=labels, classes=load_classes("camvid")))
    views = [parse_image(message) for message in listener.images]
    truth = [parse_image(message) for message in listener.truth]
    for frame, view, info, label in zip(frames, views, listener.infos, truth, strict=True):
        assert frame.stamp_ns + FIRST_STAMP_NS == view.stamp_ns == label.stamp_ns == stamp_ns(info.header)
        assert view.frame_id == label.frame_id == info.header.frame_id == "front_optical"
        assert (view.encoding, label.encoding) == ("rgb8", "mono8")
        assert (to_rgb(view) == frame.image).all()
        assert (label.pixels(1)[..., 0] == frame.labels).all()
        assert (info.width, info.height) == (WIDTH, HEIGHT)
        assert info.k[0] == info.k[4] == pytest.approx(WIDTH / 2)  # 90 degrees


@pytest.fixture(params=["sqlite3", "mcap"])
def recording(request, tmp_path):
    """Two cameras and the labels of one of them, whose frames come at uneven times; and what is in there."""
    rng = np.random.default_rng(1)
    stamps_ns = [1_700_000_000_000_000_000 + milliseconds * 10**6 for milliseconds in (0, 100, 140, 390)]
    images = [rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8) for _ in stamps_ns]
    labels = [rng.integers(0, 11, (HEIGHT, WIDTH), dtype=np.uint8) for _ in stamps_ns]
    with BagWriter(tmp_path / "drive", request.param) as bag:
        for at_ns, image, ids in zip(stamps_ns, images, labels, strict=True):
            bag.write_image("/front/image_raw", "rgb8", image, at_ns, frame_id="recorded")
            bag.write_image("/front/labels_truth", "mono8", ids, at_ns, frame_id="recorded")
            bag.write_image("/left/image_raw", "rgb8", 255 - image, at_ns, frame_id="recorded")
    return tmp_path / "drive", stamps_ns, images, labels


def test_a_recording_with_its_own_stamps_and_its_truth(recording, listen, play):
    path, stamps_ns, images, labels = recording
    listener = listen()
    which = ("--topic", "/front/image_raw", "--labels", "/front/labels_truth", "--frame-id", "front")
    process = play(path, *which, "--stamps", "source", *WAIT_FOR_ALL)
    everything = [listener.images, listener.infos, listener.truth]
    listener.until(lambda: all(len(received) == len(stamps_ns) for received in everything), process)
    status, errors = ended(process)
    assert status == 0 and f"{len(stamps_ns)} frames sent" in errors

    views = [parse_image(message) for message in listener.images]
    truth = [parse_image(message) for message in listener.truth]
    assert [view.stamp_ns for view in views] == stamps_ns
    assert [view.stamp_ns for view in truth] == [stamp_ns(info.header) for info in listener.infos] == stamps_ns
    assert {view.frame_id for view in views + truth} == {"front"}
    for view, image, label, ids in zip(views, images, truth, labels, strict=True):
        assert (to_rgb(view) == image).all() and (label.pixels(1)[..., 0] == ids).all()


def test_the_street_has_truth(listen, play):
    listener = listen()
    spec = "street:seed=3,size=320x240,rate=10,frames=2"
    process = play(spec, "--stamps", "source", *WAIT_FOR_ALL)
    listener.until(lambda: len(listener.images) == len(listener.truth) == 2, process)
    assert ended(process)[0] == 0
    for frame, image, label in zip(open_source(spec), listener.images, listener.truth, strict=True):
        assert (to_rgb(parse_image(image)) == frame.image).all()
        assert (parse_image(label).pixels(1)[..., 0] == frame.labels).all()


def test_jpeg_with_the_stamps_of_now(drive, listen, play):
    images, _ = drive
    listener = listen(compressed=True)
    begin_ns = time.time_ns()
    process = play(images, "--rate", 10, "--compressed", "--quality", 95, "--wait-for", "image_raw", "camera_info")
    listener.until(lambda: len(listener.images) == len(listener.infos) == NUM_FRAMES, process)
    assert ended(process)[0] == 0
    views = [parse_compressed(message) for message in listener.images]
    stamps = [view.stamp_ns for view in views]
    assert begin_ns < stamps[0] and stamps[-1] < time.time_ns() and stamps == sorted(set(stamps))
    assert stamps == [stamp_ns(info.header) for info in listener.infos]
    for frame, view in zip(open_source(images), views, strict=True):
        assert view.format == "jpeg"
        assert np.abs(to_rgb(view).astype(int) - frame.image).mean() < 3
    assert listener.truth == []


def test_a_remapped_name_is_the_base_of_the_compressed_topic(drive, ros, play, request):
    images, _ = drive
    node = ros.create_node("listener", namespace=namespace_of(request))
    process = play(images, "--loop", "--compressed", ros_arguments=("-r", "image_raw:=left/picture"))
    try:
        deadline = time.monotonic() + DEADLINE_S
        topic = f"{namespace_of(request)}/left/picture/compressed"
        while not node.count_publishers(topic) and time.monotonic() < deadline and process.poll() is None:
            ros.spin_once(node, timeout_sec=0.2)
        assert node.count_publishers(topic) == 1
    finally:
        node.destroy_node()


def test_looping_until_a_signal(drive, listen, play):
    images, _ = drive
    listener = listen(reliability="BEST_EFFORT")
    # No stamps of its own for a loop: those of now never repeat.
    process = play(images, "--loop", "--rate", 10, "--reliability", "best_effort", "--wait-for", "image_raw")
    listener.until(lambda: len(listener.images) > 2 * NUM_FRAMES, process)
    process.send_signal(signal.SIGTERM)
    status, errors = ended(process)
    assert status == 0 and "Traceback" not in errors
    stamps = [parse_image(message).stamp_ns for message in listener.images]
    assert stamps == sorted(set(stamps))


def test_a_loop_of_source_stamps_repeats_them(drive, listen, play):
    images, _ = drive
    listener = listen()
    duration_s = (NUM_FRAMES + 2) / 20
    options = ("--stamps", "source", "--rate", 20, "--duration", duration_s, "--wait-for", "image_raw")
    process = play(images, "--loop", *options)
    listener.until(lambda: len(listener.images) == NUM_FRAMES + 2, process)
    assert ended(process)[0] == 0
    stamps = [parse_image(message).stamp_ns for message in listener.images]
    frame_stamps = [frame.stamp_ns + FIRST_STAMP_NS for frame in open_source(images)]
    assert stamps == frame_stamps + frame_stamps[:2]


class Rehearsal(camera_player.CameraPlayer):
    """A player without ROS; its clock stands still but for the delay that each shot meets."""

    def __init__(self, delays_s, monkeypatch):
        self.now_ns = 10**12
        self.sent_s, self.worst_late_ns = [], 0
        self._delays_s = iter(delays_s)
        monkeypatch.setattr(camera_player.time, "monotonic_ns", lambda: self.now_ns)

    def get_logger(self):
        return logging.getLogger("rehearsal")

    def _prepare(self, shot):
        """There is nothing to send."""

    def _wait_until(self, due_ns):
        self.now_ns = max(self.now_ns, due_ns) + round(next(self._delays_s) * 1e9)
        return True

    def _send(self, shot):
        self.sent_s.append((self.now_ns - 10**12) / 1e9)

    def _deliver(self):
        """Nobody listens."""


def sent_s(monkeypatch, *delays_s):
    player = Rehearsal(delays_s, monkeypatch)
    player.play((round(i * 1e8), None) for i in range(len(delays_s)))
    return player.sent_s


def test_late_frames_do_not_delay_those_after_them(monkeypatch):
    assert sent_s(monkeypatch, 0, 0.04, 0, 0.25, 0, 0, 0.01) == pytest.approx([0, 0.14, 0.2, 0.55, 0.55, 0.55, 0.61])


def test_after_a_long_pause_the_schedule_moves(monkeypatch):
    monkeypatch.setattr(logging.Logger, "warning", lambda *arguments, **options: None)
    assert sent_s(monkeypatch, 0, 0, 30, 0, 0) == pytest.approx([0, 0.1, 30.2, 30.3, 30.4])


@pytest.mark.parametrize("one", [signal.SIGINT, signal.SIGTERM])
def test_signals_while_waiting(one, drive, ros, play, request):
    node = ros.create_node("listener", namespace=namespace_of(request))
    process = play(drive[0], "--wait-for", "image_raw")
    try:
        deadline = time.monotonic() + DEADLINE_S
        while not node.count_publishers("image_raw") and time.monotonic() < deadline and process.poll() is None:
            ros.spin_once(node, timeout_sec=0.2)
        os.kill(process.pid, one)
        status, errors = ended(process)
    finally:
        node.destroy_node()
    assert status == 0 and "Traceback" not in errors and "0 frames sent" in errors, errors


def refused(capsys, *arguments):
    status = camera_player.main([str(argument) for argument in arguments])
    (line,) = capsys.readouterr().err.splitlines()
    assert status == 2 and line.startswith("camera_player: error: ")
    return line


@pytest.fixture
def unshared_ros(monkeypatch):
    """`main` in this process, without touching the ROS context that the other tests share, or its signal handlers."""
    monkeypatch.setattr(camera_player.rclpy, "init", lambda **options: None)
    monkeypatch.setattr(camera_player.rclpy, "try_shutdown", lambda: None)
    monkeypatch.setattr(camera_player.signal, "signal", lambda *handler: None)


def test_errors_of_the_user_take_one_line(unshared_ros, drive, tmp_path, capsys):
    images, labels = drive
    assert "there is nothing" in refused(capsys, tmp_path / "missing")
    assert "unknown key 'sede'" in refused(capsys, "street:sede=1")
    assert "no class table 'kitti'" in refused(capsys, images, "--labels", labels, "--classes", "kitti")
    assert "do not wait for it" in refused(capsys, images, "--wait-for", "labels_truth")


def test_a_recording_of_two_cameras_needs_a_topic(unshared_ros, recording, capsys):
    line = refused(capsys, recording[0])
    assert "/front/image_raw" in line and "/left/image_raw" in line and "labels_truth" not in line


@pytest.mark.parametrize(
    "arguments", [("--rate", "0"), ("--quality", "101"), ("--view-angle", "180"), ("--duration", "nan"), ("--rat", "1")]
)
def test_options_out_of_range(arguments, capsys):
    with pytest.raises(SystemExit) as exit:
        camera_player.main(["street:", *arguments])
    assert exit.value.code == 2 and "camera_player: error: " in capsys.readouterr().err


def test_ros_arguments_are_left_to_ros(monkeypatch, unshared_ros, drive):
    seen = []
    monkeypatch.setattr(camera_player, "run", lambda options: seen.append(options) or 0)
    assert camera_player.main([str(drive[0]), "--loop", "--ros-args", "-r", "__ns:=/front"]) == 0
    assert seen[0].source == str(drive[0]) and seen[0].loop


def test_camera_info_is_a_pinhole_camera():
    info = camera_player.camera_info(360, 640, 60.0)
    focal = 320 / math.tan(math.radians(30))
    assert list(info.k) == pytest.approx([focal, 0, 319.5, 0, focal, 179.5, 0, 0, 1])
    assert list(info.p) == pytest.approx([focal, 0, 319.5, 0, 0, focal, 179.5, 0, 0, 0, 1, 0])
    assert list(info.r) == [1, 0, 0, 0, 1, 0, 0, 0, 1] and list(info.d) == [0] * 5
    assert info.distortion_model == "plumb_bob" and (info.width, info.height) == (640, 360)
