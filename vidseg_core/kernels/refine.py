"""Edges of labels and the guided sum of refinement."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vidseg_core.kernels.cpu.decode import argmax_rows
from vidseg_core.kernels.cpu.refine import edge_rows, sum_rows
from vidseg_core.kernels.dispatch import Operation
from vidseg_core.networks.guided_refine import guided_sum as guided_sum_reference
from vidseg_core.networks.guided_refine import label_edges as label_edges_reference
from vidseg_core.threads import over_rows

LABEL_EDGES = Operation("label_edges", label_edges_reference)
GUIDED_SUM = Operation("guided_sum", guided_sum_reference)


def label_edges(logits: Tensor) -> Tensor:
    """Mark pixels at which the Laplacian of the label ids is not 0; ids outside the image count as 0.

    Args:
        logits: 1 x C x h x w, C in 1..255, finite. Fastest in float32 and channels last on the CPU.

    Returns:
        1 x 1 x h x w, 0 or 1, newly allocated.
    """
    return LABEL_EDGES.on(logits.device.type)(logits)


def guided_sum(guide: Tensor, warped: Tensor, intra: Tensor) -> Tensor:
    """Add the eleven candidates of guided refinement, each times its weight.

    Candidates in their order: `warped`; its shifts over the 3 x 3 neighbourhood, row by row without the centre, zeros
    outside; an all-zero map; `intra`.

    Args:
        guide: 1 x 11 x h x w, weights.
        warped, intra: 1 x C x h x w.

    Returns:
        1 x C x h x w, newly allocated.
    """
    return GUIDED_SUM.on(warped.device.type)(guide, warped, intra)


@LABEL_EDGES.register("cpu")
def _label_edges_on_cpu(logits: Tensor) -> Tensor:
    values = _channels_last(logits)
    height, width, _ = values.shape
    labels = np.zeros((height + 2, width + 2), dtype=np.uint8)
    over_rows(argmax_rows, height, values, labels[1:-1, 1:-1])
    edge = np.empty((height, width), dtype=np.float32)
    over_rows(edge_rows, height, labels, edge)
    return torch.from_numpy(edge)[None, None]


@GUIDED_SUM.register("cpu")
def _guided_sum_on_cpu(guide: Tensor, warped: Tensor, intra: Tensor) -> Tensor:
    weights, values, image = _channels_last(guide), _channels_last(warped), _channels_last(intra)
    out = np.empty_like(values)
    over_rows(sum_rows, values.shape[0], weights, values, image, out)
    return torch.from_numpy(out)[None].permute(0, 3, 1, 2)


def _channels_last(x: Tensor) -> np.ndarray:
    # 1 x C x h x w -> h x w x C, float32; not copied where it lies in memory like that.
    return x.float().permute(0, 2, 3, 1).contiguous()[0].numpy()
