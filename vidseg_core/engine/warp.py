"""Backward warping: where the previous frame's values are now.

Convention: `flow[:, 0]` is u (along x) and `flow[:, 1]` is v (along y), in pixels of the grid, from the current frame
to the previous one; `warped(x, y) = previous(x + u, y + v)`, bilinear. The sampling grid is `2 (x + u) / (w - 1) - 1`
whatever `align_corners` is; with False (as the public checkpoint's authors ran it) zero flow is not the identity.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch import Tensor
from torch.nn import functional as F

from vidseg_core.engine.config import PADDINGS
from vidseg_core.threads import over_rows


def warp(values: Tensor, flow: Tensor, align_corners: bool = True, padding: str = "zeros") -> Tensor:
    """The previous frame's values at their new places.

    Args:
        values: B x C x h x w, of the previous frame.
        flow: B x 2 x h x w, from the current frame to the previous one, in pixels of the grid.
        align_corners: see the convention above.
        padding: what lies outside the previous frame: "zeros", or "border" (its nearest pixel).

    Returns:
        B x C x h x w, newly allocated. Differentiable; where no gradient is asked for, on the CPU, one picture is moved
        by a kernel that reads and writes channels last.

    Raises:
        ValueError: shapes do not fit together, or unknown `padding`.
    """
    if padding not in PADDINGS:
        raise ValueError(f"padding: expected one of {PADDINGS}, got {padding!r}")
    if values.ndim != 4 or flow.shape != (values.shape[0], 2, *values.shape[2:]):
        raise ValueError(f"expected B x C x h x w and B x 2 x h x w, got {tuple(values.shape)} and {tuple(flow.shape)}")
    h, w = values.shape[2:]
    wants_gradient = torch.is_grad_enabled() and (values.requires_grad or flow.requires_grad)
    if values.device.type == "cpu" and values.shape[0] == 1 and not wants_gradient:
        return _warp_on_cpu(values, flow, align_corners, padding == "border")
    x = torch.arange(w, device=flow.device, dtype=flow.dtype)
    y = torch.arange(h, device=flow.device, dtype=flow.dtype)[:, None]
    grid = torch.stack((2 * (x + flow[:, 0]) / (w - 1) - 1, 2 * (y + flow[:, 1]) / (h - 1) - 1), -1)
    return F.grid_sample(values, grid.to(values.dtype), "bilinear", padding, align_corners)


def _warp_on_cpu(values: Tensor, flow: Tensor, align_corners: bool, border: bool) -> Tensor:
    source, way = (x.detach().float().permute(0, 2, 3, 1).contiguous()[0].numpy() for x in (values, flow))
    h, w = source.shape[:2]
    # A sampling grid that is one thing and read as another: see the convention above.
    stretch = (1.0, 1.0) if align_corners else (h / (h - 1), w / (w - 1))
    out = np.empty_like(source)
    shift = np.float32(0.0 if align_corners else -0.5)
    over_rows(_warp_rows, h, source, way, np.float32(stretch[0]), np.float32(stretch[1]), shift, border, out)
    return torch.from_numpy(out)[None].permute(0, 3, 1, 2).to(values.dtype)


@njit(nogil=True, cache=True)
def _warp_rows(begin, end, source, flow, stretch_y, stretch_x, shift, border, out):
    height, width, channels = source.shape
    bottom, right = np.float32(height), np.float32(width)
    one = np.float32(1.0)
    for y in range(begin, end):
        for x in range(width):
            at_x = (np.float32(x) + flow[y, x, 0]) * stretch_x + shift
            at_y = (np.float32(y) + flow[y, x, 1]) * stretch_y + shift
            if border:
                at_x = min(max(at_x, np.float32(0.0)), right - one)
                at_y = min(max(at_y, np.float32(0.0)), bottom - one)
            if not (-one < at_x < right and -one < at_y < bottom):
                out[y, x, :] = np.float32(0.0)
                continue
            x0, y0 = int(np.floor(at_x)), int(np.floor(at_y))
            wx, wy = at_x - np.float32(x0), at_y - np.float32(y0)
            x1, y1 = x0 + 1, y0 + 1
            w00, w01 = (one - wy) * (one - wx), (one - wy) * wx
            w10, w11 = wy * (one - wx), wy * wx
            # What lies outside weighs nothing, and is read where there is something to read.
            if x0 < 0:
                x0, w00, w10 = 0, np.float32(0.0), np.float32(0.0)
            if y0 < 0:
                y0, w00, w01 = 0, np.float32(0.0), np.float32(0.0)
            if x1 >= width:
                x1, w01, w11 = width - 1, np.float32(0.0), np.float32(0.0)
            if y1 >= height:
                y1, w10, w11 = height - 1, np.float32(0.0), np.float32(0.0)
            for c in range(channels):
                upper = w00 * source[y0, x0, c] + w01 * source[y0, x1, c]
                out[y, x, c] = upper + w10 * source[y1, x0, c] + w11 * source[y1, x1, c]
