"""The calibration of a camera, as the outputs need it that are made of geometry."""

from __future__ import annotations

import time
from collections.abc import Callable

from rclpy.node import Node
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo

from vidseg_ros.messages import camera_info
from vidseg_ros.subscription import RawSubscription, subscribe_raw

GRACE_S = 2.0
"""A camera_info may come this much later than the first image that it is wanted for."""
WANTED = "labels/camera_info, probabilities/camera_info and labels_points"


class Calibration:
    """Keeps a camera's newest camera_info, while it is wanted. What is wrong with it is said once.

    Args:
        node: what the subscription belongs to.
        topic: of the messages.
        images: topic of the images.
        warn_once: takes a text and the values in it.
    """

    def __init__(self, node: Node, topic: str, images: str, warn_once: Callable[..., None]):
        self.topic = topic
        self._node = node
        self._is_rectified = "rect" in images.rsplit("/", 1)[-1]
        self._warn_once = warn_once
        self._subscription: RawSubscription | None = None
        self._message: bytes | memoryview | None = None
        self._wanted_s: float | None = None

    def follow(self, is_wanted: bool) -> None:
        """Subscribe while a calibration is wanted. On the executor's thread, now and then."""
        if is_wanted and self._subscription is None:
            topic, keep = self.topic, self._keep
            self._subscription = subscribe_raw(
                self._node, CameraInfo, topic, keep, lambda count: None, lambda policy: None
            )
        elif not is_wanted:
            self.close()

    def close(self) -> None:
        """Destroy what `follow` has created, and forget what has come."""
        if self._subscription is not None:
            self._subscription.destroy()
        self._subscription = self._message = self._wanted_s = None

    def _keep(self, message: bytes | memoryview) -> None:
        self._message = message

    def of_image(self, size: tuple[int, int]) -> CameraInfo | None:
        """Describe images of a size, (H, W), without region of interest and binning; None if nothing describes them."""
        now_s, message = time.monotonic(), self._message
        self._wanted_s = self._wanted_s or now_s
        if message is None:
            if now_s - self._wanted_s > GRACE_S:
                self._warn_once(
                    "{topic}: no camera_info comes on {info}, so nothing can be published on {wanted}",
                    info=self.topic, wanted=WANTED,
                )  # fmt: skip
            return None
        info = deserialize_message(bytes(message), CameraInfo)
        if camera_info.image_size(info) != size:
            height, width = camera_info.image_size(info)
            self._warn_once(
                "{topic}: images have {width} x {height} pixels, {info} describes {other}: it cannot serve {wanted}",
                width=size[1], height=size[0], info=self.topic, other=f"{width} x {height}", wanted=WANTED,
            )  # fmt: skip
            return None
        if info.k[0] == 0.0 and info.p[0] == 0.0:
            self._warn_once(
                "{topic}: the camera is not calibrated (K and P of {info} are empty), so nothing can be published on "
                "{wanted}", info=self.topic, wanted=WANTED,
            )  # fmt: skip
            return None
        return camera_info.of_image(info)

    def warn_of_distortion(self, info: CameraInfo) -> None:
        """Say that points are wrong if images of a lens that distorts are not rectified."""
        if any(info.d) and not self._is_rectified:
            self._warn_once(
                "{topic}: its lens distorts (D of {info} is not 0). labels_points takes images as rectified: give the "
                "node image_rect, or points lie beside their places", info=self.topic,
            )  # fmt: skip
