"""Kinds of messages that a camera sends, by the name of their transport as image_transport has it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from vidseg_core.data.wire import (
    CompressedView,
    ImageView,
    MessageView,
    PacketView,
    Stamp,
    parse_compressed,
    parse_ffmpeg_packet,
    parse_foxglove_video,
    parse_image,
)
from vidseg_core.errors import ConfigError

if TYPE_CHECKING:
    from vidseg_core.data.packets import PacketDecoder


@dataclass(frozen=True)
class Kind:
    """Messages of one transport.

    Attributes:
        transport: its name, and that of its topic below the images'.
        package, name: of the message's type.
        parse: reads a view from serialized bytes.
        view: makes the same of a message object.
        is_video: whether each message depends on those before it.
    """

    transport: str
    package: str
    name: str
    parse: Callable[[bytes], MessageView]
    view: Callable[[Any], MessageView]
    is_video: bool = False

    def decoder(self) -> PacketDecoder | None:
        """Make a decoder for the packets of one camera; None where each message is a picture by itself.

        Raises:
            ConfigError: PyAV is not installed.
        """
        if not self.is_video:
            return None
        try:
            from vidseg_core.data.packets import PacketDecoder
        except ImportError as error:
            raise ConfigError(
                f"image_transport: {self.transport}: needs PyAV, which cannot be imported (pip install av): {error}"
            ) from error
        return PacketDecoder()

    def message_type(self) -> type:
        """Import the type of the messages.

        Raises:
            ConfigError: its package is not installed.
        """
        try:
            return getattr(import_module(f"{self.package}.msg"), self.name)
        except ImportError as error:
            raise ConfigError(
                f"image_transport: {self.transport}: needs the package {self.package}, which is not installed "
                f"(apt install ros-$ROS_DISTRO-{self.package.replace('_', '-')})"
            ) from error


def _bytes(data: Any) -> np.ndarray:
    return np.asarray(data, dtype=np.uint8)


def _image(message: Any) -> ImageView:
    fields = message.height, message.width, message.encoding, message.is_bigendian, message.step
    return ImageView(_stamp(message.header.stamp), message.header.frame_id, *fields, _bytes(message.data))


def _compressed(message: Any) -> CompressedView:
    return CompressedView(_stamp(message.header.stamp), message.header.frame_id, message.format, _bytes(message.data))


def _ffmpeg(message: Any) -> PacketView:
    return PacketView(_stamp(message.header.stamp), message.header.frame_id, message.encoding, _bytes(message.data))


def _foxglove(message: Any) -> PacketView:
    return PacketView(_stamp(message.timestamp), message.frame_id, message.format, _bytes(message.data))


def _stamp(time: Any) -> Stamp:
    return Stamp(time.sec, time.nanosec)


KINDS = {
    kind.transport: kind
    for kind in (
        Kind("raw", "sensor_msgs", "Image", parse_image, _image),
        Kind("compressed", "sensor_msgs", "CompressedImage", parse_compressed, _compressed),
        Kind("ffmpeg", "ffmpeg_image_transport_msgs", "FFMPEGPacket", parse_ffmpeg_packet, _ffmpeg, is_video=True),
        Kind("foxglove", "foxglove_msgs", "CompressedVideo", parse_foxglove_video, _foxglove, is_video=True),
    )
}
"""By transport, the values of the parameter `image_transport`."""
