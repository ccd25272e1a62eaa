"""Image encodings of ROS messages."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from rosbags.image import ImageError, image_to_cvimage

from vidseg_core.data.images import decode_rgb
from vidseg_core.errors import SourceError

# Bytes per pixel and OpenCV's conversion to RGB (None: it is RGB). 8UCn names no order; in ROS it is OpenCV's.
_COMMON = {
    "rgb8": (3, None),
    "bgr8": (3, cv2.COLOR_BGR2RGB),
    "8UC3": (3, cv2.COLOR_BGR2RGB),
    "mono8": (1, cv2.COLOR_GRAY2RGB),
    "8UC1": (1, cv2.COLOR_GRAY2RGB),
    "rgba8": (4, cv2.COLOR_RGBA2RGB),
    "bgra8": (4, cv2.COLOR_BGRA2RGB),
    "8UC4": (4, cv2.COLOR_BGRA2RGB),
}
# What `rosbags-image` converts rightly once rows are packed; depth (16UC1, 32FC1) and planar YUV are not among it.
_OTHER = ("bayer_", "yuv422", "uyvy", "yuyv", "mono16", "rgb16", "bgr16", "rgba16", "bgra16")


def message_to_rgb(message: Any, where: str) -> np.ndarray:
    """Convert a sensor_msgs Image or CompressedImage, as `rosbags` deserializes it, to H x W x 3, uint8, RGB.

    Args:
        message: has `encoding`, `height`, `width`, `step`, `is_bigendian`, `data`; or `format`, `data`.
        where: names the message in error messages.

    Raises:
        SourceError: the data do not fit the description, or the encoding is not one of a colour or grey image.
    """
    if hasattr(message, "format"):
        if "compressedDepth" in message.format:
            raise SourceError(f"{where}: expected a camera image, got format {message.format!r}")
        return decode_rgb(message.data, where, SourceError)
    if message.encoding in _COMMON:
        channels, conversion = _COMMON[message.encoding]
        image = packed_rows(message, message.width * channels, where).reshape(message.height, message.width, channels)
        return np.ascontiguousarray(image) if conversion is None else cv2.cvtColor(image, conversion)
    if message.encoding.startswith(_OTHER):
        return _other_encoding(message, where)
    raise SourceError(f"{where}: encoding {message.encoding!r} is not a camera's, or cannot be converted to RGB")


def packed_rows(message: Any, row_bytes: int, where: str) -> np.ndarray:
    """View the data without the padding at the end of the rows: H x row_bytes, uint8.

    Raises:
        SourceError: there are fewer data than rows, or a row is too short.
    """
    height, step, size = message.height, message.step, len(message.data)
    if min(height, message.width) == 0 or step < row_bytes or size < height * step:
        raise SourceError(
            f"{where}: expected {message.width} x {height} {message.encoding} in rows of at least {row_bytes} bytes, "
            f"got {size} bytes in rows of {step}"
        )
    return np.frombuffer(message.data, np.uint8, height * step).reshape(height, step)[:, :row_bytes]


def _other_encoding(message: Any, where: str) -> np.ndarray:
    """Bayer, YUV 4:2:2 and 16 bit encodings."""
    try:
        pixel_bytes = image_to_cvimage(_one_pixel(message)).nbytes
        rows = packed_rows(message, message.width * pixel_bytes, where)
        packed = replace(message, step=rows.shape[1], data=np.ascontiguousarray(rows).reshape(-1))
        return np.ascontiguousarray(image_to_cvimage(packed, "rgb8"))
    except (ImageError, cv2.error) as error:
        raise SourceError(f"{where}: encoding {message.encoding!r} cannot be converted to RGB: {error}") from error


def _one_pixel(message: Any) -> Any:
    return replace(message, width=1, height=1, data=np.zeros(64, np.uint8))
