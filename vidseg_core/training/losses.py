"""Losses of a segmentation network whose logits are coarser than its labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vidseg_core.classes import VOID

CLASS_WEIGHTINGS = ("none", "sqrt", "inverse")
LOGITS_STRIDE = 4


def class_weights(frequency: np.ndarray, weighting: str, limit: float = 10.0) -> Tensor:
    """Compute one loss weight per class, float32; their mean over the pixels is 1.

    Args:
        frequency: n, share of each class among the labelled pixels; 0 for a class that never occurs.
        weighting: "none", "sqrt" (inverse square root of the frequency) or "inverse".
        limit: the largest ratio of a weight to that of the most frequent class.
    """
    if weighting not in CLASS_WEIGHTINGS:
        raise ValueError(f"expected a weighting of {CLASS_WEIGHTINGS}, got {weighting!r}")
    if not frequency.max() > 0:
        raise ValueError("expected at least one labelled pixel")
    exponent = {"none": 0.0, "sqrt": 0.5, "inverse": 1.0}[weighting]
    relative = np.maximum(frequency, 1e-9) / frequency.max()
    weights = np.minimum(relative**-exponent, limit)
    return torch.from_numpy(weights / (weights * frequency).sum() * frequency.sum()).float()


def labels_at(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Sample labels, B x H x W, at the points of a grid whose corners are the image's corners: B x h x w."""
    rows, columns = (
        torch.linspace(0, full - 1, coarse, device=labels.device).round().long()
        for full, coarse in zip(labels.shape[1:], size, strict=True)
    )
    return labels[:, rows[:, None], columns]


def ohem(pixel_losses: Tensor, threshold: float = 0.7, least: float = 1 / 16) -> Tensor:
    """Average the hard pixels' losses (online hard example mining, Shrivastava et al., CVPR 2016).

    Args:
        pixel_losses: N, cross-entropies, not weighted.
        threshold: pixels whose true class has less than this probability are hard.
        least: at least this share of the pixels is used, hard or not.
    """
    hard = pixel_losses[pixel_losses > -np.log(threshold)]
    fewest = max(1, int(least * pixel_losses.numel()))
    if hard.numel() < fewest:
        hard = pixel_losses.topk(min(fewest, pixel_losses.numel())).values
    return hard.mean()


def lovasz_softmax(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute Lovasz-softmax (Berman, Triki, Blaschko, CVPR 2018), a convex surrogate of 1 - mIoU of a batch's classes.

    Args:
        logits: B x C x h x w.
        labels: B x h x w, int64, 255 = ignored.

    Returns:
        A scalar in 0..1; 0 if every label is void.
    """
    known = labels != VOID
    probabilities = logits.softmax(1).permute(0, 2, 3, 1)[known]  # P x C
    truth = F.one_hot(labels[known], logits.shape[1]).T  # C x P
    present = truth.any(1)
    if not present.any():
        return logits.sum() * 0
    truth = truth[present].float()
    errors, order = (truth - probabilities.T[present]).abs().sort(dim=1, descending=True)
    truth = truth.gather(1, order)
    # The IoU loss of a class when its k worst pixels count as wrong; its increments weight the sorted errors.
    count = truth.sum(1, keepdim=True)
    jaccard = 1 - (count - truth.cumsum(1)) / (count + (1 - truth).cumsum(1))
    increments = torch.diff(jaccard, dim=1, prepend=torch.zeros_like(count))
    return (errors * increments).sum(1).mean()


@dataclass(frozen=True)
class SegmentationLoss:
    """Weighted cross-entropy (or OHEM) on enlarged logits, plus Lovasz-softmax at the logits' own stride.

    Attributes:
        weights: n, one per class.
        stride: of the grid on which cross-entropy is computed: 1, 2 or 4 (the logits' own).
        lovasz: factor of the Lovasz-softmax term; 0 leaves it out.
        hard_pixels: use only hard pixels, without class weights.
    """

    weights: Tensor
    stride: int = 2
    lovasz: float = 0.0
    hard_pixels: bool = False

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Compute the mean loss of a batch.

        Args:
            logits: B x C x h x w, float32.
            labels: B x H x W, int64, 255 = ignored.
        """
        loss = self._cross_entropy(logits, labels)
        if self.lovasz:
            loss = loss + self.lovasz * lovasz_softmax(logits, labels_at(labels, tuple(logits.shape[2:])))
        return loss

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.stride < LOGITS_STRIDE:
            size = tuple(-(-side // self.stride) for side in labels.shape[1:])
            logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=True)
        labels = labels_at(labels, tuple(logits.shape[2:]))
        if self.hard_pixels:
            losses = F.cross_entropy(logits, labels, ignore_index=VOID, reduction="none")[labels != VOID]
            return ohem(losses) if losses.numel() else logits.sum() * 0
        # The sum over a fixed number of pixels: PyTorch's weighted mean is nan where all is void.
        total = F.cross_entropy(logits, labels, self.weights, ignore_index=VOID, reduction="sum")
        return total / (labels != VOID).sum().clamp(min=1)
