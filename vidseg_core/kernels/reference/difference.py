"""Picture differences in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from vidseg_core.kernels.reference.warp import warp_reference


def difference_reference(current: Tensor, past: Tensor, motion: Tensor) -> Tensor:
    """Compute `difference` in plain torch, where there is motion."""
    h, w = current.shape[2:]
    x = torch.arange(w, device=motion.device) + motion[:, 0]
    y = torch.arange(h, device=motion.device)[:, None] + motion[:, 1]
    inside = (x >= 0) & (x <= w - 1) & (y >= 0) & (y <= h - 1)
    wide = torch.promote_types(motion.dtype, torch.float32)
    moved = warp_reference(past.to(wide), motion, padding="border")
    return torch.where(inside[:, None], (current.to(wide) - moved).abs().mean(1, keepdim=True), torch.inf)


def difference_at_rest_reference(current: Tensor, past: Tensor) -> Tensor:
    """Compute `difference` in plain torch, where nothing moved."""
    return (current.float() - past.float()).abs().mean(1, keepdim=True)
