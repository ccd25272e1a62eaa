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
from vidseg_core.engine.lanes import LANES, add, load, mul, spread, store
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


def compose(motion: Tensor, flow: Tensor) -> Tensor:
    """Where `motion` leads from the previous frame, from the current one, which `flow` leads from to the previous one.

    Args:
        motion, flow: B x 2 x h x w, in pixels of the grid; outside the image motion is that of its border.

    Returns:
        B x 2 x h x w, newly allocated.
    """
    if flow.device.type != "cpu" or flow.shape[0] != 1:
        return flow + warp(motion, flow, padding="border")
    first, then = (x.float().contiguous()[0].numpy() for x in (flow, motion))
    out = np.empty_like(first)
    over_rows(_compose_rows, first.shape[1], first, then, out)
    return torch.from_numpy(out)[None].to(motion.dtype)


def _warp_on_cpu(values: Tensor, flow: Tensor, align_corners: bool, border: bool) -> Tensor:
    source = values.detach().float().permute(0, 2, 3, 1).contiguous()[0].numpy()
    way = flow.detach().float().contiguous()[0].numpy()
    h, w = source.shape[:2]
    # A sampling grid that is one thing and read as another: see the convention above.
    stretch = (1.0, 1.0) if align_corners else (h / (h - 1), w / (w - 1))
    out = np.empty_like(source)
    shift = np.float32(0.0 if align_corners else -0.5)
    over_rows(_warp_rows, h, source, way, np.float32(stretch[0]), np.float32(stretch[1]), shift, border, out)
    return torch.from_numpy(out)[None].permute(0, 3, 1, 2).to(values.dtype)


@njit(nogil=True, cache=True)
def _warp_rows(begin, end, source, flow, stretch_y, stretch_x, shift, border, out):
    """Source and out h x w x C, flow 2 x h x w."""
    height, width, channels = source.shape
    bottom, right = np.float32(height), np.float32(width)
    one, zero = np.float32(1.0), np.float32(0.0)
    for y in range(begin, end):
        for x in range(width):
            at_x = (np.float32(x) + flow[0, y, x]) * stretch_x + shift
            at_y = (np.float32(y) + flow[1, y, x]) * stretch_y + shift
            if border:
                at_x = min(max(at_x, zero), right - one)
                at_y = min(max(at_y, zero), bottom - one)
            if not (-one < at_x < right and -one < at_y < bottom):
                out[y, x, :] = zero
                continue
            x0, y0 = int(np.floor(at_x)), int(np.floor(at_y))
            wx, wy = at_x - np.float32(x0), at_y - np.float32(y0)
            x1, y1 = x0 + 1, y0 + 1
            w00, w01 = (one - wy) * (one - wx), (one - wy) * wx
            w10, w11 = wy * (one - wx), wy * wx
            # What lies outside weighs nothing, and is read where there is something to read.
            if x0 < 0:
                x0, w00, w10 = 0, zero, zero
            if y0 < 0:
                y0, w00, w01 = 0, zero, zero
            if x1 >= width:
                x1, w01, w11 = width - 1, zero, zero
            if y1 >= height:
                y1, w10, w11 = height - 1, zero, zero
            if channels < LANES:
                for c in range(channels):
                    upper = w00 * source[y0, x0, c] + w01 * source[y0, x1, c]
                    out[y, x, c] = upper + w10 * source[y1, x0, c] + w11 * source[y1, x1, c]
                continue
            to = (y * width + x) * channels
            at00, at01 = (y0 * width + x0) * channels, (y0 * width + x1) * channels
            at10, at11 = (y1 * width + x0) * channels, (y1 * width + x1) * channels
            v00, v01, v10, v11 = spread(w00), spread(w01), spread(w10), spread(w11)
            for group in range(0, channels, LANES):
                c = min(group, channels - LANES)  # the last eight may be partly those before them
                value = add(mul(v01, load(source, at01 + c)), mul(v00, load(source, at00 + c)))
                value = add(mul(v10, load(source, at10 + c)), value)
                store(out, to + c, add(mul(v11, load(source, at11 + c)), value))


@njit(nogil=True, cache=True)
def _compose_rows(begin, end, flow, motion, out):
    """All 2 x h x w."""
    _, height, width = flow.shape
    right, bottom = np.float32(width - 1), np.float32(height - 1)
    zero = np.float32(0.0)
    for y in range(begin, end):
        for x in range(width):
            u, v = flow[0, y, x], flow[1, y, x]
            at_x, at_y = np.float32(x) + u, np.float32(y) + v
            # What is not a number is not larger than anything either.
            at_x = min(at_x, right) if at_x > zero else zero
            at_y = min(at_y, bottom) if at_y > zero else zero
            x0, y0 = int(at_x), int(at_y)
            wx, wy = at_x - np.float32(x0), at_y - np.float32(y0)
            x1, y1 = min(x0 + 1, width - 1), min(y0 + 1, height - 1)
            for c in range(2):
                upper = motion[c, y0, x0] + wx * (motion[c, y0, x1] - motion[c, y0, x0])
                lower = motion[c, y1, x0] + wx * (motion[c, y1, x1] - motion[c, y1, x0])
                out[c, y, x] = (u if c == 0 else v) + upper + wy * (lower - upper)
