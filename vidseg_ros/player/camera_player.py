"""A camera that shows a folder of images, a video, a recording or the synthetic street.

`ros2 run vidseg_ros camera_player SOURCE`, or `python -m vidseg_ros.player SOURCE`.
"""

from __future__ import annotations

if __name__ == "__main__":  # what follows takes a second to load
    from vidseg_ros.interruption import end_at_signal

    end_at_signal("camera_player")

import argparse
import math
import signal
import sys
import time
from array import array
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from itertools import takewhile
from pathlib import Path

import rclpy
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from tqdm import tqdm

from vidseg_core.classes import load_classes
from vidseg_core.cli.main import EXIT_ERROR, one_line
from vidseg_core.data.bag import BagSource, truth_topic
from vidseg_core.data.open import find_bag, open_source
from vidseg_core.data.wire import ImageWriter
from vidseg_core.errors import VidsegError
from vidseg_ros import rcl
from vidseg_ros.interruption import ENDING, ignore_signals, interrupt_at_signal
from vidseg_ros.memory import keep_freed_memory, leave_out_what_lives
from vidseg_ros.player.playback import Film, Shot, schedule

NAME = "camera_player"
IMAGES, INFO, TRUTH = "image_raw", "camera_info", "labels_truth"
IMAGE_DEPTH = 10
SMALL_DEPTH = 100
WAIT_S = 0.05
LATEST_S = 1.0
FIRST_STAMP_NS = 1_000_000_000
ACKNOWLEDGED_S = 0.5
"""Fast DDS asks at once whether large messages have come; after small ones it asks every three seconds only."""

DESCRIPTION = """\
Publish a source of frames as a camera: image_raw (or image_raw/compressed), camera_info and, where the source has
ground truth, labels_truth (mono8 class ids), all three with the same stamp and frame_id.
"""
EPILOG = """\
SOURCE is a folder of images, a video file, a recording, or the synthetic street, `street:key=value,...` with
the keys seed, size, rate and frames.

Frames are read into memory before the first is published, so that reading, or rendering a street, does not disturb the
rate. Frame i is published at a fixed time after the first; what comes late does not delay what follows.

ROS arguments come last, after --ros-args: names are remapped and a namespace is set as for every node.

examples:
  camera_player street:seed=1 --loop                       the synthetic street without end, 640 x 360 at 30 Hz
  camera_player drive.mp4 --rate 10 --compressed           a video, ten frames per second, as JPEG
  camera_player recording/ --topic /front/image_raw --stamps source --reliability best_effort
  camera_player frames/ --labels frames_annot/ --classes camvid --loop --ros-args -r __ns:=/front
"""


