"""Class scores of masks and their classes in plain torch."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from vidseg_core.kernels.queries import SHARPNESS


def scores_of_queries_reference(masks: Tensor, classes: Tensor, mask_size: tuple[int, int] | None = None) -> Tensor:
    """Compute `scores_of_queries` in plain torch, differentiable."""
    if mask_size is not None:
        masks = F.interpolate(masks, mask_size, mode="bilinear", align_corners=False)
    of_classes = classes.softmax(-1)[..., :-1].transpose(1, 2) * SHARPNESS  # B x C x Q
    return (of_classes @ masks.sigmoid().flatten(2)).unflatten(2, masks.shape[2:])
