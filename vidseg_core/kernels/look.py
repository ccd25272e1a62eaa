"""One look at a camera's picture: the pyramid that flow needs, and the picture shrunk as far as its finest level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vidseg_core.arrays import Array, channels_first, device_type_of
from vidseg_core.kernels.dispatch import Operation
from vidseg_core.kernels.flow import pyramid
from vidseg_core.kernels.grey import grey_and_shrunk, grey_picture


class Looked(NamedTuple):
    """Holds what a look has found.

    Attributes:
        levels: see `kernels.flow.pyramid`, on the pixels' device.
        shrunk: 1 x 3 x h x w, uint8, the image shrunk to the finest level's size, see `kernels.picture.grid_picture`;
            None where nobody wants it or it would not have come along with the rest.
    """

    levels: Sequence[Array]
    shrunk: Array | None


def look(image: Array, size: tuple[int, int], compares: bool = False) -> Looked:
    """Read an image once for all that flow compares, and what is to be had along with it.

    Args:
        image: H x W x 3, uint8, RGB; an array may have any strides, see `grey_picture`.
        size: (h, w) of the finest level, each side 8 or more and at most the image's.
        compares: whether the frame is compared with others, so that `Looked.shrunk` saves a pass over the image.

    Raises:
        ValueError: `size` is too small.
    """
    return LOOK.on(device_type_of(image))(image, size, compares)


LOOK = Operation("look", "look.look_reference")


@LOOK.register("cpu")
def _look_on_cpu(image: np.ndarray, size: tuple[int, int], compares: bool = False) -> Looked:
    if not compares:
        return Looked(pyramid(grey_picture(image, size)), None)
    grey, shrunk = grey_and_shrunk(image, size)
    return Looked(pyramid(grey), None if shrunk is None else channels_first(shrunk))
