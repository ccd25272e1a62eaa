"""Blending of fresh logits into carried ones in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from vidseg_core.kernels.reference.fuse import likeness
from vidseg_core.kernels.reference.resample import on_grid_reference
from vidseg_core.kernels.update import TOLERANCE


def update_reference(carried: Tensor, fresh: Tensor, apart: Tensor, picture: tuple[int, int] | None) -> Tensor:
    """Compute `update` in plain torch."""
    wide = torch.promote_types(carried.dtype, torch.float32)
    fresh = on_grid_reference(fresh.to(wide), (carried.shape[2], carried.shape[3]), picture)
    return torch.lerp(fresh, carried.to(wide), likeness(apart, TOLERANCE).to(wide))
