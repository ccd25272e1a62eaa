"""Edges of labels and the guided sum of refinement."""

from __future__ import annotations

import numpy as np

from vidseg_core.arrays import Array, channels_first, device_type_of, pixels_last
from vidseg_core.kernels.cpu.decode import argmax_rows
from vidseg_core.kernels.cpu.refine import edge_rows, sum_rows
from vidseg_core.kernels.dispatch import Operation
from vidseg_core.threads import over_rows

LABEL_EDGES = Operation("label_edges", "refine.label_edges")
GUIDED_SUM = Operation("guided_sum", "refine.guided_sum")


def label_edges(logits: Array) -> Array:
    """Mark pixels at which the Laplacian of the label ids is not 0; ids outside the image count as 0.

    Args:
        logits: 1 x C x h x w, C in 1..255, finite. Fastest in float32 and channels last on the CPU.

    Returns:
        1 x 1 x h x w, 0 or 1, newly allocated.
    """
    return LABEL_EDGES.on(device_type_of(logits))(logits)


def guided_sum(guide: Array, warped: Array, intra: Array) -> Array:
    """Add the eleven candidates of guided refinement, each times its weight.

    Candidates in their order: `warped`; its shifts over the 3 x 3 neighbourhood, row by row without the centre, zeros
    outside; an all-zero map; `intra`.

    Args:
        guide: 1 x 11 x h x w, weights.
        warped, intra: 1 x C x h x w.

    Returns:
        1 x C x h x w, newly allocated.
    """
    return GUIDED_SUM.on(device_type_of(warped))(guide, warped, intra)


@LABEL_EDGES.register("cpu")
def _label_edges_on_cpu(logits: np.ndarray) -> np.ndarray:
    values = pixels_last(logits)
    height, width, _ = values.shape
    labels = np.zeros((height + 2, width + 2), dtype=np.uint8)
    over_rows(argmax_rows, height, values, labels[1:-1, 1:-1])
    edge = np.empty((height, width), dtype=np.float32)
    over_rows(edge_rows, height, labels, edge)
    return edge[None, None]


@GUIDED_SUM.register("cpu")
def _guided_sum_on_cpu(guide: np.ndarray, warped: np.ndarray, intra: np.ndarray) -> np.ndarray:
    weights, values, image = map(pixels_last, (guide, warped, intra))
    out = np.empty_like(values)
    over_rows(sum_rows, values.shape[0], weights, values, image, out)
    return channels_first(out)
