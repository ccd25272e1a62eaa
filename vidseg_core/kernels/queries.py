"""Class scores of networks that answer with masks and a class for each of them (MaskFormer, Mask2Former, EoMT)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

SHARPNESS = 10.0
"""Logits per unit of score: a pixel that one query is sure of is as certain as one of a trained network's."""


def scores_of_queries(masks: Tensor, classes: Tensor, mask_size: tuple[int, int] | None = None) -> Tensor:
    """Sum, for each class, the masks of all queries by their probability of that class.

    As `post_process_semantic_segmentation` of `transformers`, times `SHARPNESS`.

    Args:
        masks: B x Q x h x w, logits.
        classes: B x Q x (C + 1), logits; the last one stands for no class.
        mask_size: (h, w) that masks are brought to first; None for their own.

    Returns:
        B x C x h x w.
    """
    if mask_size is not None:
        masks = F.interpolate(masks, mask_size, mode="bilinear", align_corners=False)
    of_classes = classes.softmax(-1)[..., :-1].transpose(1, 2) * SHARPNESS  # B x C x Q
    return (of_classes @ masks.sigmoid().flatten(2)).unflatten(2, masks.shape[2:])
