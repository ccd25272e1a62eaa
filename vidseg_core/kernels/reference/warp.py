"""Backward warping in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def warp_reference(values: Tensor, flow: Tensor, align_corners: bool = True, padding: str = "zeros") -> Tensor:
    """Compute `warp` in plain torch, differentiable, for any batch; arguments are not checked."""
    h, w = values.shape[2:]
    x = torch.arange(w, device=flow.device, dtype=flow.dtype)
    y = torch.arange(h, device=flow.device, dtype=flow.dtype)[:, None]
    grid = torch.stack((2 * (x + flow[:, 0]) / (w - 1) - 1, 2 * (y + flow[:, 1]) / (h - 1) - 1), -1)
    return F.grid_sample(values, grid.to(values.dtype), "bilinear", padding, align_corners)


def compose_reference(motion: Tensor, flow: Tensor) -> Tensor:
    """Compute `compose` in plain torch, for any batch."""
    return flow + warp_reference(motion, flow, padding="border")
