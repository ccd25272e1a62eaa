"""Pictures of messages as RGB: the one list of encodings that node and command line take.

Their names and layouts are those of sensor_msgs' image_encodings. The conversions are OpenCV's own, the ones behind
cv_bridge, so that every way of installing gives the same pixels; YUV is ITU-R BT.601 in studio range. Of 16 bits per
sample the upper eight are taken, that is 1/256 of the value, rounded down.
"""

from __future__ import annotations

import re

import cv2
import numpy as np

from vidseg_core.data.images import decode_rgb
from vidseg_core.data.wire import BYTES_PER_PIXEL, CompressedView, ImageView, WireError
from vidseg_core.errors import VidsegError

# OpenCV's conversion to RGB; None: it is RGB. OpenCV names a Bayer pattern by its second row's second and third pixel,
# ROS by the first two rows' first two. `8UCn` names no order of channels; in ROS it is OpenCV's.
_PACKED = {
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
# Encodings of two planes, luma and interleaved colour: bytes of both for two bytes of luma.
_PLANAR = {"nv12": 3, "nv21": 3, "nv24": 6}
# Encodings in which two neighbours in a row share their colour. OpenCV 4 takes rows of odd width without a word.
_PAIRED = ("yuv422", "uyvy", "yuv422_yuy2", "yuyv")
ENCODINGS = (*_PACKED, *_UPPER_BYTES, *_PLANAR)
"""The encodings of sensor_msgs/Image that are converted."""
COMPRESSED_FORMATS = ("jpeg", "png", "webp", "bmp")
"""The formats of sensor_msgs/CompressedImage that are decoded."""

_MEASUREMENT = re.compile(r"(8S|16S|32S|32F|64F)(C\d+)?|.*compressedDepth.*", re.DOTALL)
_LONGEST_NAME = 40


class UnsupportedEncoding(VidsegError):
    """The picture is in an encoding that is not converted to RGB."""

    def __init__(self, encoding: str, known: tuple[str, ...]):
        name = encoding if len(encoding) <= _LONGEST_NAME else encoding[:_LONGEST_NAME] + "..."
        reason = ", which holds measurements such as depth, no picture" if _MEASUREMENT.fullmatch(encoding) else ""
        super().__init__(f"expected an encoding of {', '.join(known)}, got {name!r}{reason}")
        self.encoding = encoding


def to_rgb(view: ImageView | CompressedView) -> np.ndarray:
    """Convert the picture of a message to H x W x 3, uint8, RGB.

    For `rgb8` it is a read-only view of the message, whose rows lie `step` bytes apart; else a new contiguous array.
    The rows of nv12, nv21 and nv24 are `step` bytes of luma, then the colour plane follows, with rows as long (nv24:
    twice as long); packed data whose `step` counts both planes' bytes per row of the image are taken, too.
    Of a compressed image, grey becomes three equal channels.

    Raises:
        UnsupportedEncoding: the encoding is not one of `ENCODINGS`, or the format one of measurements.
        WireError: the image has no pixels, or its data are not what its size, step and encoding say.
    """
    if isinstance(view, CompressedView):
        return _decoded(view)
    encoding = view.encoding
    if encoding in _PLANAR:
        return _from_planes(view)
    if encoding in _UPPER_BYTES:
        encoding = _UPPER_BYTES[encoding]
        upper = 0 if view.is_bigendian else 1
        pixels = np.ascontiguousarray(view.pixels(2 * BYTES_PER_PIXEL[encoding])[..., upper::2])
    elif encoding in _PACKED:
        pixels = view.pixels(BYTES_PER_PIXEL[encoding])
    else:
        raise UnsupportedEncoding(encoding, ENCODINGS)
    if encoding in _PAIRED and view.width % 2:
        raise WireError(f"{view.width} x {view.height} pixels cannot be {encoding}: expected an even width")
    conversion = _PACKED[encoding]
    return pixels if conversion is None else _converted(pixels, conversion, view)


def _decoded(view: CompressedView) -> np.ndarray:
    if "compressedDepth" in view.format:
        raise UnsupportedEncoding(view.format, COMPRESSED_FORMATS)
    return decode_rgb(view.data, f"compressed image of format {view.format[:_LONGEST_NAME]!r}", WireError)


def _converted(pixels: np.ndarray, conversion: int, view: ImageView) -> np.ndarray:
    try:
        return cv2.cvtColor(pixels, conversion)
    except cv2.error as cause:
        raise WireError(f"{view.width} x {view.height} pixels cannot be {view.encoding}: {cause.err}") from cause


def _from_planes(view: ImageView) -> np.ndarray:
    height, width, encoding = view.height, view.width, view.encoding
    if encoding != "nv24" and (width % 2 or height % 2):
        raise WireError(f"{width} x {height} pixels cannot be {encoding}: expected an even width and height")
    step = _luma_step(view)
    if encoding != "nv24":
        planes = view.rows(height + height // 2, step, width)
        conversion = cv2.COLOR_YUV2RGB_NV12 if encoding == "nv12" else cv2.COLOR_YUV2RGB_NV21
        return _converted(planes, conversion, view)
    luma = view.rows(3 * height, step, width)[:height]
    colour = view.data[height * step : 3 * height * step].reshape(height, 2 * step)[:, : 2 * width]
    # Two equal pixels for each one are yuyv, the only form with this much colour that OpenCV converts by BT.601.
    doubled = np.empty((height, width, 2, 2), np.uint8)
    doubled[..., 0] = luma[..., None]
    doubled[..., 1] = colour.reshape(height, width, 2)
    pairs = _converted(doubled.reshape(height, 2 * width, 2), cv2.COLOR_YUV2RGB_YUYV, view)
    return np.ascontiguousarray(pairs[:, ::2])


def _luma_step(view: ImageView) -> int:
    """Length of a row of luma in bytes: the step, unless drivers have divided the packed data by the height for it."""
    packed = view.width * _PLANAR[view.encoding]
    return view.width if 2 * view.step == packed and view.data.size == view.height * view.step else view.step
