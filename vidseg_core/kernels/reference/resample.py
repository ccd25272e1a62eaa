"""Bilinear resizing in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vidseg_core.arrays import Array
from vidseg_core.kernels.reference.transfer import tensor_of
from vidseg_core.kernels.resample import Colour, lattice


def resize_reference(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Compute `resize` in plain torch, differentiable; `x` itself where that is its size."""
    if tuple(x.shape[2:]) == tuple(size):
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=True)


def resample_reference(
    x: Tensor, size: tuple[int, int], picture: tuple[int, int], source_half_pixel: bool, target_half_pixel: bool
) -> Tensor:
    """Compute `resample` in plain torch, differentiable."""
    sides = []
    for inputs, outputs, side in zip(x.shape[2:], size, picture, strict=True):
        at = lattice(inputs, outputs, side, source_half_pixel, target_half_pixel)
        sides.append(torch.from_numpy(2 * at / max(inputs - 1, 1) - 1).to(x))
    grid = torch.stack((sides[1].expand(size), sides[0][:, None].expand(size)), -1)
    grid = grid.expand(x.shape[0], *grid.shape)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=True)


def on_grid_reference(scores: Tensor, grid: tuple[int, int], picture: tuple[int, int] | None = None) -> Tensor:
    """Compute `on_grid` in plain torch, differentiable."""
    if picture is None:
        return resize_reference(scores, grid)
    return resample_reference(scores, grid, picture, source_half_pixel=True, target_half_pixel=False)


def network_input_reference(image: Array, size: tuple[int, int], bgr: bool, mean: Colour, std: Colour) -> Tensor:
    """Compute `network_input` in plain torch."""
    x = resize_reference(tensor_of(image).permute(2, 0, 1)[None].float(), size)
    mean_of, std_of = (torch.tensor(values).view(3, 1, 1).to(x.device) for values in (mean, std))
    x = (x - mean_of) / std_of
    return (x.flip(1) if bgr else x).contiguous(memory_format=torch.channels_last)
