"""The picture on the grid with which later frames compare theirs."""

from __future__ import annotations

import cv2
import numpy as np

from vidseg_core.arrays import Array, channels_first, device_type_of
from vidseg_core.kernels.dispatch import Operation

SMOOTHING = 1.0  # pixels of the grid: sensor noise and steep edges must not count as disagreement
REACH = 3  # pixels of the grid, of the Gaussian


def grid_picture(image: Array, grid: tuple[int, int], shrunk: Array | None = None) -> Array:
    """Shrink an image to the grid by means of areas, and smooth it by a Gaussian of `SMOOTHING`.

    Args:
        image: H x W x 3, uint8; rows may be padded.
        grid: (h, w), each at most as large as the image's.
        shrunk: 1 x 3 x any size, uint8: the image shrunk already, see `kernels.look`. It is taken instead of the image
            where it has the grid's size, on the CPU where it is larger, too: then the first step rounds twice.

    Returns:
        1 x 3 x h x w, uint8, the channels in the image's order, newly allocated, on the image's device. Both steps
        round to whole grey levels; outside the picture is its mirror image, without the outermost pixel once more.
    """
    return GRID_PICTURE.on(device_type_of(image))(image, grid, shrunk)


def finer(image: np.ndarray, size: tuple[int, int], shrunk: np.ndarray | None) -> np.ndarray:
    """Return what to shrink to (h, w): `shrunk`, 1 x 3 x any size, if it is as large; else the image."""
    if shrunk is None or shrunk.shape[2] < size[0] or shrunk.shape[3] < size[1]:
        return image
    return shrunk[0].transpose(1, 2, 0)


GRID_PICTURE = Operation("grid_picture", "picture.grid_picture_reference")


@GRID_PICTURE.register("cpu")
def _grid_picture_on_cpu(image: np.ndarray, grid: tuple[int, int], shrunk: np.ndarray | None = None) -> np.ndarray:
    # Rounded a little otherwise than what others shrink.
    small = cv2.resize(finer(image, grid, shrunk), grid[::-1], interpolation=cv2.INTER_AREA)
    return channels_first(cv2.GaussianBlur(small, (2 * REACH + 1, 2 * REACH + 1), SMOOTHING))
