"""Resize images in bytes by the rules that networks were trained with."""

from __future__ import annotations

import cv2
import numpy as np

from vidseg_core.arrays import Array, as_array, channels_first, device_type_of
from vidseg_core.kernels.dispatch import Operation
from vidseg_core.kernels.resample import resize
from vidseg_core.kernels.smooth import PYTORCH, REACH, smooth_resize


def stretch(image: Array, size: tuple[int, int], how: str) -> Array:
    """Resize an image; see `models.card.InputCard.resize`.

    Args:
        image: H x W x 3, uint8.
        size: (h, w).

    Returns:
        h x w x 3, uint8, where the image is; `image` itself where that is its size. Elsewhere than on the CPU values
        may be one level apart from those of the library that a rule is named after.
    """
    if tuple(image.shape[:2]) == tuple(size):
        return image
    return STRETCH.on(device_type_of(image))(image, size, how)


STRETCH = Operation("stretch", "stretch.stretch_reference")


@STRETCH.register("cpu")
def _stretch_on_cpu(image: np.ndarray, size: tuple[int, int], how: str) -> np.ndarray:
    if how == "linear":
        return cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
    if how in REACH:
        return smooth_resize(image, size, how)
    if how.startswith(PYTORCH):
        from vidseg_core.kernels.reference.stretch import stretched_by_pytorch

        return stretched_by_pytorch(image, size, how)
    found = as_array(resize(channels_first(np.ascontiguousarray(image, np.float32)), size))
    return np.ascontiguousarray(np.rint(found[0].transpose(1, 2, 0)).astype(np.uint8))
