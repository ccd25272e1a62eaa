"""Change of the picture since a key frame beyond what flow explains: what cannot be carried along.

Compared are small grey pictures, so that it costs little and noise averages out.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vidseg_core.kernels.cpu.grey import BLUE, GREEN, RED, SHIFT
from vidseg_core.kernels.dispatch import Operation
from vidseg_core.kernels.picture import finer, shrunk_reference
from vidseg_core.kernels.transfer import Pixels, device_type_of

STRIDE = 8
TOLERANCE = 20.0  # grey levels: a pixel this wrong has changed altogether


def small_picture(image: Pixels, shrunk: Tensor | None = None) -> Pixels:
    """Shrink an image and take its grey levels.

    Args:
        image: H x W x 3, uint8, RGB.
        shrunk: 1 x 3 x any size, uint8: the image shrunk already, see `kernels.look`; on the CPU it is taken instead of
            the image if it is large enough.

    Returns:
        H/8 x W/8, float32, 0..255, where the image is; owns its memory.
    """
    return SMALL_PICTURE.on(device_type_of(image))(image, shrunk)


def change(current: Pixels, past: Pixels, motion: Tensor | None) -> float | Tensor:
    """Measure the share of the current picture that the past one does not show where flow says it should be, 0..1.

    Args:
        current, past: small pictures of two frames, of the same shape.
        motion: 1 x 2 x h x w, flow from the current frame to the past one in pixels of its grid; None if nothing moved.

    Returns:
        A number; of a device other than the CPU a tensor, for which `float` waits.
    """
    return CHANGE.on(device_type_of(current))(current, past, motion)


def small_picture_reference(image: Tensor, shrunk: Tensor | None = None) -> Tensor:
    """Compute `small_picture` in plain torch."""
    return grey(shrunk_reference(image, (image.shape[0] // STRIDE, image.shape[1] // STRIDE)))


def grey(colours: Tensor) -> Tensor:
    """3 x h x w, whole levels -> h x w, float32, whole grey levels."""
    red, green, blue = colours.int()
    return ((red * RED + green * GREEN + blue * BLUE + (1 << (SHIFT - 1))) >> SHIFT).float()


def change_reference(current: Tensor, past: Tensor, motion: Tensor | None) -> Tensor:
    """Compute `change` in plain torch."""
    height, width = current.shape
    x = torch.arange(width, device=current.device, dtype=torch.float32)[None].expand(height, width)
    y = torch.arange(height, device=current.device, dtype=torch.float32)[:, None].expand(height, width)
    if motion is not None:
        h, w = motion.shape[2:]
        u, v = F.interpolate(motion.float(), (height, width), mode="area")[0]
        x, y = x + u * (width / w), y + v * (height / h)
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    at = torch.stack((2 * x / (width - 1) - 1, 2 * y / (height - 1) - 1), -1)[None]
    seen = F.grid_sample(past[None, None], at, mode="bilinear", padding_mode="border", align_corners=True)[0, 0]
    difference = current - seen
    exposure = torch.where(inside, difference, 0.0).sum() / inside.sum().clamp_min(1)  # the camera's
    apart = ((difference - exposure).abs() / TOLERANCE).clamp_max(1.0)
    return torch.where(inside, apart, 1.0).mean()


SMALL_PICTURE = Operation("small_picture", small_picture_reference)
CHANGE = Operation("change", change_reference)


@SMALL_PICTURE.register("cpu")
def _small_picture_on_cpu(image: np.ndarray, shrunk: Tensor | None = None) -> np.ndarray:
    height, width = image.shape[0] // STRIDE, image.shape[1] // STRIDE
    small = cv2.resize(finer(image, (height, width), shrunk), (width, height), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)


@CHANGE.register("cpu")
def _change_on_cpu(current: np.ndarray, past: np.ndarray, motion: Tensor | None) -> float:
    height, width = current.shape
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    if motion is not None:
        h, w = motion.shape[2:]
        u, v = (cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA) for part in motion[0].numpy())
        x, y = x + u * np.float32(width / w), y + v * np.float32(height / h)
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    difference = current - cv2.remap(past, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    if inside.any():
        difference -= difference[inside].mean()  # the camera's exposure
    return float(np.where(inside, np.minimum(np.abs(difference) / TOLERANCE, 1.0), 1.0).mean())
