"""Change of the picture in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vidseg_core.kernels.change import STRIDE, TOLERANCE
from vidseg_core.kernels.cpu.grey import BLUE, GREEN, RED, SHIFT
from vidseg_core.kernels.reference.picture import shrunk_reference


def small_picture_reference(image: Tensor, shrunk: Tensor | None = None) -> Tensor:
    """Compute `small_picture` in plain torch."""
    return grey(shrunk_reference(image, (image.shape[0] // STRIDE, image.shape[1] // STRIDE)))


def grey(colours: Tensor) -> Tensor:
    """Return the grey levels of 3 x h x w, whole levels: h x w, float32, whole."""
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
