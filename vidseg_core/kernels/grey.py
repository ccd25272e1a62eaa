"""Grey levels of a colour picture, as optical flow compares them."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from vidseg_core.kernels.cpu.grey import BLUE, GREEN, RED, SHIFT, grey_rows
from vidseg_core.kernels.dispatch import Operation
from vidseg_core.kernels.picture import areas
from vidseg_core.kernels.transfer import Pixels, tensor_of
from vidseg_core.threads import over_rows

MOST_SIDE = 16


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
    return GREY_PICTURE.on("cpu")(image, size).numpy()  # images come in the host's memory


def grey_picture_reference(image: Pixels, size: tuple[int, int]) -> Tensor:
    """Compute `grey_picture` in plain torch."""
    x = tensor_of(image).double()
    levels = x @ torch.tensor([RED, GREEN, BLUE]).double().to(x.device)
    down, across = (areas(side, shrunk).to(x.device) for side, shrunk in zip(image.shape[:2], size, strict=True))
    return (down @ levels @ across.T / 2**SHIFT + 0.5).floor().to(torch.uint8)


GREY_PICTURE = Operation("grey_picture", grey_picture_reference)


@GREY_PICTURE.register("cpu")
def _grey_picture_on_cpu(image: np.ndarray, size: tuple[int, int]) -> Tensor:
    height, width = image.shape[:2]
    side, packed = height // size[0], image.strides[1:] == (3, 1)
    squares = size[0] * side == height and size[1] * side == width
    if squares and side <= MOST_SIDE and side & (side - 1) == 0 and not (side == 1 and packed):
        return torch.from_numpy(_means(image, size, side))
    grey = cv2.cvtColor(image if packed else np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
    return torch.from_numpy(grey if grey.shape == size else cv2.resize(grey, size[::-1], interpolation=cv2.INTER_AREA))


def _means(image: np.ndarray, size: tuple[int, int], side: int) -> np.ndarray:
    step, pixel, along = image.strides
    if pixel < 1 or step < 1 or abs(along) * 2 >= max(pixel, 3) or (along == 0 and pixel > 1):
        image = np.ascontiguousarray(image)
        step, pixel, along = image.strides
    first = image if along >= 0 else image[:, :, 2:]  # from the lowest address on
    red, green, blue = (0, along, 2 * along) if along >= 0 else (-2 * along, -along, 0)
    length = (image.shape[0] - 1) * step + (image.shape[1] - 1) * pixel + 2 * abs(along) + 1
    values = np.lib.stride_tricks.as_strided(first, (length,), (1,), writeable=False)
    out = np.empty(size, np.uint8)
    over_rows(grey_rows, size[0], values, step, pixel, red, green, blue, side, out)
    return out
