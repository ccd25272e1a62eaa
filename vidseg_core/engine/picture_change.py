"""Change of the picture since a key frame beyond what flow explains: what cannot be carried along.

Compared are small grey pictures, so that it costs little and noise averages out.
"""

from __future__ import annotations

import cv2
import numpy as np
from torch import Tensor

STRIDE = 8
TOLERANCE = 20.0  # grey levels: a pixel this wrong has changed altogether


def small_picture(image: np.ndarray) -> np.ndarray:
    """H x W x 3, uint8 -> H/8 x W/8, float32, 0..255; owns its memory."""
    height, width = image.shape[:2]
    small = cv2.resize(image, (width // STRIDE, height // STRIDE), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)


def change(current: np.ndarray, past: np.ndarray, motion: Tensor | None) -> float:
    """Share of the current picture that the past one does not show where flow says it should be, 0..1.

    Args:
        current, past: small pictures of two frames, of the same shape.
        motion: 1 x 2 x h x w, flow from the current frame to the past one in pixels of its grid; None if nothing moved.
    """
    height, width = current.shape
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    if motion is not None:
        h, w = motion.shape[2:]
        u, v = (cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA) for part in motion[0].cpu().numpy())
        x, y = x + u * np.float32(width / w), y + v * np.float32(height / h)
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    difference = current - cv2.remap(past, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    if inside.any():
        difference -= difference[inside].mean()  # the camera's exposure
    return float(np.where(inside, np.minimum(np.abs(difference) / TOLERANCE, 1.0), 1.0).mean())
