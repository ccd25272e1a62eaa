"""The processes that `bench_transport` and `bench_cameras` start: cameras, a naive node, a listener to the labels.

What happens in one it tells its parent as a line of JSON on standard output. A line on standard input lets it go on to
its next phase, and the end of standard input ends it, so that none outlives its parent.
"""

from __future__ import annotations

if __name__ == "__main__":  # its parent may give up while this is still being loaded
    from vidseg_ros.interruption import end_at_signal

    end_at_signal("bench")

import argparse
import json
import queue
import signal
import sys
import threading
import time
from array import array
from collections.abc import Sequence
from contextlib import suppress
from itertools import cycle

import cv2
import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import serialize_message
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from vidseg_core.data.wire import ImageWriter, Stamp, parse_header
from vidseg_ros import rcl
from vidseg_ros.benchmarks.transport import NAMESPACE
from vidseg_ros.memory import keep_freed_memory, leave_out_what_lives

RELIABILITY = {"best_effort": ReliabilityPolicy.BEST_EFFORT, "reliable": ReliabilityPolicy.RELIABLE}
WARM_LABELS = 10
QUIET_S = 1.0


def tell(event: str, **values) -> None:
    print(json.dumps({"event": event, **values}), flush=True)


def publish(publisher: Publisher, message: Image | bytes) -> None:
    """Publish; what the middleware refuses, as a reliable subscriber is too far behind, is one that is not received."""
    with suppress(RuntimeError):
        publisher.publish(message)


def topics_of(cameras: Sequence[str], topic: str) -> list[str]:
    """Return the topic of each camera; without names there is one."""
    return [f"{camera}/{topic}" for camera in cameras] or [topic]


def raw(writer: ImageWriter, width: int, height: int) -> bytearray:
    """Serialize an image of noise."""
    message = bytearray()
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    writer.write(message, Header(frame_id="camera"), "rgb8", pixels)
    return message


def compressed(width: int, height: int) -> bytearray:
    """Serialize a JPEG of soft noise, which takes about as many bytes as a street does."""
    coarse = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    _, jpeg = cv2.imencode(".jpg", cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))
    message = CompressedImage(header=Header(frame_id="camera"), format="jpeg", data=array("B", jpeg.tobytes()))
    return bytearray(serialize_message(message))


class Camera:
    """Publishes one picture at a rate, as each camera in turn. The next phase is the measured one: so many, no more.

    It keeps the memory that it frees, as `camera_player` does; naive node and listener are left as they come.
    """

    def __init__(self, node: Node, quality: QoSProfile, arguments: argparse.Namespace):
        self._num_frames = arguments.frames
        topics = topics_of(arguments.cameras, "image_raw/compressed" if arguments.compressed else "image_raw")
        kind = CompressedImage if arguments.compressed else Image
        self._publishers = cycle([node.create_publisher(kind, topic, quality) for topic in topics])
        self._is_subscribed = lambda: all(node.count_subscribers(topic) for topic in topics)
        self._writer = ImageWriter()
        self._message = compressed(*arguments.size) if arguments.compressed else raw(self._writer, *arguments.size)
        self._is_measured = False
        self._stamps: list[int] = []
        self._published: list[tuple[int, int]] = []
        self._timer = node.create_timer(1 / arguments.rate, self._publish)

    def is_matched(self) -> bool:
        return self._is_subscribed()

    def next_phase(self) -> None:
        self._is_measured = True

    def turn(self) -> None:
        """Do nothing: its timer does everything."""

    def _publish(self) -> None:
        stamp_ns = time.time_ns()
        self._writer.set_stamp(self._message, Stamp(*divmod(stamp_ns, 1_000_000_000)))
        begin_ns = time.time_ns()
        with suppress(RuntimeError):  # as in `publish`
            rcl.publish(next(self._publishers), self._message)
        if not self._is_measured:
            return
        self._stamps.append(stamp_ns)
        self._published.append((begin_ns, time.time_ns()))
        if len(self._stamps) == self._num_frames:
            self._timer.cancel()
            tell("sent", stamps=self._stamps, published=self._published)


