"""Class scores of networks that answer with masks and a class for each of them (MaskFormer, Mask2Former, EoMT)."""

from __future__ import annotations

from vidseg_core.arrays import Array, device_type_of
from vidseg_core.kernels.dispatch import Operation

SHARPNESS = 10.0
"""Logits per unit of score: a pixel that one query is sure of is as certain as one of a trained network's."""


def scores_of_queries(masks: Array, classes: Array, mask_size: tuple[int, int] | None = None) -> Array:
    """Sum, for each class, the masks of all queries by their probability of that class.

    As `post_process_semantic_segmentation` of `transformers`, times `SHARPNESS`. Computed by PyTorch everywhere.

    Args:
        masks: B x Q x h x w, logits.
        classes: B x Q x (C + 1), logits; the last one stands for no class.
        mask_size: (h, w) that masks are brought to first; None for their own.

    Returns:
        B x C x h x w.
    """
    return SCORES_OF_QUERIES.on(device_type_of(masks))(masks, classes, mask_size)


SCORES_OF_QUERIES = Operation("scores_of_queries", "queries.scores_of_queries_reference")
