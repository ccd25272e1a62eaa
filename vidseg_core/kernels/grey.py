"""Grey levels of a colour picture, as optical flow compares them."""

from __future__ import annotations

import cv2
import numpy as np

from vidseg_core.kernels.cpu.grey import grey_rows
from vidseg_core.kernels.dispatch import Operation
from vidseg_core.threads import over_rows

MOST_SIDE = 16
# Nanoseconds on one thread, see `threads.over_rows`: of a byte that is read, and of a grey level.
BYTE_NS, LEVEL_NS = 0.05, 1.7
_NOBODY = np.empty((0, 0, 3), np.uint8)


def grey_picture(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Reduce an image to grey levels (ITU-R BT.601), and shrink it by means of areas.

    Args:
        image: H x W x 3, uint8, RGB, as it comes: rows may be padded, pixels may have a fourth byte or lie in the order
            blue, green, red, or be one byte three times (views with such strides are read where they are).
        size: (h, w) wanted, at most the image's.

    Returns:
        h x w, uint8, newly allocated. Where `size` is the image's over a power of 2 up to `MOST_SIDE`, the mean over
        the square, rounded once; else each pixel's grey level is rounded, too.
    """
    return GREY_PICTURE.on("cpu")(image, size)  # images come in the host's memory


def grey_and_shrunk(image: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray | None]:
    """Compute `grey_picture` and, in the same pass over the image, the image shrunk as far.

    Args:
        image, size: see `grey_picture`.

    Returns:
        Grey levels, h x w, and h x w x 3, both uint8 and newly allocated. Of the latter None where it would take a pass
        of its own.
    """
    side = _side_of_squares(image, size)
    if side < 2:
        return grey_picture(image, size), None
    shrunk = np.empty((*size, 3), np.uint8)
    return _means(image, size, side, shrunk), shrunk


GREY_PICTURE = Operation("grey_picture", "grey.grey_picture_reference")


@GREY_PICTURE.register("cpu")
def _grey_picture_on_cpu(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    side, packed = _side_of_squares(image, size), image.strides[1:] == (3, 1)
    if side > 1 or (side == 1 and not packed):
        return _means(image, size, side, _NOBODY)
    grey = cv2.cvtColor(image if packed else np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
    return grey if grey.shape == size else cv2.resize(grey, size[::-1], interpolation=cv2.INTER_AREA)


def _side_of_squares(image: np.ndarray, size: tuple[int, int]) -> int:
    """Return the side of the squares of pixels that `grey_rows` averages for this size; 0 if it cannot."""
    height, width = image.shape[:2]
    side = height // size[0]
    squares = size[0] * side == height and size[1] * side == width
    return side if squares and side <= MOST_SIDE and side & (side - 1) == 0 else 0


def _means(image: np.ndarray, size: tuple[int, int], side: int, shrunk: np.ndarray) -> np.ndarray:
    step, pixel, along = image.strides
    if pixel < 1 or step < 1 or abs(along) * 2 >= max(pixel, 3) or (along == 0 and pixel > 1):
        image = np.ascontiguousarray(image)
        step, pixel, along = image.strides
    first = image if along >= 0 else image[:, :, 2:]  # from the lowest address on
    red, green, blue = (0, along, 2 * along) if along >= 0 else (-2 * along, -along, 0)
    length = (image.shape[0] - 1) * step + (image.shape[1] - 1) * pixel + 2 * abs(along) + 1
    values = np.lib.stride_tricks.as_strided(first, (length,), (1,), writeable=False)
    out = np.empty(size, np.uint8)
    work_us = (BYTE_NS * values.size + LEVEL_NS * out.size) / 1e3
    over_rows(grey_rows, size[0], values, step, pixel, red, green, blue, side, out, shrunk, work_us=work_us)
    return out
