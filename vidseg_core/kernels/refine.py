"""Edges of labels and the guided sum of refinement."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vidseg_core.kernels.cpu.decode import argmax_rows
from vidseg_core.kernels.cpu.refine import edge_rows, sum_rows
from vidseg_core.threads import over_rows


def channels_last(x: Tensor) -> np.ndarray:
    """1 x C x h x w -> h x w x C, float32; not copied where it lies in memory like that."""
    return x.float().permute(0, 2, 3, 1).contiguous()[0].numpy()


def label_edges(logits: np.ndarray) -> Tensor:
    """What `networks.guided_refine.label_edges` gives, of h x w x C: 1 x 1 x h x w of 0 or 1."""
    height, width, _ = logits.shape
    labels = np.zeros((height + 2, width + 2), dtype=np.uint8)
    over_rows(argmax_rows, height, logits, labels[1:-1, 1:-1])
    edge = np.empty((height, width), dtype=np.float32)
    over_rows(edge_rows, height, labels, edge)
    return torch.from_numpy(edge)[None, None]


def guided_sum(guide: np.ndarray, warped: np.ndarray, intra: np.ndarray) -> Tensor:
    """What `networks.guided_refine.guided_sum` gives, of h x w x C: 1 x C x h x w, newly allocated, channels last."""
    out = np.empty_like(warped)
    over_rows(sum_rows, warped.shape[0], guide, warped, intra, out)
    return torch.from_numpy(out)[None].permute(0, 3, 1, 2)
