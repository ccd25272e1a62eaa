"""Compare labels with the truth: confusion matrix, IoU, pixel accuracy."""

from __future__ import annotations

import warnings

import numpy as np

from vidseg_core import distributed
from vidseg_core.classes import VOID


class ConfusionMatrix:
    """Count pixels by true class (row) and predicted class (column); pixels whose truth is void count nowhere.

    Args:
        num_classes: 1 to 255.
    """

    def __init__(self, num_classes: int):
        if not 1 <= num_classes <= VOID:
            raise ValueError(f"expected 1 to {VOID} classes, got {num_classes}")
        self.num_classes = num_classes
        # The last column holds pixels of a known class that were predicted as void: wrong, but nobody's false positive.
        self._counts = np.zeros((num_classes, num_classes + 1), dtype=np.int64)

    @property
    def counts(self) -> np.ndarray:
        """n x n, int64: true class by predicted class."""
        return self._counts[:, :-1]

    @property
    def all_counts(self) -> np.ndarray:
        """n x (n + 1), int64: true class by predicted class, the last column what was predicted as void."""
        return self._counts

    @classmethod
    def from_counts(cls, counts: np.ndarray) -> ConfusionMatrix:
        """Make the matrix of which these were `all_counts`; they are copied.

        Raises:
            ValueError: `counts` is not n x (n + 1).
        """
        if counts.ndim != 2 or counts.shape[1] != counts.shape[0] + 1:
            raise ValueError(f"expected counts of n x (n + 1), got {counts.shape}")
        matrix = cls(len(counts))
        np.add(matrix._counts, counts, out=matrix._counts)
        return matrix

    def update(self, predicted: np.ndarray, truth: np.ndarray) -> None:
        """Count one image.

        Args:
            predicted: H x W, uint8, class ids or 255.
            truth: H x W, uint8, class ids or 255 = ignored.

        Raises:
            ValueError: the shapes differ, the types are not uint8, or an id is neither a class nor 255.
        """
        if predicted.shape != truth.shape:
            raise ValueError(f"expected predictions of the truth's shape {truth.shape}, got {predicted.shape}")
        for what, labels in (("predicted", predicted), ("true", truth)):
            if labels.dtype != np.uint8:
                raise ValueError(f"expected {what} labels of uint8, got {labels.dtype}")
        pairs = truth.astype(np.uint16)  # one pass counts them, whatever they are
        pairs <<= 8
        pairs |= predicted
        found = np.bincount(pairs.ravel(), minlength=1 << 16).reshape(256, 256)
        n = self.num_classes
        for what, present in (("predicted", found.any(axis=0)), ("true", found.any(axis=1))):
            strange = n + np.flatnonzero(present[n:VOID])
            if len(strange):
                raise ValueError(f"expected {what} labels of 0..{n - 1} or {VOID}, got {strange[-1]}")
        self._counts[:, :n] += found[:n, :n]
        self._counts[:, n] += found[:n, VOID]

    def merge(self, other: ConfusionMatrix) -> None:
        """Add the counts of `other`, which must have as many classes (ValueError)."""
        if other.num_classes != self.num_classes:
            raise ValueError(f"expected a matrix of {self.num_classes} classes, got {other.num_classes}")
        self._counts += other._counts

    def sum_over_processes(self) -> None:
        """Add the counts of the other processes, which do the same."""
        self._counts = distributed.sum_counts(self._counts)

    @property
    def num_pixels(self) -> int:
        """Pixels counted, void left out."""
        return int(self._counts.sum())

    def absent(self) -> list[int]:
        """List the classes that the truth does not have: their IoU is 0 where they were predicted, else nan."""
        return np.flatnonzero(self._counts.sum(axis=1) == 0).tolist()

    def iou(self) -> np.ndarray:
        """Compute each class's intersection over union, n, float64, 0..1; nan where truth and prediction lack it."""
        hits = np.diag(self.counts).astype(np.float64)
        union = self._counts.sum(axis=1) + self.counts.sum(axis=0) - hits
        return np.divide(hits, union, out=np.full(self.num_classes, np.nan), where=union > 0)

    def mean_iou(self) -> float:
        """Compute the mean of the classes' IoU, 0..1, over those that have one; nan if nothing was counted."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # the mean of no class is nan, as said
            return float(np.nanmean(self.iou()))

    def pixel_accuracy(self) -> float:
        """Compute the share of counted pixels with the right class, 0..1; nan if nothing was counted."""
        return float(np.diag(self.counts).sum() / self.num_pixels) if self.num_pixels else float("nan")
