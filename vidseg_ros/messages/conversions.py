"""Pictures of messages as RGB: the encodings that cameras send.

The conversions are OpenCV's own, the ones behind cv_bridge and rosbags-image, so that every way of installing gives the
same pixels. Of 16 bits per sample the upper eight are taken, that is 1/256 of the value, rounded down.
"""

from __future__ import annotations

import cv2
import numpy as np

from vidseg_core.data.images import decode_rgb
from vidseg_core.data.wire import BYTES_PER_PIXEL, CompressedView, ImageView, WireError
from vidseg_core.errors import VidsegError

# OpenCV's conversion to RGB; None: it is RGB. OpenCV names a Bayer pattern by its second row's second and third pixel,
# ROS by the first two rows' first two. `8UCn` names no order of channels; in ROS it is OpenCV's.
_CONVERSION = {
    "rgb8": None,
    "bgr8": cv2.COLOR_BGR2RGB,
    "8UC3": cv2.COLOR_BGR2RGB,
    "rgba8": cv2.COLOR_RGBA2RGB,
    "bgra8": cv2.COLOR_BGRA2RGB,
    "8UC4": cv2.COLOR_BGRA2RGB,
    "mono8": cv2.COLOR_GRAY2RGB,
    "8UC1": cv2.COLOR_GRAY2RGB,
    "bayer_rggb8": cv2.COLOR_BayerBG2RGB,
    "bayer_bggr8": cv2.COLOR_BayerRG2RGB,
    "bayer_gbrg8": cv2.COLOR_BayerGR2RGB,
    "bayer_grbg8": cv2.COLOR_BayerGB2RGB,
    "yuv422": cv2.COLOR_YUV2RGB_UYVY,
    "uyvy": cv2.COLOR_YUV2RGB_UYVY,
    "yuv422_yuy2": cv2.COLOR_YUV2RGB_YUYV,
    "yuyv": cv2.COLOR_YUV2RGB_YUYV,
}
# Encodings of 16 bits per sample, and what their upper bytes are.
_UPPER_BYTES = {
    "mono16": "mono8",
    "16UC1": "mono8",
    "rgb16": "rgb8",
    "bgr16": "bgr8",
    "16UC3": "bgr8",
    "rgba16": "rgba8",
    "bgra16": "bgra8",
    "16UC4": "bgra8",
    "bayer_rggb16": "bayer_rggb8",
    "bayer_bggr16": "bayer_bggr8",
    "bayer_gbrg16": "bayer_gbrg8",
    "bayer_grbg16": "bayer_grbg8",
}
# Encodings in which two neighbours in a row share their colour. OpenCV 4 takes rows of odd width without a word.
_PAIRED = ("yuv422", "uyvy", "yuv422_yuy2", "yuyv")
ENCODINGS = (*_CONVERSION, *_UPPER_BYTES)
"""The encodings that `to_rgb` knows."""
COMPRESSED_FORMATS = ("jpeg", "png", "webp", "bmp")
"""The formats that `compressed_to_rgb` knows."""

_LONGEST_NAME = 40


class UnsupportedEncoding(VidsegError):
    """The picture is in an encoding that is not converted to RGB."""

    def __init__(self, encoding: str, known: tuple[str, ...]):
        name = encoding if len(encoding) <= _LONGEST_NAME else encoding[:_LONGEST_NAME] + "..."
        super().__init__(f"expected an encoding of {', '.join(known)}, got {name!r}")
        self.encoding = encoding


def to_rgb(view: ImageView) -> np.ndarray:
    """H x W x 3, uint8, RGB.

    For `rgb8` it is a read-only view of the message, whose rows lie `step` bytes apart; else a new contiguous array.

    Raises:
        UnsupportedEncoding: the encoding is not one of `ENCODINGS`.
        WireError: the image has no pixels, or its data are not what its size, step and encoding say.
    """
    encoding = view.encoding
    if encoding in _UPPER_BYTES:
        encoding = _UPPER_BYTES[encoding]
        upper = 0 if view.is_bigendian else 1
        pixels = np.ascontiguousarray(view.pixels(2 * BYTES_PER_PIXEL[encoding])[..., upper::2])
    elif encoding in _CONVERSION:
        pixels = view.pixels(BYTES_PER_PIXEL[encoding])
    else:
        raise UnsupportedEncoding(encoding, ENCODINGS)
    if encoding in _PAIRED and view.width % 2:
        raise WireError(f"{view.width} x {view.height} pixels cannot be {encoding}: expected an even width")
    conversion = _CONVERSION[encoding]
    if conversion is None:
        return pixels
    try:
        return cv2.cvtColor(pixels, conversion)
    except cv2.error as cause:
        raise WireError(f"{view.width} x {view.height} pixels cannot be {view.encoding}: {cause.err}") from cause


def compressed_to_rgb(view: CompressedView) -> np.ndarray:
    """H x W x 3, uint8, RGB, contiguous; grey images become three equal channels, 16 bits become 8.

    Raises:
        UnsupportedEncoding: the format is `compressedDepth`, which is no picture.
        WireError: the data are cut short, or not an image that OpenCV can decode.
    """
    if "compressedDepth" in view.format:
        raise UnsupportedEncoding(view.format, COMPRESSED_FORMATS)
    return decode_rgb(view.data, f"compressed image of format {view.format[:_LONGEST_NAME]!r}", WireError)
