"""Backward warping: move the previous frame's values to where they are now.

Convention: `flow[:, 0]` is u (along x) and `flow[:, 1]` is v (along y), in pixels of the grid, from the current frame
to the previous one; `warped(x, y) = previous(x + u, y + v)`, bilinear. The sampling grid is `2 (x + u) / (w - 1) - 1`
whatever `align_corners` is; with False (as the public checkpoint's authors ran it) zero flow is not the identity.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vidseg_core.kernels import PADDINGS
from vidseg_core.kernels.cpu.warp import compose_rows, warp_rows
from vidseg_core.kernels.dispatch import Operation
from vidseg_core.threads import over_rows

# Nanoseconds on one thread, see `threads.over_rows`: of a value that is moved, and of a pixel's motion.
VALUE_NS, MOTION_NS = 0.9, 5.8


def warp(values: Tensor, flow: Tensor, align_corners: bool = True, padding: str = "zeros") -> Tensor:
    """Move the previous frame's values to their new places.

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
    wants_gradient = torch.is_grad_enabled() and (values.requires_grad or flow.requires_grad)
    if values.shape[0] != 1 or wants_gradient:
        return warp_reference(values, flow, align_corners, padding)
    return WARP.on(values.device.type)(values, flow, align_corners, padding)


def warp_reference(values: Tensor, flow: Tensor, align_corners: bool = True, padding: str = "zeros") -> Tensor:
    """Compute `warp` in plain torch, differentiable, for any batch; arguments are not checked."""
    h, w = values.shape[2:]
    x = torch.arange(w, device=flow.device, dtype=flow.dtype)
    y = torch.arange(h, device=flow.device, dtype=flow.dtype)[:, None]
    grid = torch.stack((2 * (x + flow[:, 0]) / (w - 1) - 1, 2 * (y + flow[:, 1]) / (h - 1) - 1), -1)
    return F.grid_sample(values, grid.to(values.dtype), "bilinear", padding, align_corners)


def compose(motion: Tensor, flow: Tensor) -> Tensor:
    """Chain two flows: current->previous (`flow`) and previous->key (`motion`) give current->key.

    `composed(x) = flow(x) + motion(x + flow(x))`, bilinear.

    Args:
        motion, flow: B x 2 x h x w, in pixels of the grid; outside the image motion is that of its border.

    Returns:
        B x 2 x h x w, newly allocated.
    """
    if flow.shape[0] != 1:
        return compose_reference(motion, flow)
    return COMPOSE.on(flow.device.type)(motion, flow)


def compose_reference(motion: Tensor, flow: Tensor) -> Tensor:
    """Compute `compose` in plain torch, for any batch."""
    return flow + warp_reference(motion, flow, padding="border")


WARP = Operation("warp", warp_reference)
COMPOSE = Operation("compose", compose_reference)


@COMPOSE.register("cpu")
def _compose_on_cpu(motion: Tensor, flow: Tensor) -> Tensor:
    first, then = (x.float().contiguous()[0].numpy() for x in (flow, motion))
    out = np.empty_like(first)
    over_rows(compose_rows, first.shape[1], first, then, out, work_us=MOTION_NS * out.size / 2e3)
    return torch.from_numpy(out)[None].to(motion.dtype)


@WARP.register("cpu")
def _warp_on_cpu(values: Tensor, flow: Tensor, align_corners: bool, padding: str) -> Tensor:
    source = values.detach().float().permute(0, 2, 3, 1).contiguous()[0].numpy()
    way = flow.detach().float().contiguous()[0].numpy()
    h, w = source.shape[:2]
    stretch_y, stretch_x, shift = map(np.float32, sampling_lattice((h, w), align_corners))
    out = np.empty_like(source)
    border, work_us = padding == "border", VALUE_NS * out.size / 1e3
    over_rows(warp_rows, h, source, way, stretch_y, stretch_x, shift, border, out, work_us=work_us)
    return torch.from_numpy(out)[None].permute(0, 3, 1, 2).to(values.dtype)


def sampling_lattice(size: tuple[int, int], align_corners: bool) -> tuple[float, float, float]:
    """Return factors along y and x and a summand that make of a place what is sampled for it.

    The sampling grid is one thing and read as another: see the convention above.
    """
    h, w = size
    return (1.0, 1.0, 0.0) if align_corners else (h / (h - 1), w / (w - 1), -0.5)
