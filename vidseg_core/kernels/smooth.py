"""Resizing of images in bytes, smoothed where they get smaller: `PIL.Image.resize`, as image processors call it."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from vidseg_core.kernels.cpu.smooth import BITS, across, down
from vidseg_core.threads import over_rows

PYTORCH = "torch_"
"""Begins the names of resizes as PyTorch computes them, see `models.card.InputCard.resize`."""
REACH = {"bilinear": 1.0, "bicubic": 2.0}
"""Pixels of the smaller picture that a filter reaches to either side."""
_SHARPNESS = -0.5  # of the cubic filter


def smooth_resize(image: np.ndarray, size: tuple[int, int], how: str) -> np.ndarray:
    """Resize an image; the pixels of both sizes cover equal parts of it.

    Args:
        image: H x W x 3, uint8.
        size: (h, w) wanted.
        how: bilinear or bicubic.

    Returns:
        h x w x 3, uint8, as Pillow's: where that takes rows and columns in another order (its versions differ), values
        may be one apart. `image` itself where that is its size.
    """
    if size[0] < image.shape[0] and size[1] > image.shape[1]:  # fewer values in between
        image = smooth_resize(image, (size[0], image.shape[1]), how)
    if image.shape[1] != size[1]:
        narrow = np.empty((image.shape[0], size[1], 3), dtype=np.uint8)
        over_rows(across, image.shape[0], np.ascontiguousarray(image), *taps(image.shape[1], size[1], how), narrow)
        image = narrow
    if image.shape[0] != size[0]:
        out = np.empty((*size, 3), dtype=np.uint8)
        rows = np.ascontiguousarray(image).reshape(image.shape[0], -1)
        over_rows(down, size[0], rows, *taps(image.shape[0], size[0], how), out.reshape(size[0], -1))
        image = out
    return image


@lru_cache(maxsize=16)
def taps(inputs: int, outputs: int, how: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the pixels that each of `outputs` pixels is made of, and their weights.

    Returns:
        The first of them and their number, int64 each, and outputs x K weights, int32, in units of 2 ** -`BITS`.
    """
    step = inputs / outputs
    wide = max(step, 1.0)
    reach = REACH[how] * wide
    centre = (np.arange(outputs) + 0.5) * step
    first = np.maximum((centre - reach + 0.5).astype(np.int64), 0)
    count = np.minimum((centre + reach + 0.5).astype(np.int64), inputs) - first
    k = np.arange(count.max())
    apart = np.abs((first[:, None] + k - centre[:, None] + 0.5) / wide)
    weights = np.where(k < count[:, None], _filter(apart, how), 0.0)
    weights /= weights.sum(1, keepdims=True)
    scaled = weights * (1 << BITS)
    return first, count, np.where(scaled < 0, scaled - 0.5, scaled + 0.5).astype(np.int32)


def _filter(apart: np.ndarray, how: str) -> np.ndarray:
    if how == "bilinear":
        return np.maximum(1.0 - apart, 0.0)
    a, x = _SHARPNESS, apart
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
