"""Resizing of images in bytes in plain torch, and as PyTorch itself does it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vidseg_core.arrays import Array, as_tensor
from vidseg_core.kernels.cpu.smooth import BITS
from vidseg_core.kernels.reference.transfer import tensor_of
from vidseg_core.kernels.resample import positions
from vidseg_core.kernels.smooth import PYTORCH, REACH, taps


def stretched_by_pytorch(image: np.ndarray, size: tuple[int, int], how: str) -> np.ndarray:
    """Compute `stretch` on the CPU by the rules that are PyTorch's own, `torch_bilinear` and `torch_bicubic`."""
    whole = as_tensor(image).permute(2, 0, 1)[None]
    smoothed = F.interpolate(whole, size, mode=how.removeprefix(PYTORCH), antialias=True)
    return np.ascontiguousarray(smoothed[0].permute(1, 2, 0).numpy())


def stretch_reference(image: Array, size: tuple[int, int], how: str) -> Tensor:
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