class NaiveNode:
    """The node that one writes first: message objects, a NumPy copy of each image. It has one phase."""

    def __init__(self, node: Node, quality: QoSProfile, arguments: argparse.Namespace):
        self._publisher = node.create_publisher(Image, "labels", quality)
        node.create_subscription(Image, "image_raw", self._label, quality)

    def is_matched(self) -> bool:
        return self._publisher.get_subscription_count() > 0

    def next_phase(self) -> None:
        """Do nothing: it has one phase."""

    def turn(self) -> None:
        """Do nothing: its subscription does everything."""

    def _label(self, message: Image) -> None:
        image = np.array(message.data, np.uint8).reshape(message.height, message.width, 3)
        labels = np.zeros(image.shape[:2], np.uint8)
        height, width = labels.shape
        output = Image(header=message.header, height=height, width=width, encoding="mono8", step=width)
        output.data = array("B", labels.tobytes())
        publish(self._publisher, output)


class Executor(SingleThreadedExecutor):
    """An ordinary executor that notes from when to when it took the last message, in ns (system clock)."""

    taken_ns = (0, 0)

    def _take_subscription(self, sub):
        begin_ns = time.time_ns()
        taken = super()._take_subscription(sub)
        self.taken_ns = begin_ns, time.time_ns()
        return taken


class Listener:
    """Notes when labels arrive. In its next phase it waits until no more come, and tells."""

    def __init__(self, node: Node, quality: QoSProfile, arguments: argparse.Namespace):
        self._executor = node.executor
        self._arrivals: list[tuple[int, int]] = []
        self._taken: list[tuple[int, int]] = []
        self._last_s = time.monotonic()
        self._is_finishing = False
        topics = topics_of(arguments.cameras, "labels")
        self._is_published = lambda: all(node.count_publishers(topic) for topic in topics)
        for topic in topics:
            node.create_subscription(Image, topic, self._arrive, quality, raw=True)

    def is_matched(self) -> bool:
        return self._is_published()

    def next_phase(self) -> None:
        self._is_finishing = True
        self._last_s = time.monotonic()

    def turn(self) -> None:
        if self._is_finishing and time.monotonic() - self._last_s > QUIET_S:
            self._is_finishing = False
            tell("heard", arrivals=self._arrivals, taken=self._taken)

    def _arrive(self, message: bytes) -> None:
        arrived_ns = time.time_ns()
        self._last_s = time.monotonic()
        self._arrivals.append((parse_header(message)[0], arrived_ns))
        self._taken.append(self._executor.taken_ns)
        if len(self._arrivals) == 1:
            tell("first", arrived_ns=arrived_ns)
        if len(self._arrivals) == WARM_LABELS:
            tell("warm")


ROLES = {"camera": Camera, "naive_node": NaiveNode, "listener": Listener}


def read_lines(lines: queue.SimpleQueue[str]) -> None:
    """Put every line of standard input into the queue, and at its end an empty one."""
    for line in sys.stdin:
        lines.put(line)
    lines.put("")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=ROLES)
    parser.add_argument("--reliability", choices=RELIABILITY, required=True)
    parser.add_argument("--keep-memory", action="store_true")
    parser.add_argument("--compressed", action="store_true")
    parser.add_argument("--size", type=int, nargs=2)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--frames", type=int)
    parser.add_argument("--cameras", nargs="*", default=[])
    arguments = parser.parse_args()

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if arguments.keep_memory:
        keep_freed_memory()
        leave_out_what_lives()
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node(arguments.role, namespace=NAMESPACE)
    executor = Executor()
    executor.add_node(node)
    quality = QoSProfile(depth=5, reliability=RELIABILITY[arguments.reliability])
    process = ROLES[arguments.role](node, quality, arguments)
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=read_lines, args=(lines,), daemon=True).start()
    tell("ready")
    is_matched = False
    while True:
        executor.spin_once(timeout_sec=0.1)
        process.turn()
        if not is_matched and process.is_matched():
            is_matched = True
            tell("matched")
        if not lines.empty():
            if not lines.get():
                break
            process.next_phase()
    node.destroy_node()
    rclpy.shutdown()


if __name__ == "__main__":
    main()
