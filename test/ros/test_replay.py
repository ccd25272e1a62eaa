"""Replay beside the node's own parts: the same frames are dropped, and the labels that it writes can be played."""

import random
import subprocess
import sys
import time

import numpy as np
import pytest

from vidseg_core.data.bag_writer import BagExtender, BagWriter
from vidseg_core.data.open import open_source
from vidseg_core.evaluation.replay.live import arrivals, simulate
from vidseg_core.frame import Frame, Segmentation
from vidseg_ros.mailbox import Letter, Mailbox

MS = 10**6
NAMESPACE = "/replayed"
DEADLINE_S = 240


def through_the_mailbox(at_ms, took_ms):
    """(frame, begin, end) of each step of a worker at the node's mailbox, and how many letters were replaced."""
    box, steps, free_ms, replaced, waiting = Mailbox(), [], 0, 0, False

    def work(now_ms):
        nonlocal waiting, free_ms
        if waiting and free_ms <= now_ms:
            ((_, letter),) = box.take()
            begin = max(free_ms, letter.received_ns)
            free_ms, waiting = begin + took_ms[letter.message[0]], False
            steps.append((letter.message[0], begin, free_ms))

    for i, now_ms in enumerate(at_ms):
        work(now_ms)
        replaced += box.put("camera", [("camera", Letter(bytes([i]), now_ms))])
        waiting = True
        work(now_ms)
    work(10**9)
    return steps, replaced


@pytest.mark.parametrize("seed", range(20))
def test_the_simulation_drops_what_the_mailbox_drops(seed):
    draw = random.Random(seed)
    at_ms = np.cumsum([0] + [draw.randint(1, 60) for _ in range(80)]).tolist()
    took_ms = [draw.choice((3, 10, 80, 200)) for _ in at_ms]
    image = np.zeros((64, 64, 3), np.uint8)
    frames = [Frame(image, t * MS, name=str(i)) for i, t in enumerate(at_ms)]
    steps = []

    def step(frame, now_ns):
        i = int(frame.name)
        steps.append((i, now_ns // MS, now_ns // MS + took_ms[i]))
        return Segmentation(image[..., 0], frame.stamp_ns, False, 0, ""), took_ms[i] * MS

    log = simulate(step, arrivals(frames, 30 * MS), 11, 30 * MS)
    assert (steps, log.dropped) == through_the_mailbox(at_ms, took_ms)
    assert 0 < log.dropped < len(frames)


def test_the_labels_of_a_recording_play_with_the_stamps_of_its_images(ros, checkout, tmp_path):
    """`camera_player` plays what `vidseg replay --bag-out` writes."""
    from sensor_msgs.msg import Image

    from vidseg_core.data.wire import parse_image

    rng = np.random.default_rng(0)
    stamps = [1_700_000_000_000_000_007 + i * 66_666_667 for i in range(4)]
    images = [rng.integers(0, 256, (72, 96, 3), dtype=np.uint8) for _ in stamps]
    with BagWriter(tmp_path / "drive") as bag:
        for stamp_ns, image in zip(stamps, images, strict=True):
            bag.write_image("/camera/image_raw", "rgb8", image, stamp_ns)
    topics, labelled = ["/camera/labels"], tmp_path / "labelled"
    with BagExtender(tmp_path / "drive", "/camera/image_raw", topics, labelled, "mcap") as bag:
        for frame in open_source(tmp_path / "drive"):
            bag.add(int(frame.name), {"/camera/labels": ("mono8", frame.image[..., 0] % 11)})

    node, received = ros.create_node("listener", namespace=NAMESPACE), []
    node.create_subscription(Image, "image_raw", received.append, 10, raw=True)
    command = [sys.executable, "-m", "vidseg_ros.player.camera_player", labelled, "--topic", "/camera/labels"]
    command += ["--stamps", "source", "--wait-for", "image_raw", "--ros-args", "-r", f"__ns:={NAMESPACE}"]
    player = subprocess.Popen(command, cwd=checkout)
    try:
        deadline = time.monotonic() + DEADLINE_S
        while len(received) < len(stamps) and time.monotonic() < deadline:
            ros.spin_once(node, timeout_sec=0.2)
        assert player.wait(DEADLINE_S) == 0
    finally:
        player.kill()
        player.wait()
        node.destroy_node()
    played = [parse_image(message) for message in received]
    shown = list(open_source(labelled, topic="/camera/image_raw"))
    assert [view.stamp_ns for view in played] == [frame.stamp_ns for frame in shown] == stamps
    for frame, view in zip(shown, played, strict=True):
        np.testing.assert_array_equal(view.pixels(3), np.repeat(frame.image[..., :1] % 11, 3, axis=2))
