"""Mixing of probabilities in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from vidseg_core.kernels.fuse import LEAST_PROBABILITY, TOLERANCE, WEIGHT
from vidseg_core.kernels.reference.resample import resample_reference, resize_reference


def fuse_reference(scores: Tensor, carried: Tensor, apart: Tensor, picture: tuple[int, int] | None) -> Tensor:
    """Compute `fuse` in plain torch."""
    size = (scores.shape[2], scores.shape[3])

    def moved(x: Tensor) -> Tensor:
        if picture is None:
            return resize_reference(x, size)
        return resample_reference(x, size, picture, source_half_pixel=False, target_half_pixel=True)

    wide = torch.promote_types(scores.dtype, torch.float32)
    share = moved(WEIGHT * likeness(apart, TOLERANCE)).to(wide)
    new, past = scores.to(wide).softmax(1), moved(carried).to(wide).softmax(1)
    return torch.lerp(new, past, share).clamp_min(LEAST_PROBABILITY).log()


def likeness(apart: Tensor, tolerance: float) -> Tensor:
    """Compute `kernels.fuse.likeness` in plain torch."""
    return torch.exp(-((apart / tolerance) ** 2))
