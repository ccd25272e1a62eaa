"""Backward warping: where the previous frame's values are now.

Convention: `flow[:, 0]` is u (along x) and `flow[:, 1]` is v (along y), in pixels of the grid, from the current frame
to the previous one; `warped(x, y) = previous(x + u, y + v)`, bilinear. The sampling grid is `2 (x + u) / (w - 1) - 1`
whatever `align_corners` is; with False (as the public checkpoint's authors ran it) zero flow is not the identity.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vidseg_core.engine.config import PADDINGS


def warp(values: Tensor, flow: Tensor, align_corners: bool = True, padding: str = "zeros") -> Tensor:
    """The previous frame's values at their new places.

    Args:
        values: B x C x h x w, of the previous frame.
        flow: B x 2 x h x w, from the current frame to the previous one, in pixels of the grid.
        align_corners: see the convention above.
        padding: what lies outside the previous frame: "zeros", or "border" (its nearest pixel).

    Returns:
        B x C x h x w, newly allocated. Differentiable.

    Raises:
        ValueError: shapes do not fit together, or unknown `padding`.
    """
    if padding not in PADDINGS:
        raise ValueError(f"padding: expected one of {PADDINGS}, got {padding!r}")
    if values.ndim != 4 or flow.shape != (values.shape[0], 2, *values.shape[2:]):
        raise ValueError(f"expected B x C x h x w and B x 2 x h x w, got {tuple(values.shape)} and {tuple(flow.shape)}")
    h, w = values.shape[2:]
    x = torch.arange(w, device=flow.device, dtype=flow.dtype)
    y = torch.arange(h, device=flow.device, dtype=flow.dtype)[:, None]
    grid = torch.stack((2 * (x + flow[:, 0]) / (w - 1) - 1, 2 * (y + flow[:, 1]) / (h - 1) - 1), -1)
    return F.grid_sample(values, grid.to(values.dtype), "bilinear", padding, align_corners)
