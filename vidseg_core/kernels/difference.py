"""Difference between a picture and the past one moved to it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vidseg_core.kernels.cpu.difference import difference_rows
from vidseg_core.kernels.dispatch import Operation
from vidseg_core.kernels.warp import warp
from vidseg_core.threads import over_rows


def difference(current: Tensor, past: Tensor, motion: Tensor | None) -> Tensor:
    """Compare each pixel's colour with the past picture's at the place that motion leads to.

    Args:
        current, past: `picture` of the two frames.
        motion: 1 x 2 x h x w, flow from the current frame to the past one; None where nothing moved.

    Returns:
        1 x 1 x h x w, float32: mean absolute difference of the channels in grey levels; infinite where motion leads
        out of the past picture or is not a number.
    """
    if motion is None:
        return (current.float() - past.float()).abs().mean(1, keepdim=True)
    return DIFFERENCE.on(current.device.type)(current, past, motion)


def difference_reference(current: Tensor, past: Tensor, motion: Tensor) -> Tensor:
    """Compute `difference` in plain torch, where there is motion."""
    h, w = current.shape[2:]
    x = torch.arange(w, device=motion.device) + motion[:, 0]
    y = torch.arange(h, device=motion.device)[:, None] + motion[:, 1]
    inside = (x >= 0) & (x <= w - 1) & (y >= 0) & (y <= h - 1)
    apart = (current.float() - warp(past.float(), motion, padding="border")).abs().mean(1, keepdim=True)
    return torch.where(inside[:, None], apart, torch.inf)


# On one thread, see `threads.over_rows`.
PIXEL_NS = 9.0
DIFFERENCE = Operation("difference", difference_reference)


@DIFFERENCE.register("cpu")
def _difference_on_cpu(current: Tensor, past: Tensor, motion: Tensor) -> Tensor:
    h, w = current.shape[2:]
    out = np.empty((h, w), dtype=np.float32)
    pixels = (x.permute(0, 2, 3, 1).contiguous()[0].numpy() for x in (current, past, motion.float()))
    over_rows(difference_rows, h, *pixels, out, work_us=PIXEL_NS * out.size / 1e3)
    return torch.from_numpy(out)[None, None]
