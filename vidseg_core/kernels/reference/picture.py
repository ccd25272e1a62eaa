"""Pictures shrunk by means of areas, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vidseg_core.arrays import Array
from vidseg_core.kernels.picture import REACH, SMOOTHING
from vidseg_core.kernels.reference.transfer import tensor_of


def grid_picture_reference(image: Array, grid: tuple[int, int], shrunk: Tensor | None = None) -> Tensor:
    """Compute `grid_picture` in plain torch."""
    is_there = shrunk is not None and tuple(shrunk.shape[2:]) == tuple(grid)
    small = shrunk[0].double() if shrunk is not None and is_there else shrunk_reference(image, grid)
    weights = torch.exp(-(torch.arange(-REACH, REACH + 1).double() ** 2) / (2 * SMOOTHING**2))
    kernel = (torch.outer(weights, weights) / weights.sum() ** 2).to(small.device)
    rows, columns = (mirrored(side).to(small.device) for side in grid)
    padded = small.index_select(1, rows).index_select(2, columns)
    return F.conv2d(padded[:, None], kernel[None, None]).round().to(torch.uint8).permute(1, 0, 2, 3)


def shrunk_reference(image: Array, size: tuple[int, int]) -> Tensor:
    """Shrink an image by means of areas: 3 x h x w, float64, whole numbers."""
    x = tensor_of(image).permute(2, 0, 1).double()  # 3 x H x W
    down, across = (areas(side, shrunk).to(x.device) for side, shrunk in zip(image.shape[:2], size, strict=True))
    return (down @ x @ across.T).round()


def areas(inputs: int, outputs: int) -> Tensor:
    """Return outputs x inputs, float64: the share of each output pixel that each input pixel covers."""
    edges = torch.arange(outputs + 1, dtype=torch.float64) * (inputs / outputs)
    pixels = torch.arange(inputs, dtype=torch.float64)
    covered = torch.minimum(edges[1:, None], pixels + 1) - torch.maximum(edges[:-1, None], pixels)
    return covered.clamp_min(0) * (outputs / inputs)


def mirrored(side: int) -> Tensor:
    """Return side + 2 `REACH` indices into a row of pixels, those outside of it mirrored at the outermost pixels."""
    at = torch.arange(-REACH, side + REACH) % max(2 * (side - 1), 1)
    return torch.where(at < side, at, 2 * (side - 1) - at)