class CameraPlayer(Node):
    """Publishes shots at their times.

    Args:
        options: of the command line.
        has_truth: whether there are ground-truth labels.
        is_stopped: asked between frames and while waiting for the next.
    """

    def __init__(self, options: argparse.Namespace, has_truth: bool, is_stopped: Callable[[], bool]):
        super().__init__(NAME)
        self._options = options
        self._is_stopped = is_stopped
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)
        self._writer = ImageWriter()
        self._memory = {topic: bytearray() for topic in (IMAGES, TRUTH)}
        self._prepared: dict[str, bytearray | CompressedImage] = {}
        self.outputs = self._create_publishers(has_truth)
        self.num_sent = 0
        self.worst_late_ns = 0
        self._shift_ns: int | None = None

    def play(self, shots: Iterator[tuple[int, Shot]]) -> None:
        """Publish each shot at its time, in nanoseconds after the first; until there are no more, or it is stopped."""
        begin_ns = None
        for due_ns, shot in shots:
            self._prepare(shot)  # while there is time: what is stamped has only to be sent
            begin_ns = time.monotonic_ns() if begin_ns is None else begin_ns
            if not self._wait_until(begin_ns + due_ns):
                return
            begin_ns += self._postponed(time.monotonic_ns() - begin_ns - due_ns)
            self._send(shot)
        self._deliver()

    def wait_for_subscribers(self) -> None:
        """Return when each topic of `--wait-for` has one, or when stopped."""
        missing = [self.outputs[topic] for topic in self._options.wait_for]
        if missing:
            self.get_logger().info(f"waiting for subscribers of {', '.join(p.topic_name for p in missing)}")
        while missing and not self._is_stopped():
            self._executor.spin_once(timeout_sec=WAIT_S)
            missing = [publisher for publisher in missing if publisher.get_subscription_count() == 0]

    def _create_publishers(self, has_truth: bool) -> dict[str, Publisher]:
        reliability = ReliabilityPolicy[self._options.reliability.upper()]
        large = QoSProfile(depth=IMAGE_DEPTH, reliability=reliability)
        small = QoSProfile(depth=SMALL_DEPTH, reliability=reliability)
        if self._options.compressed:
            # As image_transport has it: the name that image_raw was remapped to, and the transport behind it.
            images = self.create_publisher(CompressedImage, f"{self.resolve_topic_name(IMAGES)}/compressed", large)
        else:
            images = self.create_publisher(Image, IMAGES, large)
        publishers = {IMAGES: images, INFO: self.create_publisher(CameraInfo, INFO, small)}
        if has_truth:
            publishers[TRUTH] = self.create_publisher(Image, TRUTH, small)
        return publishers

    def _wait_until(self, due_ns: int) -> bool:
        """Wait for that time (steady clock). Returns False when stopped before."""
        while not self._is_stopped():
            left_s = (due_ns - time.monotonic_ns()) / 1e9
            if left_s <= 0:
                return True
            self._executor.spin_once(timeout_sec=min(left_s, WAIT_S))
        return False

    def _postponed(self, late_ns: int) -> int:
        """By how much the schedule moves when a shot is so late: a little is caught up, a long pause is not."""
        self.worst_late_ns = max(self.worst_late_ns, late_ns)
        if late_ns < LATEST_S * 1e9:
            return 0
        self.get_logger().warning(f"{late_ns / 1e9:.1f} s late: goes on from here", throttle_duration_sec=10.0)
        return late_ns

    def _send(self, shot: Shot) -> None:
        header = Header(frame_id=self._options.frame_id)
        if self._options.stamps == "source":
            if self._shift_ns is None:  # in ROS a stamp of zero is one that was never set
                self._shift_ns = FIRST_STAMP_NS if shot.stamp_ns == 0 else 0
            header.stamp.sec, header.stamp.nanosec = divmod(shot.stamp_ns + self._shift_ns, 1_000_000_000)
        else:
            header.stamp = self.get_clock().now().to_msg()
        self._publish(IMAGES, header)
        info = camera_info(*shot.size, self._options.view_angle)
        info.header = header
        self.outputs[INFO].publish(info)
        if shot.labels is not None:
            self._publish(TRUTH, header)
        self.num_sent += 1

    def _prepare(self, shot: Shot) -> None:
        """Make the messages of a shot, but for their stamps."""
        header = Header(frame_id=self._options.frame_id)
        if isinstance(shot.picture, bytes):
            self._prepared[IMAGES] = CompressedImage(header=header, format="jpeg", data=array("B", shot.picture))
        else:
            self._writer.write(self._memory[IMAGES], header, "rgb8", shot.picture)
            self._prepared[IMAGES] = self._memory[IMAGES]
        if shot.labels is not None:
            self._writer.write(self._memory[TRUTH], header, "mono8", shot.labels)
            self._prepared[TRUTH] = self._memory[TRUTH]

    def _publish(self, topic: str, header: Header) -> None:
        message = self._prepared[topic]
        if isinstance(message, bytearray):
            self._writer.set_stamp(message, header.stamp)
            rcl.publish(self.outputs[topic], message)
        else:
            message.header = header
            self.outputs[topic].publish(message)

    def _deliver(self) -> None:
        """Stay until reliable subscribers have the last frames, unless they take too long."""
        end_s = time.monotonic() + ACKNOWLEDGED_S
        for publisher in self.outputs.values():
            publisher.wait_for_all_acked(Duration(seconds=max(0.0, end_s - time.monotonic())))


@lru_cache(maxsize=8)
def camera_info(height: int, width: int, view_angle: float) -> CameraInfo:
    """Describe a pinhole camera without distortion, centred on its image; every call returns the same message.

    Args:
        view_angle: from the left to the right edge of the image, in degrees.
    """
    focal = width / 2 / math.tan(math.radians(view_angle) / 2)
    cx, cy = (width - 1) / 2, (height - 1) / 2
    return CameraInfo(
        height=height,
        width=width,
        distortion_model="plumb_bob",
        d=[0.0] * 5,
        k=[focal, 0.0, cx, 0.0, focal, cy, 0.0, 0.0, 1.0],
        r=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        p=[focal, 0.0, cx, 0.0, 0.0, focal, cy, 0.0, 0.0, 0.0, 1.0, 0.0],
    )


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=NAME,
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("source", metavar="SOURCE", help="folder, video file, recording, or street:key=value,...")
    group = parser.add_argument_group("source")
    group.add_argument("--topic", metavar="T", help="of a recording with several image topics")
    group.add_argument("--skip-bad", action="store_true", help="leave out frames that cannot be read")
    group.add_argument(
        "--labels",
        metavar="DIR|TOPIC",
        help="ground truth: of a folder, PNG files of the same names; of a recording, a topic of it "
        "(default: labels_truth beside the images, where there is one)",
    )
    group.add_argument("--classes", metavar="NAME|PATH", default="camvid", help="of those labels (default: camvid)")
    group.add_argument(
        "--memory", type=positive, metavar="MB", default=2000.0, help="for frames read beforehand (default: 2000)"
    )
    group = parser.add_argument_group("playing")
    group.add_argument("--rate", type=positive, metavar="HZ", help="default: the source's own, by its stamps")
    group.add_argument("--loop", action="store_true", help="begin again at the end (default: play once and end)")
    group.add_argument("--duration", type=positive, metavar="S", help="end after this time, or earlier without --loop")
    group.add_argument(
        "--stamps",
        choices=("now", "source"),
        default="now",
        help="now: the node's clock, when the frame is published; source: its own, so that a loop sends the same "
        "stamps again; what begins at 0, as folders, videos and the street do, begins at 1 s (default: now)",
    )
    group.add_argument(
        "--wait-for",
        choices=(IMAGES, INFO, TRUTH),
        nargs="+",
        default=[],
        metavar="TOPIC",
        help=f"begin when these have a subscriber: {IMAGES}, {INFO}, {TRUTH}",
    )
    group = parser.add_argument_group("camera")
    group.add_argument("--compressed", action="store_true", help="publish JPEG on image_raw/compressed")
    group.add_argument("--quality", type=jpeg_quality, default=90, help="of the JPEG, 1 to 100 (default: 90)")
    group.add_argument(
        "--reliability",
        choices=("reliable", "best_effort"),
        default="reliable",
        help="of all topics; a reliable publisher serves both kinds of subscribers (default: reliable)",
    )
    group.add_argument("--frame-id", default="camera", help="in the headers (default: camera)")
    group.add_argument(
        "--view-angle", type=view_angle, metavar="DEG", default=60.0, help="in camera_info, horizontal (default: 60)"
    )
    return parser


