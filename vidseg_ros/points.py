"""Labelled points: labels of an image, and the depth image or the cloud that belongs to it by its stamp."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.time import Time
from sensor_msgs.msg import Image, PointCloud2

from vidseg_core.data.wire import (
    HeaderLike,
    ImageView,
    PointField,
    WireError,
    parse_header,
    parse_image,
    parse_point_cloud,
    serialise_point_cloud,
)
from vidseg_core.frame import MOST_JITTER_NS
from vidseg_core.kernels.points import Labelled, cloud_points, depth_points
from vidseg_core.overlay import confidence_levels
from vidseg_ros.calibration import Calibration
from vidseg_ros.mailbox import Mailbox
from vidseg_ros.messages import camera_info
from vidseg_ros.messages.headers import header_of
from vidseg_ros.outputs import Picture
from vidseg_ros.parameters import CameraSettings
from vidseg_ros.subscription import RawSubscription, publish_points, subscribe_raw

MOST_PICTURES = 8
"""Labels that wait for their depth image or cloud."""
MOST_PAIRS = 4
"""Labels with their depth image or cloud that wait for the worker; a newer pair takes the place of the oldest."""
MOST_MESSAGES = 32
MOST_BYTES = 256 << 20
"""Depth images or clouds that wait for labels: fewer, if they are large."""
MOST_ERRORS = 8
"""Different faults of the source that are said, each once."""

DEPTHS = {"16UC1": "u2", "mono16": "u2", "32FC1": "f4"}
"""Encodings of depth images, and NumPy's names for their numbers: millimetres and metres."""
FLOAT32, UINT32 = 7, 6
FIELDS = (
    PointField("x", 0, FLOAT32),
    PointField("y", 4, FLOAT32),
    PointField("z", 8, FLOAT32),
    PointField("rgb", 12, FLOAT32),
    PointField("label", 16, UINT32),
    PointField("confidence", 20, FLOAT32),
)

UNMATCHED = (
    "{topic}: no message on {source} has a stamp within points_slop_s ({slop:g} s) of an image's, so nothing is "
    "published on labels_points; {nearest}"
)
REFUSED = "{topic}: {source}: {error}; nothing is published on labels_points"


class Shown(NamedTuple):
    """A labelled image that waits for its depth: the header of its message, and what was made of it."""

    header: HeaderLike
    stamp_ns: int
    picture: Picture


class Pair(NamedTuple):
    """A labelled image and the serialized depth image or cloud that belongs to it."""

    shown: Shown
    message: bytes


