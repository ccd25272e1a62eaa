"""How far the picture differs from what the past lets expect."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vidseg_core.kernels.cpu.difference import difference_rows
from vidseg_core.kernels.warp import warp
from vidseg_core.threads import over_rows


def difference(current: Tensor, past: Tensor, motion: Tensor | None) -> Tensor:
    """How much each pixel's colour differs from what the past lets expect: 1 x 1 x h x w, float32, grey levels.

    Infinite where motion leads out of the past picture.

    Args:
        current, past: `picture` of the two frames.
        motion: 1 x 2 x h x w, flow from the current frame to the past one; None where nothing moved.
    """
    if motion is None:
        return (current.float() - past.float()).abs().mean(1, keepdim=True)
    h, w = current.shape[2:]
    if current.device.type == "cpu":
        out = np.empty((h, w), dtype=np.float32)
        pixels = (x.permute(0, 2, 3, 1).contiguous()[0].numpy() for x in (current, past, motion.float()))
        over_rows(difference_rows, h, *pixels, out)
        return torch.from_numpy(out)[None, None]
    x = torch.arange(w, device=motion.device) + motion[:, 0]
    y = torch.arange(h, device=motion.device)[:, None] + motion[:, 1]
    inside = (x >= 0) & (x <= w - 1) & (y >= 0) & (y <= h - 1)
    apart = (current.float() - warp(past.float(), motion, padding="border")).abs().mean(1, keepdim=True)
    return torch.where(inside[:, None], apart, torch.inf)
