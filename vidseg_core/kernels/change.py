"""Change of the picture since a key frame beyond what flow explains: what cannot be carried along.

Compared are small grey pictures, so that it costs little and noise averages out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from vidseg_core.arrays import Array, device_type_of
from vidseg_core.kernels.dispatch import Operation
from vidseg_core.kernels.picture import finer

if TYPE_CHECKING:
    from torch import Tensor

STRIDE = 8
TOLERANCE = 20.0  # grey levels: a pixel this wrong has changed altogether


def small_picture(image: Array, shrunk: Array | None = None) -> Array:
    """Shrink an image and take its grey levels.

    Args:
        image: H x W x 3, uint8, RGB.
        shrunk: 1 x 3 x any size, uint8: the image shrunk already, see `kernels.look`; on the CPU it is taken instead of
            the image if it is large enough.

    Returns:
        H/8 x W/8, float32, 0..255, where the image is; owns its memory.
    """
    return SMALL_PICTURE.on(device_type_of(image))(image, shrunk)


def change(current: Array, past: Array, motion: Array | None) -> float | Tensor:
    """Measure the share of the current picture that the past one does not show where flow says it should be, 0..1.

    Args:
        current, past: small pictures of two frames, of the same shape.
        motion: 1 x 2 x h x w, flow from the current frame to the past one in pixels of its grid; None if nothing moved.

    Returns:
        A number; of a device other than the CPU a tensor, for which `float` waits.
    """
    return CHANGE.on(device_type_of(current))(current, past, motion)


SMALL_PICTURE = Operation("small_picture", "change.small_picture_reference")
CHANGE = Operation("change", "change.change_reference")


@SMALL_PICTURE.register("cpu")
def _small_picture_on_cpu(image: np.ndarray, shrunk: np.ndarray | None = None) -> np.ndarray:
    height, width = image.shape[0] // STRIDE, image.shape[1] // STRIDE
    small = cv2.resize(finer(image, (height, width), shrunk), (width, height), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)


@CHANGE.register("cpu")
def _change_on_cpu(current: np.ndarray, past: np.ndarray, motion: np.ndarray | None) -> float:
    height, width = current.shape
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    if motion is not None:
        h, w = motion.shape[2:]
        u, v = (cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA) for part in motion[0])
        x, y = x + u * np.float32(width / w), y + v * np.float32(height / h)
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    difference = current - cv2.remap(past, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    if inside.any():
        difference -= difference[inside].mean()  # the camera's exposure
    return float(np.where(inside, np.minimum(np.abs(difference) / TOLERANCE, 1.0), 1.0).mean())