class Points:
    """Publishes labelled points while somebody subscribes to them; only then it subscribes to their source.

    Images and messages of the source come in any order, on two threads. What belongs together goes through the
    mailbox to the worker, as a camera's letter does.

    Args:
        node: what publisher and subscription belong to.
        settings: of the camera.
        prefix: of the camera's topics.
        mailbox: of the worker.
        calibration: of the camera.
        send: publishes a serialized message.
        warn_once: takes a text and the values in it.
        failed: takes what has gone wrong, for diagnostics.
    """

    def __init__(
        self,
        node: Node,
        settings: CameraSettings,
        prefix: str,
        mailbox: Mailbox,
        calibration: Calibration,
        *,
        send: Callable[[Publisher, bytes], None],
        warn_once: Callable[..., None],
        failed: Callable[[str], None],
    ):
        self.faults_in_a_row = 0
        self.topic = node.resolve_topic_name(f"{prefix}labels_points")
        self._node = node
        self._from_depth = settings.points_from == "depth"
        self._source = node.resolve_topic_name(f"{prefix}{'depth' if self._from_depth else 'points'}")
        self._named = f"{prefix}labels_points", f"{prefix}{'depth' if self._from_depth else 'points'}"
        self._mailbox = mailbox
        self._calibration = calibration
        self._send, self._warn_once, self._failed = send, warn_once, failed
        self._publisher: Publisher | None = None
        self._subscription: RawSubscription | None = None
        self._transforms: Transforms | None = None
        self._refused: set[str] = set()
        self._num_pairs = 0
        self._lock = threading.Lock()
        self._forget()

    def open(self) -> None:
        """Create the publisher."""
        self._publisher = publish_points(self._node, self._named[0])

    def close(self) -> None:
        """Destroy what `open` and `follow` have created."""
        self._unsubscribe()
        if self._publisher is not None:
            self._node.destroy_publisher(self._publisher)
            self._publisher = None

    @property
    def is_wanted(self) -> bool:
        """Tell if somebody subscribes to the points."""
        return self._publisher is not None and self._publisher.get_subscription_count() > 0

    def follow(self, is_listening: bool) -> None:
        """Subscribe to the source while the points are wanted. On the executor's thread, now and then.

        Args:
            is_listening: whether images are taken at all.
        """
        is_needed = is_listening and self.is_wanted
        if is_needed and self._subscription is None:
            message_type = Image if self._from_depth else PointCloud2
            self._subscription = subscribe_raw(
                self._node, message_type, self._named[1], self._on_message, lambda count: None, self._on_incompatible
            )
            if not self._from_depth:
                self._transforms = Transforms(self._node)
        elif not is_needed and self._subscription is not None:
            self._unsubscribe()

    def add(self, header: HeaderLike, stamp_ns: int, picture: Picture) -> None:
        """Take a labelled image. On the worker's thread."""
        shown = Shown(header, stamp_ns, picture)
        with self._lock:
            if self._pictures and stamp_ns < self._pictures[-1].stamp_ns - MOST_JITTER_NS:  # time begins again
                self._forget()
            self._slop_ns = round(picture.settings.points_slop_s * 1e9)
            nearest = min(self._messages, key=lambda one: abs(one[0] - stamp_ns), default=None)
            if nearest is not None:
                self._off_ns = abs(nearest[0] - stamp_ns)
            if nearest is not None and self._off_ns <= self._slop_ns:
                self._match(shown, nearest[1])
                return
            self._pictures.append(shown)
            is_lost = len(self._pictures) > MOST_PICTURES
            if is_lost:
                self._pictures.popleft()
        if is_lost and not self._has_matched:
            self._say_unmatched()

    def process(self, pair: Pair) -> None:
        """Make the points and publish them. On the worker's thread."""
        try:
            message = self._made(pair)
        except ValueError as error:
            self._refuse(error)
        else:
            if message is not None and self._publisher is not None:
                self._send(self._publisher, message)
        self.faults_in_a_row = 0

    def fault(self, error: Exception) -> None:
        """Take note that `process` raised."""
        self.faults_in_a_row += 1
        self._failed(f"labels_points: {type(error).__name__}: {error}")

    def _refuse(self, error: ValueError) -> None:
        if str(error) not in self._refused and len(self._refused) < MOST_ERRORS:
            self._refused.add(str(error))
            escaped = str(error).replace("{", "{{").replace("}", "}}")
            self._warn_once(REFUSED.replace("{error}", escaped), source=self._source)

    def _forget(self) -> None:
        self._pictures: deque[Shown] = deque()
        self._messages: deque[tuple[int, bytes]] = deque()
        self._slop_ns, self._off_ns, self._has_matched = 0, -1, False

    def _unsubscribe(self) -> None:
        if self._transforms is not None:
            self._transforms.close()
            self._transforms = None
        if self._subscription is not None:
            self._subscription.destroy()
            self._subscription = None
        with self._lock:
            self._forget()

    def _on_incompatible(self, policy: str) -> None:
        self._warn_once(
            "{topic}: a publisher of {source} offers a QoS that this subscription cannot take ({policy})",
            source=self._source,
            policy=policy,
        )

    def _on_message(self, message: bytes | memoryview) -> None:
        """Take a message of the source. On the executor's thread."""
        try:
            stamp_ns = parse_header(message)[0]
        except WireError as error:
            self._refuse(error)
            return
        with self._lock:
            nearest = min(self._pictures, key=lambda one: abs(one.stamp_ns - stamp_ns), default=None)
            if nearest is not None:
                self._off_ns = abs(nearest.stamp_ns - stamp_ns)
            if nearest is not None and self._off_ns <= self._slop_ns:
                self._match(nearest, message)
                return
            self._messages.append((stamp_ns, message))
            while len(self._messages) > min(MOST_MESSAGES, max(1, MOST_BYTES // len(message))):
                self._messages.popleft()

    def _match(self, shown: Shown, message: bytes | memoryview) -> None:
        """Leave a pair for the worker, and forget all that was waiting and is older."""
        self._has_matched = True
        self._pictures = deque(one for one in self._pictures if one.stamp_ns > shown.stamp_ns)
        self._messages = deque(one for one in self._messages if one[0] > shown.stamp_ns + self._slop_ns)
        # A depth image that is late must not cost its own pair when the next one is complete at once.
        self._num_pairs += 1
        self._mailbox.put((self, self._num_pairs % MOST_PAIRS), ((self, Pair(shown, message)),))

    def _say_unmatched(self) -> None:
        off_ns = self._off_ns
        nearest = "none has come" if off_ns < 0 else f"the nearest of the last ones is {off_ns / 1e9:.3f} s away"
        self._warn_once(UNMATCHED, source=self._source, slop=self._slop_ns / 1e9, nearest=nearest)

    def _made(self, pair: Pair) -> bytes | None:
        """Return the message; None where calibration or a transform is missing, which has been said.

        Raises:
            ValueError: the depth image or the cloud cannot be used.
        """
        shown, picture = pair.shown, pair.shown.picture
        image = picture.image
        info = self._calibration.of_image((image.shape[0], image.shape[1]))
        if info is None:
            return None
        self._calibration.warn_of_distortion(info)
        if self._from_depth:
            depth = self._depth(parse_image(pair.message), shown)
            info = camera_info.resized(info, (depth.shape[0], depth.shape[1]))
            labelled = Labelled(image, picture.labels, picture.confidence, picture.segmentation.labels)
            points = depth_points(labelled, depth, camera_info.projection(info), picture.settings.points_stride)
            return serialise_point_cloud(shown.header, FIELDS, points)
        cloud = parse_point_cloud(pair.message)
        header, positions = header_of(shown.header), cloud.positions()
        pose = self._pose(shown.header.frame_id, cloud.frame_id, cloud.stamp_ns, picture.settings)
        if pose is None:
            return None
        stride = picture.settings.points_stride
        positions = positions[:, ::stride] if cloud.height == 1 else positions[::stride, ::stride]
        labels, confidence = picture.segmentation.labels, picture.segmentation.confidence
        levels = None if confidence is None else confidence_levels(confidence, (labels.shape[0], labels.shape[1]))
        points = cloud_points(Labelled(image, labels, levels), positions, camera_info.projection(info) @ pose)
        header.frame_id = cloud.frame_id  # points stay where they are, at the time of the image
        return serialise_point_cloud(header, FIELDS, points, bool(cloud.is_dense))

    def _depth(self, view: ImageView, shown: Shown) -> np.ndarray:
        """Return depths, H x W, uint16 or float32.

        Raises:
            ValueError: the image holds no depths, or is of another size than the image and the labels.
        """
        if view.encoding not in DEPTHS:
            raise ValueError(f"expected a depth image of {', '.join(DEPTHS)}, got {view.encoding[:40]!r}")
        image, labels = shown.picture.image.shape[:2], shown.picture.labels.shape
        if (view.height, view.width) not in (image, labels):
            raise ValueError(
                f"expected a depth image registered to the camera's, of its {image[1]} x {image[0]} pixels or the "
                f"labels' {labels[1]} x {labels[0]}, got {view.width} x {view.height}"
            )
        if view.frame_id != shown.header.frame_id:
            self._warn_once(
                "{topic}: depth images are in frame {theirs!r}, images in {ours!r}; they are taken as registered",
                theirs=view.frame_id,
                ours=shown.header.frame_id,
            )
        kind = np.dtype(("<>"[bool(view.is_bigendian)]) + DEPTHS[view.encoding])
        rows = np.ascontiguousarray(view.rows(view.height, view.step, view.width * kind.itemsize))
        return rows.view(kind).astype(kind.newbyteorder("="), copy=False)

    def _pose(self, camera: str, cloud: str, stamp_ns: int, settings: CameraSettings) -> np.ndarray | None:
        """Return 4 x 4, from the cloud's frame to the camera's; None if it is not known, which has been said."""
        if settings.points_extrinsic is not None:
            return matrix(settings.points_extrinsic)
        if camera == cloud:
            return np.eye(4)
        transforms = self._transforms
        try:
            pose = None if transforms is None else transforms.find(camera, cloud, stamp_ns)
        except LookupError as error:
            self._warn_once(REFUSED, source=self._source, error=error)
            return None
        return None if pose is None else matrix(pose)


class Transforms:
    """Finds poses by tf2, where that is installed."""

    def __init__(self, node: Node):
        try:
            import tf2_ros
        except ImportError:
            self._buffer = None
            return
        self._error = tf2_ros.TransformException
        self._buffer = tf2_ros.Buffer()
        self._listener = tf2_ros.TransformListener(self._buffer, node)

    def find(self, target: str, source: str, stamp_ns: int) -> tuple[float, ...]:
        """Return x y z qx qy qz qw of a frame in another one.

        Raises:
            LookupError: it is not known; says what to do.
        """
        if self._buffer is None:
            raise LookupError(
                f"the cloud is in frame {source!r}, images in {target!r}, and tf2_ros is not installed (apt install "
                "ros-$ROS_DISTRO-tf2-ros-py): set points_extrinsic"
            )
        try:
            found = self._buffer.lookup_transform(target, source, Time(nanoseconds=stamp_ns)).transform
        except self._error as error:
            raise LookupError(f"tf2 has no transform from {source!r} to {target!r}: {error}") from error
        shift, turn = found.translation, found.rotation
        return shift.x, shift.y, shift.z, turn.x, turn.y, turn.z, turn.w

    def close(self) -> None:
        """Let go of the topics of transforms."""
        if self._buffer is not None and hasattr(self._listener, "unregister"):
            self._listener.unregister()


def matrix(pose: tuple[float, ...]) -> np.ndarray:
    """Return 4 x 4, float64, of x y z qx qy qz qw; the quaternion need not have length 1."""
    x, y, z, w = np.array(pose[3:]) / np.linalg.norm(pose[3:])
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w), pose[0]],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w), pose[1]],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y), pose[2]],
            [0.0, 0.0, 0.0, 1.0],
        ]
    )
