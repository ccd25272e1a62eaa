"""Resize images in bytes by the rules that networks were trained with."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vidseg_core.kernels.cpu.smooth import BITS
from vidseg_core.kernels.dispatch import Operation
from vidseg_core.kernels.resample import positions
from vidseg_core.kernels.smooth import REACH, smooth_resize, taps
from vidseg_core.kernels.transfer import Pixels, device_type_of, tensor_of

PYTORCH = "torch_"
"""Begins the names of resizes as PyTorch computes them, see `models.card.InputCard.resize`."""


def stretch(image: Pixels, size: tuple[int, int], how: str) -> Pixels:
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


def stretch_reference(image: Pixels, size: tuple[int, int], how: str) -> Tensor:
    """Compute `stretch` in plain torch: along x, then along y, each rounded to whole levels."""
    x = tensor_of(image)
    for axis in (1, 0):
        first, weights = (part.to(x.device) for part in weighed(x.shape[axis], size[axis], how))
        total = torch.zeros(1, device=x.device)
        for k in range(weights.shape[1]):
            at = (first + k).clamp_max(x.shape[axis] - 1)
            weight = weights[:, k].view(-1, 1, 1) if axis == 0 else weights[:, k].view(1, -1, 1)
            total = total + weight * x.index_select(axis, at).float()
        x = (total.clamp(0, 255) + 0.5).floor().to(torch.uint8)
    return x


def weighed(inputs: int, outputs: int, how: str) -> tuple[Tensor, Tensor]:
    """Return the first input pixel of each of `outputs`, int64, and the weights from there on, outputs x K, float32."""
    how = how.removeprefix(PYTORCH)
    if how in REACH:
        first, _, weights = taps(inputs, outputs, how)
        return torch.from_numpy(first), torch.from_numpy(weights).float() / (1 << BITS)
    before, behind = positions(inputs, outputs, half_pixel=how == "linear")
    return torch.from_numpy(before).long(), torch.from_numpy(np.stack((1 - behind, behind), 1))


STRETCH = Operation("stretch", stretch_reference)


@STRETCH.register("cpu")
def _stretch_on_cpu(image: np.ndarray, size: tuple[int, int], how: str) -> np.ndarray:
    if how == "linear":
        return cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
    if how in REACH:
        return smooth_resize(image, size, how)
    if how.startswith(PYTORCH):
        whole = torch.from_numpy(image).permute(2, 0, 1)[None]
        smoothed = F.interpolate(whole, size, mode=how.removeprefix(PYTORCH), antialias=True)
        return np.ascontiguousarray(smoothed[0].permute(1, 2, 0).numpy())
    given = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    found = F.interpolate(given, size, mode="bilinear", align_corners=True).round().to(torch.uint8)
    return np.ascontiguousarray(found[0].permute(1, 2, 0).numpy())