def positive(text: str) -> float:
    """Parse a finite number above 0, for argparse."""
    value = float(text)
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
    return value


def jpeg_quality(text: str) -> int:
    """Parse a quality of JPEG, 1 to 100, for argparse."""
    if not 1 <= int(text) <= 100:
        raise argparse.ArgumentTypeError(f"expected 1 to 100, got {text}")
    return int(text)


def view_angle(text: str) -> float:
    """Parse degrees that a pinhole camera can see, for argparse."""
    if not 1 <= float(text) <= 175:
        raise argparse.ArgumentTypeError(f"expected 1 to 175 degrees, got {text}")
    return float(text)


def main(argv: list[str] | None = None) -> int:
    """Run the player. Returns the exit status: 0 at the end and after SIGINT or SIGTERM, 2 after an error of the user.

    Args:
        argv: command line without the program's name; None takes the process's.
    """
    argv = sys.argv if argv is None else [NAME, *argv]
    options = build_parser().parse_args(remove_ros_args(argv)[1:])
    keep_freed_memory()
    try:
        interrupt_at_signal()  # while frames are read there is nothing to finish yet
        rclpy.init(args=argv, signal_handler_options=SignalHandlerOptions.NO)
        return run(options)
    except (VidsegError, OSError) as error:
        print(f"{NAME}: error: {one_line(error)}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        return 0
    finally:
        ignore_signals()
        rclpy.try_shutdown()


def labels_of_recording(source: str, topic: str | None) -> str | None:
    """Find the topic of a recording's own ground truth, as `vidseg replay` does; None for none and other sources."""
    path = Path(source)
    bag = find_bag(path) if path.exists() else None
    return None if bag is None else truth_topic(bag, topic or BagSource(bag).topic)


def run(options: argparse.Namespace) -> int:
    """Read the source and play it. Returns the exit status."""
    labels = options.labels or labels_of_recording(options.source, options.topic)
    classes = None if labels is None else load_classes(options.classes)
    source = open_source(
        options.source, topic=options.topic, skip_bad=options.skip_bad, labels=labels, classes=classes, packed=True
    )
    has_truth = source.classes is not None
    if TRUTH in options.wait_for and not has_truth:
        raise VidsegError(f"{options.source}: has no ground truth, so {TRUTH} is not published; do not wait for it")
    film = Film(
        source,
        jpeg_quality=options.quality if options.compressed else None,
        memory_bytes=int(options.memory * 1e6),
        progress=partial(tqdm, desc=source.name, total=source.num_frames, unit="frame", leave=False, mininterval=0.5),
    )
    stopped: list[int] = []
    for one in ENDING:
        signal.signal(one, lambda number, frame: stopped.append(number))
    player = CameraPlayer(options, has_truth, is_stopped=lambda: bool(stopped))
    log = player.get_logger()
    if not film.is_whole:
        log.warning(f"{options.memory:g} MB hold {film.num_held} frames only: the others are read while it plays")
    shots = schedule(film.shots(options.loop), options.rate or source.rate_hz, by_stamps=options.rate is None)
    if options.duration is not None:
        shots = takewhile(lambda timed: timed[0] < options.duration * 1e9, shots)
    leave_out_what_lives()
    player.wait_for_subscribers()
    player.play(shots)
    log.info(f"{player.num_sent} frames sent, the latest {player.worst_late_ns / 1e6:.1f} ms behind its time")
    player.destroy_node()
    return 0


if __name__ == "__main__":
    sys.exit(main())
