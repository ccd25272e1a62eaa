"""Results as a person sees them: labels in colours, alone or over the image, and confidence in levels of grey."""

from __future__ import annotations

import cv2
import numpy as np
from numba import njit

from vidseg_core.classes import VOID
from vidseg_core.threads import over_rows


@njit(nogil=True, cache=True)
def _blend(begin, end, image, labels, keep, color, out):
    for y in range(begin, end):
        for x in range(labels.shape[1]):
            label = labels[y, x]
            k = keep[label]
            for c in range(3):
                out[y, x, c] = (np.uint32(image[y, x, c]) * k + color[label, c]) >> np.uint32(8)


def overlay(image: np.ndarray, labels: np.ndarray, lut: np.ndarray, opacity: float = 0.5) -> np.ndarray:
    """Blend the colours of its labels over an image; void pixels stay as they are.

    Args:
        image: H x W x 3, uint8, RGB.
        labels: H x W, uint8.
        lut: 256 x 3, uint8, RGB: the colour of each id.
        opacity: 0 (image alone) to 1 (colours alone), in steps of 1/256.

    Returns:
        H x W x 3, uint8, RGB, newly allocated.

    Raises:
        ValueError: sizes differ, or `opacity` is outside 0..1.
    """
    if not 0.0 <= opacity <= 1.0:
        raise ValueError(f"opacity: expected 0..1, got {opacity}")
    if image.shape != (*labels.shape, 3):
        raise ValueError(f"expected an image of {labels.shape} like its labels, got {image.shape}")
    alpha = round(opacity * 256)
    keep = np.full(256, 256 - alpha, dtype=np.uint32)
    color = lut.astype(np.uint32) * alpha + 128  # so that the shift by 8 rounds
    keep[VOID], color[VOID] = 256, 0
    return _run(image, labels, keep, color)


def colorize(labels: np.ndarray, lut: np.ndarray) -> np.ndarray:
    """Return the labels' colours alone: H x W x 3, uint8, RGB, newly allocated.

    Args:
        labels: H x W, uint8.
        lut: 256 x 3, uint8, RGB.
    """
    unused = np.broadcast_to(np.uint8(0), (*labels.shape, 3))
    return _run(unused, labels, np.zeros(256, dtype=np.uint32), lut.astype(np.uint32) << 8)


def confidence_levels(confidence: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return confidence as levels of grey, (H, W), uint8, newly allocated: 255 is certain.

    Args:
        confidence: h x w, float32 in 0..1, see `Segmentation.confidence`; it is interpolated between its pixels.
        size: (H, W) of the image.
    """
    levels = np.rint(confidence * 255).astype(np.uint8)
    return cv2.resize(levels, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)


def _run(image, labels, keep, color):
    out = np.empty((*labels.shape, 3), dtype=np.uint8)
    over_rows(_blend, labels.shape[0], image, labels, keep, color, out)
    return out
